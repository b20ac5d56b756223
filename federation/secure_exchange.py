"""The server's side of secure aggregation over a Grid: the nodes are dealt into groups, whose sums are unmasked.

Each stage is one message to each node. A node that does not answer a stage, or not validly, is out of the stages after
it; a group that has too few nodes left is given up, and its sum is lost.

More than 2 · `GROUP` nodes are dealt into several groups, at random for each question: every pair of a group shares a
mask, so that the work of a node does not grow with the cohort. The server learns the sum over each group.
"""

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from flwr.app import RecordDict

from fedrec.federation import wire
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order, Update
from fedrec.federation.privacy.shares import count_honest
from fedrec.federation.secure_aggregation.collector import SEALED_BYTES, Collector
from fedrec.federation.secure_aggregation.group import Advertisement, Group, Question
from fedrec.federation.secure_aggregation.integers import Layout
from fedrec.federation.secure_aggregation.signing import is_signed
from fedrec.recsys.model.lora import Adapter

GROUP = 64
"""The smallest group that a larger cohort is dealt into: an attack that ranks the items of a sum over 64 users finds no
more than popularity does."""
ROOM_FOR_TEXT = SEALED_BYTES + 64
"""The bytes of a sealed share or a signature in a message, at most."""


class Revealing(Protocol):
    """What is needed of the account of an exchange."""

    revealed: bool


class Exchange(Protocol):
    """What is needed of a correspondence with nodes (federation/exchange.py, which imports this file)."""

    @property
    def orders(self) -> Mapping[int, Order]: ...
    @property
    def config(self) -> RunConfig: ...
    @property
    def tally(self) -> "Revealing": ...
    def ask(self, kind: str, contents: Mapping[int, RecordDict], room: int) -> dict[int, RecordDict]: ...
    def refusing(self, nodes: Sequence[int]) -> AbstractContextManager[None]: ...


@dataclass(frozen=True, eq=False)
class Answer:
    """An update, the nodes that it is of, and the variance of the nodes' noise in it over that of the order."""

    nodes: list[int]
    update: Update
    excess: float = 0.0


@dataclass(frozen=True, eq=False)
class _OpenGroup:
    """A group under way: what it has sent, and the node at each of its places."""

    collector: Collector
    nodes: Sequence[int]

    def nodes_at(self, places: Collection[int]) -> list[int]:
        return [self.nodes[place] for place in places]


@dataclass(frozen=True, eq=False)
class _Stage:
    """A message to the nodes of a group: to which places, with what, and how the answers are taken."""

    name: str
    asked: Callable[[_OpenGroup], Collection[int]]
    fields: Callable[[_OpenGroup, int], dict[str, Any]]
    take: Callable[[_OpenGroup, int, RecordDict], None]
    answered: Callable[[_OpenGroup], Collection[int]]


def request_sums(exchange: Exchange, kind: str, adapter: Adapter, layout: Layout) -> Iterator[Answer]:
    """Request the sum of each group."""
    question = _question(exchange, kind)
    groups = list(_form_groups(exchange, question, _advertise(exchange, question)))

    def take_masked(opened: _OpenGroup, place: int, content: RecordDict) -> None:
        opened.collector.take_masked(place, wire.decode_masked(content, layout.size))

    masking = _Stage(
        wire.MASK,
        lambda opened: opened.collector.participants,
        lambda opened, place: _texts(opened, opened.collector.sealed_for(place)),
        take_masked,
        lambda opened: opened.collector.survivors,
    )
    room = wire.ROOM_BESIDE + 8 * layout.size
    for stage in (_SHARE, masking, _ATTEST, _REVEAL):
        exchange.tally.revealed |= stage is _REVEAL and bool(groups)
        groups = list(_run_stage(exchange, groups, stage, adapter, room))
    for opened in groups:
        survivors = opened.nodes_at(opened.collector.survivors)
        with exchange.refusing(survivors):
            clients = opened.collector.group.count_clients(opened.collector.survivors)
            update = layout.from_integers(opened.collector.unmask(), question.round, clients)
            yield Answer(survivors, update, _excess(opened, exchange.config))


def _excess(opened: _OpenGroup, config: RunConfig) -> float:
    """Compute the variance of the noise in a group's sum over the noise that its fewest honest nodes add."""
    if not config.privacy.by_nodes:
        return 0.0
    group, survivors = opened.collector.group, opened.collector.survivors
    left = group.threshold(config.secure_aggregation)
    return len(survivors) / count_honest(len(group), left, config.privacy.honest_nodes)


def _question(exchange: Exchange, kind: str) -> Question:
    order = next(iter(exchange.orders.values()))
    return Question(order.run, order.round, kind)


