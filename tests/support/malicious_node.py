"""A node whose device lies: it runs this in place of Flower's `flwr-clientapp`, and so answers as it likes.

Nothing of ours is patched: the honest answer is computed by the app that came from the server, and then replaced, as
anybody can who owns the device.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.runtime import RuntimeHttpClient

LIES, PAUSE = "FEDREC_TEST_LIES", "FEDREC_TEST_PAUSE"
"""Environment variables: `round:lie,round:lie`, and how many seconds `slow` takes."""

COMMAND = "flwr-clientapp"
ROOT = Path(__file__).resolve().parents[2]


def surroundings(folder: Path, lies: dict[int, str], pause: float = 0) -> dict[str, str]:
    """What a SuperNode is started with so that its device lies in these rounds."""
    folder.mkdir(parents=True, exist_ok=True)
    command = folder / COMMAND
    command.write_text(f"#!{sys.executable}\nfrom tests.support.malicious_node import main\nmain()\n")
    command.chmod(0o755)
    return {
        "PATH": os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        LIES: ",".join(f"{round}:{lie}" for round, lie in lies.items()),
        PAUSE: str(pause),
    }


def filled(value: float) -> Callable[[Array], Array]:
    return lambda array: Array(np.full_like(array.numpy(), value))


def with_deltas(reply: Message, change: Callable[[Array], Array]) -> None:
    record = reply.content.array_records["deltas"]
    reply.content["deltas"] = ArrayRecord({name: change(array) for name, array in record.items()})


def garbage(reply: Message) -> None:
    with_deltas(reply, lambda array: Array("float32", array.shape, "numpy.ndarray", os.urandom(64)))


def old_round(reply: Message) -> None:
    count = reply.content.metric_records["count"]
    reply.content["count"] = MetricRecord({"round": int(count["round"]) - 1, "users": count["users"]})  # type: ignore[arg-type]


def with_sums(**lies: float) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        told = dict(reply.content.metric_records["sums"])
        reply.content["sums"] = MetricRecord(told | {name.replace("_at_", "@"): value for name, value in lies.items()})

    return change


def huge(reply: Message) -> None:
    reply.content["more"] = ArrayRecord({"much": Array(np.ones(2_000_000))})


ANSWERS: dict[str, Callable[[Message], None]] = {
    "nan": lambda reply: with_deltas(reply, filled(float("nan"))),
    "infinite": lambda reply: with_deltas(reply, filled(float("inf"))),
    "long": lambda reply: with_deltas(reply, filled(9.0)),
    "shapes": lambda reply: with_deltas(reply, lambda array: Array(array.numpy()[:1])),
    "old": old_round,
    "huge": huge,
    "loss": with_sums(loss=1e308),
    "learners": with_sums(learners=0.0),
    "nobody": with_sums(users=0.0, ndcg_at_10=4.0),
    "garbage": garbage,
    "slow": lambda reply: time.sleep(float(os.environ[PAUSE])),
    "twice": lambda reply: None,  # see `main`
}


RANKING = {"nobody"}
"""Lies of an evaluation; the others are of training."""


def lie_of(message: Message) -> str | None:
    lies = dict(pair.split(":") for pair in os.environ[LIES].split(",") if pair)
    lie = lies.get(message.metadata.group_id)
    return lie if message.metadata.message_type == ("evaluate" if lie in RANKING else "train") else None


def main() -> None:
    from flwr.supernode.cli import flwr_clientapp
    from flwr.supernode.runtime import run_clientapp

    honest, push = ClientApp.__call__, run_clientapp.push_message

    def answer(self: ClientApp, message: Message, context: Context) -> Message:
        reply = honest(self, message, context)
        if lie := lie_of(message):
            ANSWERS[lie](reply)
        return reply

    def push_message(client: RuntimeHttpClient, message: Message, context: Context) -> None:
        request = Message(RecordDict(), 0, message.metadata.message_type)
        request.metadata.__dict__["_message_id"] = message.metadata.reply_to_message_id
        request.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
        request.metadata.__dict__["_dst_node_id"] = message.metadata.src_node_id
        request.metadata.__dict__["_group_id"] = message.metadata.group_id
        again = None
        if lie_of(message) == "twice":
            again = Message(message.content, reply_to=request)
            with_deltas(again, filled(0.0))
        push(client, message, context)
        if again:
            push(client, again, context)

    ClientApp.__call__, run_clientapp.push_message = answer, push_message
    sys.exit(flwr_clientapp())
