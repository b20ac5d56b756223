"""The Flower ClientApp: opens this node's shard, and answers a census, a training or an evaluation order."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedrec.data.errors import InputError
from fedrec.federation import wire
from fedrec.federation.config import RunConfig, from_run_config
from fedrec.federation.node import Node

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
        return Message(wire.encode_census(node.shard.tickets(), node.public.provenance), reply_to=message)


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
    """The node that `--node-config` describes: `data`, a prepared folder; which `part` of how many `parts` of its
    users, where nodes share it; and `lasting`, whether what it keeps of them outlives this process, as it does unless
    it is told otherwise."""
    asked = context.node_config
    part, parts, lasting = int(asked.get("part", 0)), int(asked.get("parts", 1)), bool(asked.get("lasting", True))
    return open_node(str(asked["data"]), from_run_config(context.run_config), part, parts, lasting)


@lru_cache(maxsize=1024)
def open_node(folder: str, config: RunConfig, part: int, parts: int, lasting: bool) -> Node:
    return Node.open(Path(folder), config, part, parts, lasting)
