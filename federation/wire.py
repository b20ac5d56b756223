"""Order, Update and Adapter ↔ Flower's records: the only file that knows a record's keys.

Nothing else has a wire form. A shard, a history or a vector of a user cannot be sent by accident.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from federation.update import Order, Update
from recsys.lora import Adapter

CENSUS, TRAIN, EVALUATE = "query.census", "train", "evaluate"
"""The three things a node can be asked."""


def encode_adapter(adapter: Adapter) -> ArrayRecord:
    return ArrayRecord({name: Array(tensor.contiguous().numpy()) for name, tensor in adapter.items()})


def decode_adapter(record: ArrayRecord) -> Adapter:
    return {name: torch.from_numpy(array.numpy().copy()) for name, array in record.items()}


def narrowed(deltas: Adapter) -> Adapter:
    """float32 where that loses nothing, as for the change of a single user; float64 for a sum that needs it."""
    return {
        name: narrow if torch.equal((narrow := tensor.float()).double(), tensor) else tensor
        for name, tensor in deltas.items()
    }


def encode_order(order: Order, adapter: Adapter) -> RecordDict:
    asked = {name: getattr(order, name) for name in ("round", "clip", "split", "protocol", "best")}
    asked["users"] = order.users.tolist()
    return RecordDict({"order": ConfigRecord(asked), "adapter": encode_adapter(adapter)})


def decode_order(content: RecordDict) -> tuple[Order, Adapter]:
    asked: Any = content.config_records["order"]
    users = np.array(asked["users"], dtype=np.int64)
    order = Order(
        round=int(asked["round"]),
        users=users,
        clip=float(asked["clip"]),
        split=str(asked["split"]),
        protocol=str(asked["protocol"]),
        best=int(asked["best"]),
    )
    return order, decode_adapter(content.array_records["adapter"])


def encode_update(update: Update) -> RecordDict:
    return RecordDict(
        {
            "count": MetricRecord({"round": update.round, "users": update.users}),
            "sums": MetricRecord(dict(update.sums)),
            "deltas": encode_adapter(narrowed(update.deltas)),
        }
    )


def decode_update(content: RecordDict) -> Update:
    """Raises `ValueError` where the records are not an update's."""
    with _refusing():
        count: Any = content.metric_records["count"]
        deltas = decode_adapter(content.array_records["deltas"])
        sums: Any = content.metric_records["sums"]
        return Update(
            round=int(count["round"]),
            users=int(count["users"]),
            deltas={name: tensor.double() for name, tensor in deltas.items()},
            sums={name: float(value) for name, value in sums.items()},
        )


@contextmanager
def _refusing() -> Iterator[None]:
    """Bytes from outside can fail to decode in any way; all of them mean one thing here."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"cannot be decoded ({type(error).__name__}: {error})") from error


def encode_census(tickets: np.ndarray, stamp: Mapping[str, str]) -> RecordDict:
    """A node's users by their tickets, and which catalogue and encoder the node has: both public."""
    return RecordDict({"census": ArrayRecord({"tickets": Array(tickets)}), "stamp": ConfigRecord(dict(stamp))})


def decode_census(content: RecordDict, stamp: Mapping[str, str]) -> np.ndarray:
    """The tickets. Raises `ValueError` where they are none, or where the node's catalogue or encoder is another."""
    with _refusing():
        theirs = dict(content.config_records["stamp"])
        tickets = content.array_records["census"]["tickets"].numpy()
    if differing := [name for name in ("catalogue", "sha256") if theirs.get(name) != stamp[name]]:
        raise ValueError(f"its {differing[0]} is {theirs.get(differing[0])!r}, not {stamp[differing[0]]!r}")
    if tickets.dtype != np.uint64 or tickets.ndim != 1:
        raise ValueError(f"a census of {tickets.dtype} with {tickets.ndim} axes")
    return tickets


def size(content: RecordDict) -> int:
    """Bytes of a message's payload."""
    arrays = sum(record.count_bytes() for record in content.array_records.values())
    configs = sum(record.count_bytes() for record in content.config_records.values())
    return arrays + configs + sum(record.count_bytes() for record in content.metric_records.values())
