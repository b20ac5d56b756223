"""A node that runs installed code only: the connection to its server, and the process that answers its messages.

Flower's own SuperNode looks for a message every three seconds and for its answer every half, hands both to other
processes over a port of this machine, and waits without end for an answer that is lost. This one has Flower's
connection and a loop of its own: it asks again soon after a message, every message gets one answer, an error if need
be, and nothing listens on a port. What it needs of Flower's internals is here, for flwr 1.41.
"""

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from logging import ERROR, INFO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Error, Message
from flwr.app.user_config import UserConfig
from flwr.common.config import get_fused_config_from_fab
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore import log
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import (
    pull_objects,
    push_object_contents_from_iterable,
)
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supernode.fleet_http_connection import http_request_response

from fedrec.data.errors import InputError
from fedrec.federation.deployment.packed_message import PackedMessage, Question
from fedrec.federation.deployment.worker import Worker
from fedrec.federation.task_identity import identify
from fedrec.federation.waiting import LONGEST, SHORTEST, Waiting

if TYPE_CHECKING:
    from fedrec.federation.config import Scalar

RECEIVE = 180.0
"""Seconds to wait for the parts of a message that the server has announced."""
REST = 600.0
"""Seconds without a message after which a node gives the memory of a run back."""
LOST = "the process of the message ended early; the node's log says why"


class Connection(NamedTuple):
    """The calls to a server that Flower's connection offers, in its order."""

    node: int
    receive: Callable[[], tuple[Message, ObjectTree] | None]
    send: Callable[[Message, ObjectTree, float], tuple[set[str], str]]
    get_run: Callable[[int], Run]
    get_fab: Callable[[str, int], Fab]
    pull_object: Callable[[int, str], bytes]
    push_object: Callable[[int, str, str, bytes], None]
    confirm: Callable[[int, str], None]


@dataclass(frozen=True)
class NodeConfig:
    """The address of a node's server, the files that authenticate both, and the node config of its ClientApp."""

    server: str  # host:port
    authority: Path  # certificate that the server's is signed with
    key: Path  # the node's private key
    told: Mapping[str, "Scalar"]  # as `client_app` reads it: data, part, parts

    def load_key(self) -> tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey]:
        """Read the private key, and compute the public one. Raises `InputError`."""
        try:
            key = load_ssh_private_key(self.key.read_bytes(), None)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InputError(
                f"`key` {self.key} cannot be read ({error}); make one with `fedrec federation key`"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise InputError(f"`key` {self.key} is of another kind; make one with `fedrec federation key`")
        return key, key.public_key()


def run_node(config: NodeConfig) -> int:
    """Answer the messages of a server until SIGTERM or Ctrl-C; return the exit status, 1 if the connection was lost.

    Raises `InputError` if what is installed here cannot answer messages.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Worker() as worker:
            authority = config.authority.read_bytes()
            with http_request_response(config.server, False, authority, config.load_key()) as calls:
                SuperNode(Connection(*calls), worker, dict(config.told)).serve()
            worker.check()  # Flower's connection logs an error that ends it, and does not pass it on
    except KeyboardInterrupt:
        return 0
    return 1


@dataclass(frozen=True, eq=False)
class OpenRun:
    """What a node knows of a run: the app that the server passes on, and the settings."""

    bundle: bytes
    config: UserConfig


@dataclass(frozen=True, eq=False)
class SuperNode:
    """A node that is connected to its server: it takes one message at a time."""

    connection: Connection
    worker: Worker
    told: UserConfig
    runs: dict[int, OpenRun] = field(default_factory=dict)  # the last one

    def serve(self) -> None:
        """Answer messages without end."""
        log(INFO, "SuperNode ID: %s", self.connection.node)
        waiting = Waiting()
        while True:
            self.worker.check()
            if self.answer_next():
                waiting = Waiting()
                continue
            if waiting.seconds > REST:
                self.worker.rest()
            time.sleep(waiting.pause)

    def answer_next(self) -> bool:
        """Answer a message, if there is one; return whether there was. A run that has ended needs no answer."""
        try:
            if not (received := self.connection.receive()):
                return False
            started = time.monotonic()
            message, tree = received
            about = message.metadata
            log(INFO, "[RUN %s, ROUND %s] %s message", about.run_id, about.group_id or "–", about.message_type)
            reply = self._reply(message, tree)
            seconds = time.monotonic() - started
            if not self._send(about.run_id, reply, seconds):
                failed = Error(
                    ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "the answer could not be sent; the node's log says why"
                )
                self._send(about.run_id, PackedMessage.of(Message(failed, reply_to=message)), seconds)
            log(INFO, "[RUN %s, ROUND %s] answered in %.2f s", about.run_id, about.group_id or "–", seconds)
        except RunNotRunningException:
            log(INFO, "a run has ended; its message is not answered")
            return False
        return True

    def _reply(self, message: Message, tree: ObjectTree) -> PackedMessage:
        """Return the answer to a message, or an error in its place. Raises `InputError` as `Worker.ask` does."""
        identify(message.metadata.run_id, self.connection.node)
        try:
            question = self._question(message, tree)
        except Exception as error:
            log(ERROR, "a message could not be fetched: %s", error)
            reason = f"the message could not be fetched: {type(error).__name__}"
            return PackedMessage.of(Message(Error(ErrorCode.MESSAGE_UNAVAILABLE, reason), reply_to=message))
        lost = Error(ErrorCode.CLIENT_APP_CRASHED, LOST)
        return self.worker.ask(question) or PackedMessage.of(Message(lost, reply_to=message))

    def _question(self, message: Message, tree: ObjectTree) -> Question:
        """Fetch the objects of a message, and what the server tells of its run."""
        connection, run = self.connection, message.metadata.run_id
        opened = self._run(run)
        names = [branch.object_id for branch in iterate_object_tree(tree)]
        contents = pull_objects(
            names,
            partial(connection.pull_object, run),
            max_time=RECEIVE,
            initial_backoff=SHORTEST,
            backoff_cap=LONGEST,
        )
        connection.confirm(run, message.metadata.message_id)
        packed = PackedMessage(message_to_proto(message).SerializeToString(), tree.SerializeToString(), contents)
        return Question(packed, run, connection.node, self.told, opened.config, opened.bundle)

    def _run(self, run: int) -> OpenRun:
        """Return what is known of a run, asked of the server once."""
        if run not in self.runs:
            about = self.connection.get_run(run)
            fab = self.connection.get_fab(about.fab_hash, run)
            self.runs.clear()
            self.runs[run] = OpenRun(fab.content, get_fused_config_from_fab(fab.content, about))
        return self.runs[run]

    def _send(self, run: int, reply: PackedMessage, seconds: float) -> bool:
        """Send an answer, and those of its objects that the server lacks; return whether that succeeded."""
        connection, contents = self.connection, reply.contents
        try:
            wanted, session = connection.send(reply.message, reply.object_tree, seconds)
            parts = ((name, contents[name]) for name in wanted)
            push_object_contents_from_iterable(parts, partial(connection.push_object, run, session))
        except Exception as error:
            log(ERROR, "an answer could not be sent: %s", error)
            return False
        return True
