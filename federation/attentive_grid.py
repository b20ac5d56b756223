"""Flower's Grid between a server and its nodes, without its waits: it looks for answers often, does not ask nodes that
keep silent, and sends the arrays of a message in one parcel."""

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from flwr.app import Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import pull_objects
from flwr.supercore.run import Run
from flwr.superlink.grid import http_grid

from fedrec.federation.parcel import unwrap, wrap
from fedrec.federation.waiting import LONGEST, SHORTEST, Waiting

logger = logging.getLogger("fedrec")

http_grid.__dict__["pull_objects"] = partial(pull_objects, initial_backoff=SHORTEST, backoff_cap=LONGEST)
"""An answer is announced before its parts are there. flwr 1.41 waits a second until it asks for them again."""


@dataclass(frozen=True)
class Silence:
    """A node that has not answered in time: the message that it had, and when it had connected."""

    message: str
    connected: str


class AttentiveGrid(Grid):
    """A grid over another one, with the same nodes and the same answers.

    A node that has not answered in time is not asked again until it is heard of: its late answer arrives, the SuperLink
    tells that it is gone, or it connects anew. Until then a message to it has an error in place of an answer.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._silent: dict[int, Silence] = {}

    def set_run(self, run: Run) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages, and return the answers that came within `timeout` seconds (None: whenever they come).

        If all nodes keep silent, the first of them to be heard of is waited for.
        """
        waiting, sent = Waiting(), list(messages)
        self._hear()
        while self._silent.keys() >= {message.metadata.dst_node_id for message in sent} and _in_time(waiting, timeout):
            time.sleep(waiting.pause)
            self._hear()
        left_out = [message for message in sent if message.metadata.dst_node_id in self._silent]
        asked = [message for message in sent if message.metadata.dst_node_id not in self._silent]
        return [*self._ask(asked, timeout), *map(_not_asked, left_out)]

    def _ask(self, messages: list[Message], timeout: float | None) -> Iterator[Message]:
        """Send messages, yield their answers, and remember the nodes that gave none in time."""
        connected = self._connected() if messages else {}
        for message in messages:
            message.content = wrap(message.content)
        nodes = [message.metadata.dst_node_id for message in messages]
        pending = dict(zip(self.push_messages(messages), nodes, strict=False)) if messages else {}
        waiting = Waiting()
        while pending:
            for reply in self.pull_messages(list(pending)):
                pending.pop(reply.metadata.reply_to_message_id, None)
                yield _opened(reply)
            if not pending or not _in_time(waiting, timeout):
                break
            time.sleep(waiting.pause)
        for message, node in pending.items():
            self._silent[node] = Silence(message, connected.get(node, ""))

    def _hear(self) -> None:
        """Take the nodes off the silent ones that have been heard of."""
        if not self._silent:
            return
        late = {reply.metadata.reply_to_message_id for reply in self.pull_messages(_messages_of(self._silent.values()))}
        connected = self._connected()
        for node, silence in list(self._silent.items()):
            if silence.message in late or connected.get(node, silence.connected) != silence.connected:
                logger.info("node %s is heard of again", node)
                del self._silent[node]

    def _connected(self) -> dict[int, str]:
        """Return when each node connected."""
        return {node.node_id: node.last_activated_at for node in self.get_nodes()}


def _messages_of(silences: Iterable[Silence]) -> list[str]:
    return [silence.message for silence in silences]


def _in_time(waiting: Waiting, timeout: float | None) -> bool:
    return timeout is None or waiting.seconds < timeout


def _opened(reply: Message) -> Message:
    """Return a reply with its arrays out of their parcel, or an error in its place."""
    try:
        if reply.has_content():
            reply.content = unwrap(reply.content)
        return reply
    except ValueError as error:
        return make_message(reply.metadata, error=Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, str(error)))


def _not_asked(message: Message) -> Message:
    """Return an error in place of an answer to a message that was not sent."""
    message.metadata.__dict__["_message_id"] = message.object_id  # as sending it does
    reason = "not asked: it has not been heard of since it gave no answer in time"
    return Message(Error(ErrorCode.NODE_UNAVAILABLE, reason), reply_to=message)
