"""How a server waits for its nodes, over a network on which nodes fall silent."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.superlink.grid import http_grid

from fedrec.federation import attentive_grid, parcel, waiting
from fedrec.federation.attentive_grid import AttentiveGrid
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.waiting import LONGEST, SHARE, SHORTEST, Waiting


class Clock:
    """A clock that goes on while somebody sleeps, and only then."""

    def __init__(self) -> None:
        self.now, self.looks = 0.0, 0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now, self.looks = self.now + seconds, self.looks + 1


class Nodes(LocalGrid):
    """Nodes that echo messages, each after a delay of its own, or never."""

    def __init__(self, clock: Clock, delays: dict[int, float]) -> None:
        super().__init__(self._echo, [{}] * len(delays), {})  # type: ignore[arg-type]
        self.clock, self.delays = clock, delays
        self.connected = dict.fromkeys(delays, "at first")
        self.asked: list[int] = []
        self.due: dict[str, float] = {}
        self.damage: str | None = None  # what node 2 sends in place of a parcel's index

    def _echo(self, message: Message, context: Any) -> Message:
        content = RecordDict(dict(message.content))
        if message.metadata.dst_node_id == 2 and self.damage is not None:
            content[parcel.INDEX] = ConfigRecord({parcel.INDEX: self.damage or " "})
        return Message(content, reply_to=message)

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node, last_activated_at=when) for node, when in self.connected.items()]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        pushed = list(super().push_messages(sent))
        for number, message in zip(pushed, sent, strict=True):
            self.asked.append(message.metadata.dst_node_id)
            self.due[number] = self.clock.now + self.delays[message.metadata.dst_node_id]
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return super().pull_messages([number for number in message_ids if self.due[number] <= self.clock.now])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(attentive_grid, "time", clock)
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def ask(grid: AttentiveGrid, nodes: Iterable[int], timeout: float = 60) -> dict[int, str]:
    """What comes of a message to each node: an answer, or the reason of an error."""
    messages = [Message(RecordDict(), node, "train") for node in nodes]
    replies = list(grid.send_and_receive(messages, timeout=timeout))
    node_of = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
    for reply in replies:
        assert not reply.has_error() or reply.error.code == ErrorCode.NODE_UNAVAILABLE
    told = {node_of[r.metadata.reply_to_message_id]: r.error.reason if r.has_error() else "answer" for r in replies}
    return {node: str(reason) for node, reason in told.items()}


NOT_ASKED = "not asked: it has not been heard of since it gave no answer in time"


def test_an_answer_is_seen_late_by_a_tenth_of_the_wait(clock: Clock) -> None:
    """By 50 ms at least and three seconds at most; an hour takes no more looks than Flower's grid makes."""
    for delay in (0.02, 1.0, 20.0, 3600.0):
        clock.now = clock.looks = 0
        assert ask(AttentiveGrid(Nodes(clock, {1: delay})), [1], 4000) == {1: "answer"}
        assert delay <= clock.now <= delay + min(max(SHORTEST, SHARE * delay), LONGEST) + 1e-9
    assert clock.looks < 3600 / LONGEST + 70


def test_a_silent_node_is_not_asked_until_it_is_heard_of(clock: Clock) -> None:
    nodes = Nodes(clock, {1: 1.0, 2: 100.0, 3: 1e9})
    grid = AttentiveGrid(nodes)
    assert ask(grid, [1, 2, 3]) == {1: "answer"}
    assert clock.now == pytest.approx(60, abs=LONGEST)
    nodes.asked.clear()
    # the next round takes a second, not sixty; who was not asked is named
    before = clock.now
    assert ask(grid, [1, 2, 3]) == {1: "answer", 2: NOT_ASKED, 3: NOT_ASKED}
    assert clock.now < before + 2
    assert nodes.asked == [1]
    # a late answer is no answer to a later message, but its node is asked again
    clock.now, nodes.delays[2] = 101.0, 1.0
    assert ask(grid, [1, 2, 3]) == {1: "answer", 2: "answer", 3: NOT_ASKED}
    # so is a node that connects anew
    nodes.connected[3], nodes.delays[3] = "again", 1.0
    assert ask(grid, [1, 2, 3]) == dict.fromkeys([1, 2, 3], "answer")
    assert nodes.asked == [1, 1, 2, 1, 2, 3]


def test_if_all_are_silent_the_first_that_is_heard_of_is_waited_for(clock: Clock) -> None:
    """Else the rounds would run through without an answer."""
    nodes = Nodes(clock, {1: 70.0, 2: 1e9})
    grid = AttentiveGrid(nodes)
    assert ask(grid, [1, 2]) == {}
    nodes.delays[1] = 1.0
    assert ask(grid, [1, 2]) == {1: "answer", 2: NOT_ASKED}
    assert 70 < clock.now < 80
    before = clock.now
    assert ask(grid, [2]) == {2: NOT_ASKED}
    assert clock.now == pytest.approx(before + 60, abs=LONGEST)
    assert ask(grid, []) == {}


def test_the_arrays_of_a_message_travel_in_one() -> None:
    """Twelve tensors are two objects of Flower's instead of 24, and come out as they went in."""
    arrays = {f"{n}.weight": Array(np.full((n, 3), n / 7)) for n in range(12)}
    beside = {"order": ConfigRecord({"round": 3}), "empty": ArrayRecord()}
    content = RecordDict({"adapter": ArrayRecord(arrays), **beside})
    wrapped = parcel.wrap(content)
    assert len(get_all_nested_objects(wrapped)) == 6 < 24 < len(get_all_nested_objects(content))
    assert parcel.unwrap(wrapped) == content == parcel.unwrap(content)
    assert parcel.unwrap(parcel.wrap(RecordDict())) == RecordDict()


@pytest.mark.parametrize(
    "index", ["", "[]", '{"records": []}', '{"records": [], "arrays": [["a", "b", "f", [1], "s", 1]]}']
)
def test_a_damaged_parcel_is_an_error_of_its_node_alone(clock: Clock, index: str) -> None:
    nodes = Nodes(clock, {1: 1.0, 2: 1.0})
    nodes.damage = index
    messages = [Message(RecordDict({"a": ArrayRecord({"b": Array(np.ones(2))})}), node, "train") for node in (1, 2)]
    first, second = AttentiveGrid(nodes).send_and_receive(messages, timeout=60)
    assert first.content["a"]["b"].numpy().tolist() == [1.0, 1.0]  # type: ignore[index]
    assert "sent a parcel that cannot be opened" in str(second.error.reason)


def test_parts_of_an_answer_are_asked_for_again_at_once() -> None:
    """flwr's grid takes this function from its own module; else it would wait a second for parts under way."""
    assert http_grid.HttpGrid.pull_messages.__globals__["pull_objects"].keywords["initial_backoff"] == SHORTEST
    assert Waiting().pause == SHORTEST
