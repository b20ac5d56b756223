"""A node whose device lies: it answers messages by this in place of our message process, and sends what it likes.

The honest answer is computed by the installed app, and then replaced, as anybody can who owns the device.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord

from fedrec import cli
from fedrec.federation import client_app
from fedrec.federation.deployment import message_process, supernode, worker
from fedrec.federation.deployment.packed_message import PackedMessage
from fedrec.federation.parcel import unwrap

LIES, PAUSE, GATE = "FEDREC_TEST_LIES", "FEDREC_TEST_PAUSE", "FEDREC_TEST_GATE"
"""Environment variables: `round:lie,round:lie`, how many seconds `slow` takes, and the file that `held` waits for."""

ROOT = Path(__file__).resolve().parents[2]


def surroundings(lies: Mapping[int, str], gate: Path, pause: float = 0) -> dict[str, str]:
    """Return the environment of a node whose device lies in these rounds."""
    told = ",".join(f"{round}:{lie}" for round, lie in lies.items())
    return {"PYTHONPATH": str(ROOT), LIES: told, PAUSE: str(pause), GATE: str(gate)}


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


def wait_at_the_gate(reply: Message) -> None:
    """Wait for the gate to open; in vain after four minutes, so that no test hangs."""
    deadline = time.monotonic() + 240
    while not Path(os.environ[GATE]).exists() and time.monotonic() < deadline:
        time.sleep(0.05)


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
    "held": wait_at_the_gate,
    "twice": lambda reply: None,  # see `send`
}

RANKING = {"nobody"}
"""Lies of an evaluation; the others are of training."""
HOLDS = {"held"}
"""Lies of any message of a round."""


def lie_of(message: Message) -> str | None:
    lies = dict(pair.split(":") for pair in os.environ[LIES].split(",") if pair)
    lie = lies.get(message.metadata.group_id)
    told = lie in HOLDS or message.metadata.message_type == ("evaluate" if lie in RANKING else "train")
    return lie if told else None


def answer(message: Message, context: Context) -> Message:
    """Answer as the installed app does, and then lie."""
    reply = client_app.app(message, context)
    if lie := lie_of(message):
        ANSWERS[lie](reply)
    return reply


def send(self: supernode.SuperNode, run: int, reply: PackedMessage, seconds: float) -> bool:
    """Send an answer, and in a round of `twice` another one to the same message."""
    sent, message = honest_send(self, run, reply, seconds), reply.unpack()
    if lie_of(message) == "twice" and not message.has_error():
        message.content = unwrap(message.content)
        with_deltas(message, filled(0.0))
        honest_send(self, run, PackedMessage.of(message), seconds)
    return sent


honest_send = supernode.SuperNode._send


def main() -> None:
    """Be the node (`node run …`), whose messages go to this file, or the process that answers them."""
    if sys.argv[1] == "node":
        supernode.Worker = partial(worker.Worker, __spec__.name)  # type: ignore[misc]
        supernode.SuperNode._send = send
        cli.main()
    else:
        message_process.app = answer  # type: ignore[assignment]
        message_process.main(int(sys.argv[1]))


if __name__ == "__main__":
    main()
