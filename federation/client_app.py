"""The Flower ClientApp: answers a census and a server's orders, for the node that a context names."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Message
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.federation import wire
from fedrec.federation.config import RunConfig, from_run_config
from fedrec.federation.messages import Order, Update
from fedrec.federation.node import Node
from fedrec.federation.policy.guard import NodeGuard
from fedrec.federation.secure_node import answer_stage, open_to_sight
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.model.lora import Adapter

logger = logging.getLogger("fedrec")

Answer = Callable[[Order, Adapter], Update]
"""A method of a node: an update for an order and the adapter that came with it."""


class NodeFailure(RuntimeError):
    """The server's view of a failure on a node: its kind, and nothing that the data may have put into it."""


@contextmanager
def guarded() -> Iterator[None]:
    """Hide the text of an exception from the server, to which Flower sends it: it can name a row of a history."""
    try:
        yield
    except InputError:  # ours: it names files and settings only
        raise
    except Exception as error:
        logger.exception("this node failed")
        raise NodeFailure(f"{type(error).__name__}; the node's log tells more") from None


def client_app(node_of: Callable[[Context], Node]) -> ClientApp:
    """Build the app that answers for the node which `node_of` finds by the context of a message."""
    app = ClientApp()

    @app.query("census")
    def census(message: Message, context: Context) -> Message:
        with guarded():
            node = node_of(context)
            return Message(wire.encode_census(node.shard.tickets(), node.setup.stamp), reply_to=message)

    @app.query("secure")
    def secure(message: Message, context: Context) -> Message:
        with guarded():
            return Message(answer_stage(message.content, node_of(context)), reply_to=message)

    def answer(question: Callable[[Node], Answer], message: Message, context: Context) -> Message:
        """Answer an order with the method of the node that is its question."""
        with guarded():
            order, adapter = wire.decode_order(message.content)
            update = question(open_to_sight(node_of(context)))(order, adapter)
            return Message(wire.encode_update(update), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return answer(lambda node: node.train, message, context)

    @app.train("statistics")
    def sum_statistics(message: Message, context: Context) -> Message:
        return answer(lambda node: node.sum_statistics, message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return answer(lambda node: node.evaluate, message, context)

    @app.evaluate("exposure")
    def count_exposure(message: Message, context: Context) -> Message:
        return answer(lambda node: node.count_exposure, message, context)

    return app


def node_of_context(context: Context) -> Node:
    """Open the node that `--node-config` describes.

    Its fields are `data`, a prepared folder; `part` and `parts`, if several nodes share the folder's users; `policy`,
    the file of the node's policy, by default `node.toml` in the folder; `persistent` (true unless set), to store client
    state on disk instead of in memory; and `simulated`, of a node whose histories are the trainer's own: it has no
    policy. Raises `OrderRefused` if the policy refuses the run.
    """
    return open_node(NodePlace.of(context.node_config), from_run_config(context.run_config))


@dataclass(frozen=True)
class NodePlace:
    """The folder of a node, and which of its users the node hosts, under which policy."""

    folder: str
    part: int
    parts: int
    persistent: bool
    policy: str  # a file; empty: `node.toml` in the folder
    simulated: bool

    @classmethod
    def of(cls, config: UserConfig) -> "NodePlace":
        """Read the place from a node config."""
        part, parts, policy = int(config.get("part", 0)), int(config.get("parts", 1)), str(config.get("policy", ""))
        persistent, simulated = bool(config.get("persistent", True)), bool(config.get("simulated", False))
        return cls(str(config["data"]), part, parts, persistent, policy, simulated)


@lru_cache(maxsize=1024)
def open_node(place: NodePlace, config: RunConfig) -> Node:
    """Open a node once for all messages to it: Flower gives an app no place to keep it between two of them.

    The run is checked against the node's policy before its histories are opened. Raises `OrderRefused`.
    """
    setup, folder = _open_setup(place.folder, config), Path(place.folder)
    guard = None if place.simulated else NodeGuard.of_folder(folder, Path(place.policy) if place.policy else None)
    if guard:
        guard.check_run(config, len(setup.dataset.catalogue))
    node = Node.host(setup, place.part, place.parts, place.persistent)
    if guard:
        guard.check_population(config, len(node.shard))
    return replace(node, guard=guard)


@lru_cache(maxsize=4)
def _open_setup(folder: str, config: RunConfig) -> TrainingSetup:
    """Open a setup once for all nodes that Flower's simulation puts into one process."""
    return TrainingSetup(Dataset.open(Path(folder)), config)


def close_nodes() -> None:
    """Forget the open nodes: a process that serves one run after another keeps nothing of the run before."""
    open_node.cache_clear()
    _open_setup.cache_clear()


app = client_app(node_of_context)
