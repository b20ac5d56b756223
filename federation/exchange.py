"""One exchange with the nodes: an order to each, and the valid updates that come back in time."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedrec.federation import wire
from fedrec.federation.aggregate import sum_updates
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order, Update
from fedrec.federation.roster import Roster
from fedrec.federation.validate_update import validate_statistics, validate_update
from fedrec.recsys.closed_form.norm_bounds import Bounds
from fedrec.recsys.evaluation.ranking import metric_means
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
    absences: list[str] = field(default_factory=list)  # a node, and how long the server waited for its answer
    updates: list[Update] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)  # the node of each update

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


def request_updates(
    grid: Grid,
    kind: str,
    orders: Mapping[int, Order],
    adapter: Adapter,
    config: RunConfig,
    bounds: Bounds | None = None,
) -> RoundReport:
    """Send each node its order and collect the updates that arrive in time. Invalid answers are refused and counted.

    `bounds` are those of the statistics that the order asks for.
    """
    tally = RoundReport(clients_asked=sum(len(order.users) for order in orders.values()))
    contents = {node: wire.encode_order(order, adapter) for node, order in orders.items()}
    tally.bytes_down = sum(wire.payload_bytes(content) for content in contents.values())
    number = next((str(order.round) for order in orders.values()), "")
    template = bounds.template if bounds else adapter if kind == wire.TRAIN else {}
    room = wire.max_answer_bytes(template)
    replies = send_and_receive(grid, kind, contents, number, config)
    for node in sorted(contents.keys() - replies.keys()):
        tally.absences.append(f"node {node}: no answer within {config.round_timeout:g} s")
        logger.warning("round %s: %s", number, tally.absences[-1])
    for node, reply in replies.items():
        order = orders[node]
        try:
            content = content_of(reply)
            tally.bytes_up += (received := wire.payload_bytes(content))
            if received > room:
                raise ValueError(f"answered with {received:,} bytes, where {room:,} are enough")
            update = wire.decode_update(content, template, config.bits)
            valid = (
                validate_statistics(update, order, bounds, config)
                if bounds
                else validate_update(update, order, template, config)
            )
            tally.updates.append(valid)
            tally.nodes.append(node)
            tally.clients_answered += len(order.users)
        except ValueError as error:
            tally.clients_refused += len(order.users)
            tally.refusals.append(f"node {node}: {one_line(error)}")
            logger.warning("round %s: refused node %s: %s", order.round, node, one_line(error))
    return tally


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


def one_line(error: ValueError) -> str:
    """Format a refusal's reason as one short line: it may hold text from the node, of any length and shape."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
    return text if len(text) <= REASON else f"{text[:REASON]}…"


def content_of(reply: Message) -> RecordDict:
    if reply.has_error():
        raise ValueError(f"failed with {reply.error.reason or reply.error.code}")
    return reply.content
