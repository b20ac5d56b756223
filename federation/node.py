"""The client side of a round: a node's users train together, or are ranked. Nothing here imports Flower."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.data.dataset import Dataset
from fedrec.data.shard import Shard
from fedrec.federation.client_state import ClientStateStore, state_file
from fedrec.federation.clipping import clip_and_sum
from fedrec.federation.compression.eden import Eden, encode
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order, OrderRefused, Update
from fedrec.federation.policy.guard import NodeGuard
from fedrec.federation.policy.node_policy import Question
from fedrec.federation.privacy.noise import RandomBytes, secret_bytes
from fedrec.federation.secure_aggregation.node_memory import NodeMemory, memory_file
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.validate_order import OrderLimits, check_watched, validate_order
from fedrec.recsys.evaluation.exposure import count_exposure, with_bias
from fedrec.recsys.evaluation.ranking import RankingConfig, metric_sums, rank_users
from fedrec.recsys.exposure_bound import BIAS, WATCHED, Bounding, split_bias
from fedrec.recsys.hardware import device, parallel_map
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.scoring import UserScorer
from fedrec.recsys.training.method import Block, UserStates


@dataclass(frozen=True, eq=False)
class Node:
    """A process that hosts clients: their shard, the setup that it shares with others, and the clients' states.

    A real node has a guard, which refuses what is beyond its policy. A node within the trainer's own process has none:
    the histories are the trainer's.
    """

    shard: Shard
    setup: TrainingSetup
    states: ClientStateStore = field(default_factory=ClientStateStore)
    guard: NodeGuard | None = None
    memory: NodeMemory = field(default_factory=NodeMemory)
    coins: RandomBytes = secret_bytes  # of the noise that it adds

    @classmethod
    def open(cls, folder: Path, config: RunConfig, part: int = 0, parts: int = 1, persistent: bool = False) -> "Node":
        """Open the node that hosts part `part` of the users in a prepared folder. Raises `InputError`."""
        return cls.host(TrainingSetup(Dataset.open(folder), config), part, parts, persistent)

    @classmethod
    def host(cls, setup: TrainingSetup, part: int = 0, parts: int = 1, persistent: bool = False) -> "Node":
        """Build the node that hosts part `part` of a dataset's users; `persistent`: store client state on disk.

        Raises `InputError` if the histories, or the stored states, cannot be read.
        """
        shard, row = setup.dataset.shard.part(part, parts), setup.config.method_row
        secure, folder = setup.config.secure_aggregation.secure, setup.dataset.folder
        memory = NodeMemory(memory_file(folder, part, parts) if persistent and secure else None)
        if not (persistent and row.state_types):
            return cls(shard, setup, memory=memory)
        file = state_file(folder, part, parts)
        return cls(shard, setup, ClientStateStore(file, shard.salts, row.state_types()), memory=memory)

    @property
    def config(self) -> RunConfig:
        """The run's settings."""
        return self.setup.config

    @cached_property
    def _templates(self) -> list[Adapter]:
        """The adapters that the run knows, without numbers: as it is trained, and with the closed form beside it."""
        adapter = self.setup.method.adapter()
        trained = {name: tensor.to("meta") for name, tensor in adapter.items()}
        return [trained, trained | self.setup.closed_form.weights_template()] if self._is_summed else [trained]

    @cached_property
    def _bounded_templates(self) -> list[Adapter]:
        """The same with what an order brings to count exposure; none in a run that does not bound it."""
        if not (limit := self.config.exposure_limit):
            return []
        beside = Bounding.start(limit, len(self.setup.dataset.catalogue)).order
        return [template | beside for template in self._templates]

    @property
    def _is_summed(self) -> bool:
        return self.config.method_row.summed

    @cached_property
    def _tickets(self) -> np.ndarray:
        return self.shard.tickets()

    def _admit(self, question: Question, order: Order, nodes: int) -> None:
        """Let the guard enter a valid order. `nodes` are in the sum that the server sees: 1 without secure sums."""
        if self.guard:
            self.guard.admit(question, order, self._tickets, nodes)

    def train(self, order: Order, adapter: Adapter, nodes: int = 1) -> Update:
        """Train the ordered users from `adapter`, and sum their clipped changes. Raises `OrderRefused`.

        `nodes` are in the sum that the server sees, as the protocol of secure aggregation told this node.
        """
        validate_order(order, adapter, OrderLimits.to_train(self.config, len(self.shard), self._templates[0]))
        if self.guard:
            self.guard.check_adapter(adapter, self.setup.device_embeddings.matrix, self.config)
        self._admit("train", order, nodes)
        with self._states(order) as states:
            return self._train_clients(order, adapter, states)

    def _states(self, order: Order) -> AbstractContextManager[dict[int, Any]]:
        if not self.config.has_client_state:
            return nullcontext({})
        return self.states.training(order.run, order.round, order.best)

    def _train_clients(self, order: Order, adapter: Adapter, states: dict[int, Any]) -> Update:
        method, config = self.setup.method, self.config

        def train_block(block: Block) -> Update:
            changes = method.train_clients(adapter, block, states)
            return clip_and_sum(changes, order.round, order.clip, self._coding(block, order.round), config.largest_loss)

        map_blocks = map if config.mode == "central" else parallel_map  # one client has all cores in each product
        return reduce(add, map_blocks(train_block, method.blocks(self.shard, order.users, order.round)))

    def _coding(self, block: Block, round: int) -> Eden | None:
        bits, seed = self.config.bits, self.config.seed
        return None if bits == 32 else Eden.draw(block.salts, bits, seed, round).to(device())

    def sum_statistics(self, order: Order, adapter: Adapter, nodes: int = 1) -> Update:
        """Sum the statistics of the ordered users, for the closed form. Raises `OrderRefused`.

        `nodes` are in the sum that the server sees, as for `train`.
        """
        if not self._is_summed:
            raise OrderRefused(f"an order is refused: {self.config.method} has no statistics to sum")
        validate_order(order, adapter, OrderLimits.to_sum(self.config, len(self.shard)))
        self._admit("statistics", order, nodes)
        closed_form, coded = self.setup.closed_form, self.config.sum_bits < 32
        to_choose = order.round != self.config.summing_rounds[-1]
        groups = order.users.reshape(-1, 1) if coded else closed_form.groups(order.users)
        _ = closed_form.features  # before the threads start, so that they are computed once

        def sum_group(users: np.ndarray) -> Update:
            statistics, learners = closed_form.sum_users(self.shard, users, to_choose)
            sums = Update(order.round, len(users), statistics, {"learners": float(learners)})
            return self._coded(sums, self.shard.salts[users]) if coded else sums

        return reduce(add, parallel_map(sum_group, groups))

    def _coded(self, sums: Update, salts: np.ndarray) -> Update:
        """Code the sums of one user, as the server would decode them.

        The rotation depends on no round: the same history gives the same sums again, to be subtracted.
        """
        stack = {name: tensor.float().unsqueeze(0) for name, tensor in sums.deltas.items()}
        codes, _ = encode(stack, Eden.draw(salts, self.config.bits, self.config.seed, round=0))
        shapes = {name: tensor.shape for name, tensor in sums.deltas.items()}
        return replace(sums, deltas=codes.total(shapes), codes=codes)

    def evaluate(self, order: Order, adapter: Adapter, nodes: int = 1) -> Update:
        """Rank the ordered users' held-out items by the order's protocol, and sum the metrics.

        Catalogue coverage is left out: on a node of one user it would name the user's recommendations. `nodes` are in
        the sum that the server sees, as for `train`. Raises `OrderRefused`.
        """
        biased = [{name: t for name, t in like.items() if name != WATCHED} for like in self._bounded_templates]
        templates = [*self._templates, *biased]
        validate_order(order, adapter, OrderLimits.to_evaluate(self.config, len(self.shard), templates))
        self._admit("test" if order.split == "test" else "validation", order, nodes)
        states = self.states.at(order.run, order.round) if self.config.has_client_state else {}
        score = self._biased_scorer(order, adapter, states)
        ranking = rank_users(score, self.shard, order.users.tolist(), order.split, RankingConfig(order.protocol))
        return Update(order.round, len(order.users), {}, metric_sums(ranking.ranks))

    def _biased_scorer(self, order: Order, adapter: Adapter, states: UserStates) -> UserScorer:
        adapter, bias = split_bias(adapter)
        return with_bias(self.setup.method.scorer(adapter, self.shard, order.split, states), bias)

    def count_exposure(self, order: Order, adapter: Adapter, nodes: int = 1) -> Update:
        """Count in whose lists each item would be, and how many of the ordered users have had the watched items.

        A user adds at most 1 to each number. `nodes` are in the sum that the server sees, as for `train`. Raises
        `OrderRefused`.
        """
        if not self._bounded_templates:
            raise OrderRefused(f"an order is refused: this run counts no exposure ({self.config.unbounded})")
        validate_order(order, adapter, OrderLimits.to_count(self.config, len(self.shard), self._bounded_templates))
        check_watched(adapter[WATCHED], len(adapter[BIAS]))
        self._admit("exposure", order, nodes)
        score, watched = self._biased_scorer(order, adapter, {}), adapter[WATCHED]
        found = count_exposure(score, self.shard, order.users, order.split, watched)
        return Update(order.round, len(order.users), found.tensors, {"users": float(found.users)})
