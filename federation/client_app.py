"""The Flower ClientApp: opens this node's shard, and answers a census, a training or an evaluation order."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from data.errors import InputError
from federation import wire
from federation.client import Node
from federation.config import RunConfig, from_run_config
from recsys.embed import resolve
from recsys.machine import device
from recsys.model import Model, ModelConfig

app = ClientApp()
logger = logging.getLogger("fedrec")


class NodeFailure(RuntimeError):
    """What the server learns of a failure on a node: its kind, and nothing that the data may have put into it."""


@contextmanager
def guarded() -> Iterator[None]:
    """Flower sends an exception's text to the server, and such a text can name a row of somebody's history."""
    try:
        yield
    except InputError:  # ours: it names files and settings only
        raise
    except Exception as error:
        logger.exception("this node failed")
        raise NodeFailure(f"{type(error).__name__}; the node's log tells more") from None


@app.query("census")
def census(message: Message, context: Context) -> Message:
    with guarded():
        node = _node(context)
        node.keep.start()
        return Message(wire.encode_census(node.shard.tickets(), node.public.stamp), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    with guarded():
        order, adapter = wire.decode_order(message.content)
        return Message(wire.encode_update(_node(context).train(order, adapter)), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    with guarded():
        order, adapter = wire.decode_order(message.content)
        return Message(wire.encode_update(_node(context).evaluate(order, adapter)), reply_to=message)


def _node(context: Context) -> Node:
    """The node that `--node-config` describes: `data`, a prepared folder, and which `part` of how many `parts`."""
    config = from_run_config(context.run_config)
    folder = str(context.node_config["data"])
    return open_node(folder, int(context.node_config.get("part", 0)), int(context.node_config.get("parts", 1)), config)


@lru_cache(maxsize=1024)
def open_node(folder: str, part: int, parts: int, config: RunConfig) -> Node:
    return Node.open(Path(folder), part, parts, config, shared_model(config.model, config.seed))


@lru_cache(maxsize=2)
def shared_model(config: ModelConfig, seed: int) -> Model:
    """One frozen model for all nodes in this process."""
    return Model(config, resolve(config.encoder), seed).to(device())
