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


class Exchange(Protocol):
    """What is needed of a correspondence with nodes (federation/exchange.py, which imports this file)."""

    @property
    def orders(self) -> Mapping[int, Order]: ...
    @property
    def config(self) -> RunConfig: ...
    def ask(self, kind: str, contents: Mapping[int, RecordDict], room: int) -> dict[int, RecordDict]: ...
    def refusing(self, nodes: Sequence[int]) -> AbstractContextManager[None]: ...


@dataclass(frozen=True, eq=False)
class _Band:
    """A group under way: what it has sent, and the node at each of its places."""

    collector: Collector
    nodes: Sequence[int]

    def nodes_at(self, places: Collection[int]) -> list[int]:
        return [self.nodes[place] for place in places]


@dataclass(frozen=True, eq=False)
class _Stage:
    """A message to the nodes of a group: to which places, with what, and how the answers are taken."""

    name: str
    asked: Callable[[_Band], Collection[int]]
    fields: Callable[[_Band, int], dict[str, Any]]
    take: Callable[[_Band, int, RecordDict], None]
    answered: Callable[[_Band], Collection[int]]


def request_sums(exchange: Exchange, kind: str, adapter: Adapter, layout: Layout) -> Iterator[tuple[list[int], Update]]:
    """Request the sum of each group, and yield the nodes in it and the sum."""
    question = _question(exchange, kind)
    bands = list(_form_bands(exchange, question, _advertise(exchange, question)))

    def take_masked(band: _Band, place: int, content: RecordDict) -> None:
        band.collector.take_masked(place, wire.decode_masked(content, layout.size))

    masking = _Stage(
        wire.MASK,
        lambda band: band.collector.participants,
        lambda band, place: _texts(band, band.collector.sealed_for(place)),
        take_masked,
        lambda band: band.collector.survivors,
    )
    room = wire.ROOM_BESIDE + 8 * layout.size
    for stage in (_SHARE, masking, _ATTEST, _REVEAL):
        bands = list(_run_stage(exchange, bands, stage, adapter, room))
    for band in bands:
        survivors = band.nodes_at(band.collector.survivors)
        with exchange.refusing(survivors):
            clients = band.collector.group.count_clients(band.collector.survivors)
            yield survivors, layout.from_integers(band.collector.unmask(), question.round, clients)


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


def _form_bands(exchange: Exchange, question: Question, keys: Mapping[int, Advertisement]) -> Iterator[_Band]:
    for nodes in deal_groups(list(keys)):
        with exchange.refusing(nodes):
            group = Group.of(question, [keys[node] for node in nodes])
            collector = Collector(group, exchange.config.secure_aggregation)
            collector.check_cover(range(len(group)))
            by_identity = {keys[node].identity: node for node in nodes}
            yield _Band(collector, [by_identity[member.identity] for member in group.members])


def deal_groups(nodes: Sequence[int]) -> list[list[int]]:
    """Deal nodes into groups of `GROUP` to 2 · `GROUP` - 1 at random, or into one if they are fewer."""
    count = max(1, len(nodes) // GROUP)
    shuffled = secrets.SystemRandom().sample(nodes, len(nodes))
    return [shuffled[part::count] for part in range(count)] if nodes else []


def _run_stage(
    exchange: Exchange, bands: Sequence[_Band], stage: _Stage, adapter: Adapter, room: int
) -> Iterator[_Band]:
    """Send a stage's messages to all groups at once, and yield the groups that have enough nodes left."""
    if not bands:
        return
    places = {band.nodes[place]: (band, place) for band in bands for place in stage.asked(band)}
    requests = {node: wire.encode_fields(stage.name, stage.fields(*at)) for node, at in places.items()}
    if stage.name == wire.MASK:
        for node, request in requests.items():
            request.update(wire.encode_order(exchange.orders[node], adapter))
    room += ROOM_FOR_TEXT * max((len(band.nodes) for band in bands), default=0)
    for node, content in exchange.ask(wire.SECURE, requests, room).items():
        with exchange.refusing([node]):
            band, place = places[node]
            stage.take(band, place, content)
    for band in bands:
        left = band.nodes_at(stage.answered(band))
        with exchange.refusing(left):
            band.collector.check_cover(list(stage.answered(band)))
            yield band


def _texts(band: _Band, texts: Mapping[int, bytes]) -> dict[str, Any]:
    return {"session": band.collector.group.session, "places": list(texts), "texts": list(texts.values())}


def _keys_of(band: _Band, place: int) -> dict[str, Any]:
    members = band.collector.group.members
    return {name: [getattr(member, name) for member in members] for name in wire.REQUESTS[wire.SHARE]}


def _take_sealed(band: _Band, place: int, content: RecordDict) -> None:
    band.collector.take_sealed(place, wire.decode_fields(content, wire.ANSWERS[wire.SHARE])["texts"])


def _take_signature(band: _Band, place: int, content: RecordDict) -> None:
    band.collector.take_signature(place, wire.decode_fields(content, wire.ANSWERS[wire.ATTEST])["signature"])


def _take_shares(band: _Band, place: int, content: RecordDict) -> None:
    fields = wire.decode_fields(content, wire.ANSWERS[wire.REVEAL])
    band.collector.take_shares(place, dict(zip(fields["places"], fields["texts"], strict=True)))


_SHARE = _Stage(
    wire.SHARE,
    lambda band: range(len(band.nodes)),
    _keys_of,
    _take_sealed,
    lambda band: band.collector.participants,
)
_ATTEST = _Stage(
    wire.ATTEST,
    lambda band: band.collector.survivors,
    lambda band, _: {"session": band.collector.group.session, "places": sorted(band.collector.survivors)},
    _take_signature,
    lambda band: band.collector.signatures,
)
_REVEAL = _Stage(
    wire.REVEAL,
    lambda band: band.collector.signatures,
    lambda band, _: _texts(band, band.collector.quorum),
    _take_shares,
    lambda band: band.collector.revealed,
)