def _advertise(exchange: Exchange, question: Question) -> dict[int, Advertisement]:
    """Request the keys of each node."""
    requests = {
        node: wire.encode_fields(wire.ADVERTISE, {**vars(question), "clients": len(order.users)})
        for node, order in exchange.orders.items()
    }
    keys: dict[int, Advertisement] = {}
    for node, content in exchange.ask(wire.SECURE, requests, wire.ROOM_BESIDE).items():
        with exchange.refusing([node]):
            fields = wire.decode_fields(content, wire.ANSWERS[wire.ADVERTISE])
            own = Advertisement(**fields, clients=len(exchange.orders[node].users))
            if not is_signed(own.identity, own.signed_text(question), own.signature):
                raise ValueError("answered with keys that are not signed")
            if own.identity in {other.identity for other in keys.values()}:
                raise ValueError("answered with the identity of another node; give each node its own folder")
            keys[node] = own
    return keys


def _form_groups(exchange: Exchange, question: Question, keys: Mapping[int, Advertisement]) -> Iterator[_OpenGroup]:
    for nodes in deal_groups(list(keys)):
        with exchange.refusing(nodes):
            group = Group.of(question, [keys[node] for node in nodes])
            collector = Collector(group, exchange.config.secure_aggregation)
            collector.check_cover(range(len(group)))
            by_identity = {keys[node].identity: node for node in nodes}
            yield _OpenGroup(collector, [by_identity[member.identity] for member in group.members])


def deal_groups(nodes: Sequence[int]) -> list[list[int]]:
    """Deal nodes into groups of `GROUP` to 2 · `GROUP` - 1 at random, or into one if they are fewer."""
    count = max(1, len(nodes) // GROUP)
    shuffled = secrets.SystemRandom().sample(nodes, len(nodes))
    return [shuffled[part::count] for part in range(count)] if nodes else []


def _run_stage(
    exchange: Exchange, groups: Sequence[_OpenGroup], stage: _Stage, adapter: Adapter, room: int
) -> Iterator[_OpenGroup]:
    """Send a stage's messages to all groups at once, and yield the groups that have enough nodes left."""
    if not groups:
        return
    places = {opened.nodes[place]: (opened, place) for opened in groups for place in stage.asked(opened)}
    requests = {node: wire.encode_fields(stage.name, stage.fields(*at)) for node, at in places.items()}
    if stage.name == wire.MASK:
        for node, request in requests.items():
            request.update(wire.encode_order(exchange.orders[node], adapter))
    room += ROOM_FOR_TEXT * max((len(opened.nodes) for opened in groups), default=0)
    for node, content in exchange.ask(wire.SECURE, requests, room).items():
        with exchange.refusing([node]):
            opened, place = places[node]
            stage.take(opened, place, content)
    for opened in groups:
        left = opened.nodes_at(stage.answered(opened))
        with exchange.refusing(left):
            opened.collector.check_cover(list(stage.answered(opened)))
            yield opened


def _texts(opened: _OpenGroup, texts: Mapping[int, bytes]) -> dict[str, Any]:
    return {"session": opened.collector.group.session, "places": list(texts), "texts": list(texts.values())}


def _keys_of(opened: _OpenGroup, place: int) -> dict[str, Any]:
    members = opened.collector.group.members
    return {name: [getattr(member, name) for member in members] for name in wire.REQUESTS[wire.SHARE]}


def _take_sealed(opened: _OpenGroup, place: int, content: RecordDict) -> None:
    opened.collector.take_sealed(place, wire.decode_fields(content, wire.ANSWERS[wire.SHARE])["texts"])


def _take_signature(opened: _OpenGroup, place: int, content: RecordDict) -> None:
    opened.collector.take_signature(place, wire.decode_fields(content, wire.ANSWERS[wire.ATTEST])["signature"])


def _take_shares(opened: _OpenGroup, place: int, content: RecordDict) -> None:
    fields = wire.decode_fields(content, wire.ANSWERS[wire.REVEAL])
    opened.collector.take_shares(place, dict(zip(fields["places"], fields["texts"], strict=True)))


_SHARE = _Stage(
    wire.SHARE,
    lambda opened: range(len(opened.nodes)),
    _keys_of,
    _take_sealed,
    lambda opened: opened.collector.participants,
)
_ATTEST = _Stage(
    wire.ATTEST,
    lambda opened: opened.collector.survivors,
    lambda opened, _: {"session": opened.collector.group.session, "places": sorted(opened.collector.survivors)},
    _take_signature,
    lambda opened: opened.collector.signatures,
)
_REVEAL = _Stage(
    wire.REVEAL,
    lambda opened: opened.collector.signatures,
    lambda opened, _: _texts(opened, opened.collector.quorum),
    _take_shares,
    lambda opened: opened.collector.revealed,
)
