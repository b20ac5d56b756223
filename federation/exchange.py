"""One exchange with the nodes: an order to each, and the valid updates that come back in time."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from fedrec.federation import wire
from fedrec.federation.aggregate import sum_updates
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order, Update
from fedrec.federation.roster import Roster
from fedrec.federation.secure_exchange import Answer, request_sums
from fedrec.federation.secure_layout import check_capacity, layout_of, sensitivity_of
from fedrec.federation.validate_update import (
    validate_exposure,
    validate_noised,
    validate_statistics,
    validate_update,
)
from fedrec.recsys.closed_form.norm_bounds import Bounds
from fedrec.recsys.evaluation.ranking import metric_means
from fedrec.recsys.exposure_bound import BIAS, Exposure
from fedrec.recsys.model.lora import Adapter

REASON = 400
"""Characters of a refusal's reason that are kept: some of it comes from the node."""

logger = logging.getLogger("fedrec")


@dataclass
class RoundReport:
    """The outcome of one exchange: the valid updates, and an account of every other answer."""

    clients_asked: int = 0
    clients_answered: int = 0
    clients_refused: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    refusals: list[str] = field(default_factory=list)  # a node, and why its answer is not in the sum
    absences: list[str] = field(default_factory=list)  # a node, and why the server has no answer of it
    updates: list[Update] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)  # the node of each update; under secure aggregation, of the one sum
    revealed: bool = False  # under secure aggregation: nodes were asked to reveal a sum
    excess: float = 0.0  # the variance of the nodes' noise in the sum, over that of the order

    @property
    def metrics(self) -> dict[str, float] | None:
        """The means of an evaluation over the ranked users, or None if no user was ranked."""
        sums = sum_updates(self.updates).sums if self.updates else {"users": 0.0}
        return metric_means(sums) if sums["users"] else None

    def with_traffic_of(self, other: "RoundReport") -> "RoundReport":
        """Return this report with the bytes, refusals and absences of another exchange of the same round."""
        return replace(
            self,
            bytes_down=self.bytes_down + other.bytes_down,
            bytes_up=self.bytes_up + other.bytes_up,
            refusals=self.refusals + other.refusals,
            absences=self.absences + other.absences,
        )

    def as_record(self) -> dict[str, Any]:
        """Return the account as fields of a round's record."""
        names = ("clients_asked", "clients_answered", "clients_refused", "bytes_down", "bytes_up")
        return {name: getattr(self, name) for name in (*names, "refusals", "absences")}


def orders_per_node(roster: Roster, order: Order) -> dict[int, Order]:
    """Split an order to places of the roster into one for each node that hosts some of them."""
    return {node: replace(order, users=users) for node, users in roster.per_node(order.users).items()}


@dataclass(frozen=True, eq=False)
class Correspondence:
    """The messages to the nodes that answer some orders, and the account of them."""

    grid: Grid
    orders: Mapping[int, Order]
    config: RunConfig
    tally: RoundReport
    refused: set[int] = field(default_factory=set)  # nodes

    def ask(self, kind: str, contents: Mapping[int, RecordDict], room: int) -> dict[int, RecordDict]:
        """Send each node a message, and return the answers of up to `room` bytes that came in time."""
        number, tally = next((str(order.round) for order in self.orders.values()), ""), self.tally
        tally.bytes_down += sum(wire.payload_bytes(content) for content in contents.values())
        replies = send_and_receive(self.grid, kind, contents, number, self.config)
        for node in sorted(contents.keys() - replies.keys()):
            tally.absences.append(f"node {node}: no answer within {self.config.round_timeout:g} s")
            logger.warning("round %s: %s", number, tally.absences[-1])
        answers = {}
        for node, reply in replies.items():
            if reply.has_error() and reply.error.code == ErrorCode.NODE_UNAVAILABLE:
                tally.absences.append(f"node {node}: {one_line(reply.error.reason or 'unavailable')}")
                logger.warning("round %s: %s", number, tally.absences[-1])
                continue
            with self.refusing([node]):
                content = content_of(reply)
                tally.bytes_up += (received := wire.payload_bytes(content))
                if received > room:
                    raise ValueError(f"answered with {received:,} bytes, where {room:,} are enough")
                answers[node] = content
        return answers

    def joint_order(self, nodes: Sequence[int]) -> Order:
        """Return the order that some nodes have answered together."""
        order = self.orders[nodes[0]]
        return order if len(nodes) == 1 else replace(order, users=np.concatenate([self.orders[n].users for n in nodes]))

    @contextmanager
    def refusing(self, nodes: Sequence[int]) -> Iterator[None]:
        """Refuse the answers of nodes if the block raises `ValueError`, and record why."""
        try:
            yield
        except ValueError as error:
            who = f"node {nodes[0]}" if len(nodes) == 1 else f"a group of {len(nodes)} nodes"
            self.refused.update(nodes)
            self.tally.refusals.append(f"{who}: {one_line(error)}")
            round = next(order.round for order in self.orders.values())
            logger.warning("round %s: refused %s: %s", round, who, one_line(error))


