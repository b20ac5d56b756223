"""The guard of a real node: what its policy says to each order, before a user's data is touched."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from torch import Tensor

from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order, OrderRefused
from fedrec.federation.policy.check_run import check_run
from fedrec.federation.policy.node_policy import NodePolicy, Question, load_policy
from fedrec.federation.policy.order_book import OrderBook, today
from fedrec.federation.policy.trap_neurons import check_adapter
from fedrec.recsys.model.lora import Adapter

logger = logging.getLogger("fedrec")


@dataclass(frozen=True, eq=False)
class NodeGuard:
    """A node's policy, and the book of the orders that were answered under it."""

    policy: NodePolicy
    book: OrderBook

    @classmethod
    def of_folder(cls, folder: Path, file: Path | None = None) -> "NodeGuard":
        """Build the guard of a node's folder, with the policy in `file`, or in the folder. Raises `InputError`."""
        return cls(load_policy(folder, file).policy, OrderBook.of(folder))

    def check_run(self, config: RunConfig, items: int) -> None:
        """Raise `OrderRefused` if the node takes no part in a run over a catalogue of `items` items."""
        with _logged():
            check_run(self.policy, config, items)

    def check_population(self, config: RunConfig, users: int) -> None:
        """Raise `OrderRefused` if a run asks this node, of `users` users, for open statistics of too few: before the
        rounds that come before its statistics."""
        with _logged():
            if config.method_row.summed and not config.secure_aggregation.secure:
                self._check_open_statistics("run", "statistics", users)

    def check_adapter(self, adapter: Adapter, embeddings: Tensor, config: RunConfig) -> None:
        """Raise `OrderRefused` if an adapter is made to read histories; embeddings: (N, E) of the catalogue."""
        with _logged():
            check_adapter(self.policy, adapter, embeddings, config.model.item_tower == "gelu")

    def admit(self, question: Question, order: Order, tickets: np.ndarray, nodes: int, day: date | None = None) -> None:
        """Enter an order in the book: the last step before its users are touched. Raises `OrderRefused`.

        tickets: (U,) of the node's users; nodes: how many nodes are in the sum that the server sees, as this node
        knows from the protocol of secure aggregation; 1 without it.
        """
        with _logged():
            smallest = self._check_cohort(question, len(order.users), nodes)
            self._check_noise(question, order)
            self.book.enter(self.policy, question, tickets[order.users], smallest, day or today())

    def _check_cohort(self, question: Question, users: int, nodes: int) -> int:
        """Return the fewest users whose sum may leave this node. Raises `OrderRefused` if the order asks for fewer."""
        policy, others = self.policy, nodes - 1  # each with a user at least
        if question not in policy.questions:
            allowed = list(policy.questions)
            raise OrderRefused(
                f"this node's policy refuses the order: it asks for {question}, and questions = {allowed}"
            )
        if users + others < policy.smallest_cohort:
            among = f" in a sum of {nodes} nodes" if others else ""
            raise OrderRefused(
                f"this node's policy refuses the order: users are {users}{among}, "
                f"and smallest_cohort = {policy.smallest_cohort}"
            )
        if question in ("statistics", "exposure") and not others:
            self._check_open_statistics("order", question, users)
        return max(1, policy.smallest_cohort - others)

    def _check_open_statistics(self, what: str, question: Question, users: int) -> None:
        if users < (floor := self.policy.smallest_open_statistics):
            other = "method = fedrec" if question == "statistics" else "exposure_base = 0"
            raise OrderRefused(
                f"this node's policy refuses the {what}: {question} of {users} users without secure aggregation, and "
                f"smallest_open_statistics = {floor}; set secure = true, or {other}"
            )

    def _check_noise(self, question: Question, order: Order) -> None:
        if question in ("train", "statistics") and order.noise < (floor := self.policy.smallest_noise):
            raise OrderRefused(
                f"this node's policy refuses the order: noise = {order.noise:g}, and smallest_noise = {floor:g}"
            )


@contextmanager
def _logged() -> Iterator[None]:
    """Log a refusal at the node, too: its owner learns what was asked."""
    try:
        yield
    except OrderRefused as refusal:
        logger.warning("%s", refusal)
        raise
