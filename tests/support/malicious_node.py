"""A node whose device lies: it answers messages by this in place of our message process, and so as it likes.

The honest answer is computed by the installed app, and then replaced, as anybody can who owns the device.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime import run_clientapp

from fedrec import cli
from fedrec.federation import client_app
from fedrec.federation.deployment import message_process, supernode

LIES, PAUSE = "FEDREC_TEST_LIES", "FEDREC_TEST_PAUSE"
"""Environment variables: `round:lie,round:lie`, and how many seconds `slow` takes."""

ROOT = Path(__file__).resolve().parents[2]


def surroundings(lies: Mapping[int, str], pause: float = 0) -> dict[str, str]:
    """Return the environment of a node whose device lies in these rounds."""
    told = ",".join(f"{round}:{lie}" for round, lie in lies.items())
    return {"PYTHONPATH": str(ROOT), LIES: told, PAUSE: str(pause)}


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


def answer(message: Message, context: Context) -> Message:
    """Answer as the installed app does, and then lie."""
    reply = client_app.app(message, context)
    if lie := lie_of(message):
        ANSWERS[lie](reply)
    return reply


def push_message(client: RuntimeHttpClient, message: Message, context: Context) -> None:
    """Hand in an answer, and in a round of `twice` another one to the same message."""
    request = Message(RecordDict(), 0, message.metadata.message_type)
    request.metadata.__dict__["_message_id"] = message.metadata.reply_to_message_id
    request.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
    request.metadata.__dict__["_dst_node_id"] = message.metadata.src_node_id
    request.metadata.__dict__["_group_id"] = message.metadata.group_id
    again = None
    if lie_of(message) == "twice":
        again = Message(message.content, reply_to=request)
        with_deltas(again, filled(0.0))
    run_clientapp.push_message(client, message, context)
    if again:
        run_clientapp.push_message(client, again, context)


def start_process(address: str, secret: Path) -> supernode.Process:
    return subprocess.Popen([sys.executable, "-P", "-m", __spec__.name, address, str(secret)])


def main() -> None:
    """Be the node (`node run …`), whose messages go to this file, or the process that answers them."""
    if sys.argv[1] == "node":
        supernode._process = start_process
        cli.main()
    else:
        message_process.app, message_process.push_message = answer, push_message  # type: ignore[assignment]
        sys.exit(message_process.main(sys.argv[1], Path(sys.argv[2])))


if __name__ == "__main__":
    main()