def request_updates(
    grid: Grid,
    kind: str,
    orders: Mapping[int, Order],
    adapter: Adapter,
    config: RunConfig,
    bounds: Bounds | None = None,
) -> RoundReport:
    """Send each node its order and collect the updates that arrive in time. Invalid answers are refused and counted.

    `bounds` are those of the statistics that the order asks for. Under secure aggregation the one update is the sum.
    """
    tally = RoundReport(clients_asked=sum(len(order.users) for order in orders.values()))
    secure = config.secure_aggregation.secure
    exchange = Correspondence(grid, orders, config, tally)
    template = _template(kind, adapter, bounds)
    if secure:
        check_capacity(kind, tally.clients_asked, config, bounds)
        answers = request_sums(exchange, kind, adapter, layout_of(kind, template, bounds))
    else:
        answers = _open_answers(exchange, kind, adapter, template)
    for answer in answers:
        with exchange.refusing(answer.nodes):
            tally.updates.append(_validate(exchange, kind, answer, template, bounds))
            tally.nodes += answer.nodes
            tally.excess += answer.excess
            tally.clients_answered += sum(len(orders[node].users) for node in answer.nodes)
    tally.clients_refused = sum(len(orders[node].users) for node in exchange.refused - set(tally.nodes))
    if secure and tally.updates:
        tally.updates = [sum_updates(tally.updates)]
    return tally


def _template(kind: str, adapter: Adapter, bounds: Bounds | None) -> Adapter:
    """Return tensors of the shapes of an answer."""
    if kind == wire.EXPOSURE:
        return Exposure.template(len(adapter[BIAS]))
    return bounds.template if bounds else adapter if kind == wire.TRAIN else {}


def _validate(exchange: Correspondence, kind: str, answer: Answer, template: Adapter, bounds: Bounds | None) -> Update:
    """Return a valid update. Raises `ValueError`."""
    order, config = exchange.joint_order(answer.nodes), exchange.config
    if order.noise:
        found = sensitivity_of(kind, order, template, bounds)
        return validate_noised(answer.update, order, template, found, answer.excess)
    if kind == wire.EXPOSURE:
        return validate_exposure(answer.update, order, template)
    if bounds:
        return validate_statistics(answer.update, order, bounds, config)
    return validate_update(answer.update, order, template, config)


def _open_answers(exchange: Correspondence, kind: str, adapter: Adapter, template: Adapter) -> Iterator[Answer]:
    """Request the update of each node, as it is, and yield those that can be decoded."""
    contents = {node: wire.encode_order(order, adapter) for node, order in exchange.orders.items()}
    bits = exchange.config.sum_bits if kind == wire.STATISTICS else exchange.config.bits
    for node, content in exchange.ask(kind, contents, wire.max_answer_bytes(template)).items():
        with exchange.refusing([node]):
            yield Answer([node], wire.decode_update(content, template, bits))


def send_and_receive(
    grid: Grid, kind: str, contents: Mapping[int, RecordDict], number: str, config: RunConfig
) -> dict[int, Message]:
    """Send a message to each node, and return the first reply of each, in the order of the nodes."""
    messages = [Message(content, node, kind, group_id=number) for node, content in contents.items()]
    answers = list(grid.send_and_receive(messages, timeout=config.round_timeout))
    # by what they answer: where a node is lost, the SuperLink answers in its place, and under its own number
    asked = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
    replies: dict[int, Message] = {}
    for reply in answers:
        node = asked.get(reply.metadata.reply_to_message_id)
        if node is not None and (reply.has_error() or reply.metadata.src_node_id == node):
            replies.setdefault(node, reply)
        else:
            logger.warning(
                "round %s: refused an answer from node %s, which was not asked", number, reply.metadata.src_node_id
            )
    return dict(sorted(replies.items()))


def one_line(error: ValueError | str) -> str:
    """Format a refusal's reason as one short line: it may hold text from the node, of any length and shape."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
    return text if len(text) <= REASON else f"{text[:REASON]}…"


def content_of(reply: Message) -> RecordDict:
    if reply.has_error():
        raise ValueError(f"failed with {reply.error.reason or reply.error.code}")
    return reply.content
