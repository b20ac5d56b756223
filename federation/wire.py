"""Order, Update and Adapter ↔ Flower's records: the only file that knows a record's keys.

Nothing else has a wire form. A shard, a history or a vector of a user cannot be sent by accident.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedrec.federation.compression.eden import CompressedUpdate, Eden, count_rows
from fedrec.federation.compression.quantise import WIDTH
from fedrec.federation.messages import Order, OrderRefused, Update
from fedrec.recsys.embeddings import MODALITY, RECIPE, USER_ENCODER
from fedrec.recsys.model.lora import Adapter

ROOM_BESIDE, ROOM_FOR_TENSOR = 16_384, 1_024
"""Bytes for metrics, and for a tensor's name and header: several times what they take."""

FIELDS: dict[str, type] = {
    **{"round": int, "clip": float, "split": str, "protocol": str, "best": int, "run": str, "noise": float}
}
"""The fields of an order beside its users, with their types."""

CENSUS, TRAIN, STATISTICS, EVALUATE = "query.census", "train", "train.statistics", "evaluate"
EXPOSURE = "evaluate.exposure"
SECURE = "query.secure"
"""The kinds of messages to a node."""

ADVERTISE, SHARE, MASK, ATTEST, REVEAL = "advertise", "share", "mask", "attest", "reveal"
REQUESTS: dict[str, dict[str, Any]] = {
    ADVERTISE: {"run": str, "round": int, "kind": str, "clients": int},
    SHARE: {**{"identity": [bytes], "sealing": [bytes], "masking": [bytes], "clients": [int], "signature": [bytes]}},
    MASK: {"session": bytes, "places": [int], "texts": [bytes]},  # and an order with its adapter
    ATTEST: {"session": bytes, "places": [int]},
    REVEAL: {"session": bytes, "places": [int], "texts": [bytes]},
}
ANSWERS: dict[str, dict[str, Any]] = {
    ADVERTISE: {"identity": bytes, "sealing": bytes, "masking": bytes, "signature": bytes},
    SHARE: {"texts": [bytes]},
    ATTEST: {"signature": bytes},
    REVEAL: {"places": [int], "texts": [bytes]},
}
"""The stages of secure aggregation (federation/secure_aggregation), with the fields of a request and of its answer."""


def encode_adapter(adapter: Adapter) -> ArrayRecord:
    """Encode an adapter as Flower's arrays."""
    return ArrayRecord({name: Array(tensor.contiguous().numpy()) for name, tensor in adapter.items()})


def decode_adapter(record: ArrayRecord) -> Adapter:
    return {name: torch.from_numpy(array.numpy().copy()) for name, array in record.items()}


def to_float32_if_exact(deltas: Adapter) -> Adapter:
    """Convert to float32 if that loses nothing, as for the change of a single user; a sum may need float64."""
    return {
        name: narrow if torch.equal((narrow := tensor.float()).double(), tensor) else tensor
        for name, tensor in deltas.items()
    }


def encode_order(order: Order, adapter: Adapter) -> RecordDict:
    asked = {name: getattr(order, name) for name in FIELDS}
    if not order.run:  # Flower takes no empty text
        del asked["run"]
    asked["users"] = order.users.tolist()
    return RecordDict({"order": ConfigRecord(asked), "adapter": encode_adapter(adapter)})


def decode_order(content: RecordDict) -> tuple[Order, Adapter]:
    """Decode an order and its adapter. Raises `OrderRefused`, which names a record or field that is wrong."""
    if set(content.config_records) != {"order"} or set(content.array_records) != {"adapter"} or len(content) != 2:
        raise OrderRefused("an order is refused: it is not the two records 'order' and 'adapter'")
    asked: dict[str, Any] = {"run": ""} | dict(content.config_records["order"])
    if wrong := sorted(asked.keys() ^ {*FIELDS, "users"}):
        raise OrderRefused(f"an order is refused: field {wrong[0][:40]!r} is missing, or is none of an order's")
    for name, kind in FIELDS.items():
        if type(asked[name]) is not kind:  # a bool is an int, and an int can stand for a float: neither is meant
            raise OrderRefused(f"an order is refused: {name} is {type(asked[name]).__name__}, not {kind.__name__}")
    users = _numbers(asked.pop("users"))
    try:
        adapter = decode_adapter(content.array_records["adapter"])
    except Exception as error:  # bytes from outside can fail to decode in any way
        raise OrderRefused(f"an order is refused: its adapter cannot be decoded ({type(error).__name__})") from error
    return Order(users=users, **asked), adapter


def _numbers(users: object) -> np.ndarray:
    if not isinstance(users, list) or any(type(user) is not int or abs(user) >= 2**63 for user in users):
        raise OrderRefused("an order is refused: users is not a list of whole numbers")
    return np.array(users, dtype=np.int64)


def encode_update(update: Update) -> RecordDict:
    """Encode an update: a single user's change by its codes if it has any, a sum as it is."""
    content = RecordDict(
        {
            "count": MetricRecord({"round": update.round, "users": update.users}),
            "sums": MetricRecord(dict(update.sums)),
        }
    )
    if update.codes:
        content["codes"] = encode_codes(update.codes)
    else:
        content["deltas"] = encode_adapter(to_float32_if_exact(update.deltas))
    return content


def decode_update(content: RecordDict, like: Adapter | None = None, bits: int = 32) -> Update:
    """Decode an update; `like` gives the shapes of coded tensors. Raises `ValueError` if the records are invalid."""
    with _refusing():
        count: Any = content.metric_records["count"]
        sums: Any = content.metric_records["sums"]
        update = Update(
            round=_whole(count["round"]),
            users=_whole(count["users"]),
            deltas={},
            sums={name: float(value) for name, value in sums.items()},
        )
        if "codes" in content:
            shapes = {name: tensor.shape for name, tensor in (like or {}).items()}
            codes = decode_codes(content.config_records["codes"], count_rows(shapes), bits)
            return replace(update, deltas=codes.total(shapes), codes=codes)
        deltas = decode_adapter(content.array_records["deltas"])
        if other := {tensor.dtype for tensor in deltas.values()} - {torch.float32, torch.float64}:
            raise TypeError(f"deltas of {other.pop()}")
        return replace(update, deltas={name: tensor.double() for name, tensor in deltas.items()})


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{type(value).__name__} where a whole number belongs")
    return value


def encode_codes(codes: CompressedUpdate) -> ConfigRecord:
    """Encode one client's codes as bytes: a bit for each sign, a float32 for each scale, and packed levels."""
    levels = np.unpackbits(codes.levels.cpu().numpy().reshape(-1, 1), axis=1)[:, -codes.coding.bits :]
    parts = {
        "flips": np.packbits(codes.coding.flips.cpu().numpy()),
        "scales": codes.scales.cpu().numpy().astype("<f4"),
        "levels": np.packbits(levels),
    }
    return ConfigRecord({name: part.tobytes() for name, part in parts.items()})


def decode_codes(record: ConfigRecord, rows: int, bits: int) -> CompressedUpdate:
    """Decode one client's codes. Raises `ValueError` if the bytes are not `rows` rows with `bits` bits a number."""
    sizes = {"flips": WIDTH // 8, "scales": 4 * rows, "levels": rows * WIDTH * bits // 8}
    parts: Any = dict(record)
    if (found := {name: len(part) for name, part in parts.items()}) != sizes:
        raise ValueError(f"codes of {found} bytes where {sizes} belong")
    flips, levels = (np.unpackbits(np.frombuffer(parts[name], dtype=np.uint8)) for name in ("flips", "levels"))
    whole = np.zeros((rows * WIDTH, 8), dtype=np.uint8)
    whole[:, -bits:] = levels.reshape(-1, bits)
    return CompressedUpdate(
        Eden(bits, torch.from_numpy(flips.astype(bool)).view(1, WIDTH)),
        torch.from_numpy(np.packbits(whole)).view(1, rows, WIDTH),
        torch.from_numpy(np.frombuffer(parts["scales"], dtype="<f4").astype(np.float32)).view(1, rows),
    )


@contextmanager
def _refusing() -> Iterator[None]:
    """Raise `ValueError` for any failure in the block: bytes from outside can fail to decode in any way."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"cannot be decoded ({type(error).__name__}: {error})") from error


def encode_census(tickets: np.ndarray, stamp: Mapping[str, str]) -> RecordDict:
    """Encode the tickets of a node's users, and the node's catalogue and encoder, both public."""
    return RecordDict({"census": ArrayRecord({"tickets": Array(tickets)}), "stamp": ConfigRecord(dict(stamp))})


def decode_census(content: RecordDict, stamp: Mapping[str, str]) -> np.ndarray:
    """Decode the tickets. Raises `ValueError` if they are malformed, or of another catalogue, encoder or modality."""
    with _refusing():
        theirs = dict(content.config_records["stamp"])
        tickets = content.array_records["census"]["tickets"].numpy()
    names = ("catalogue", "sha256", RECIPE, MODALITY, USER_ENCODER)
    if differing := [name for name in names if theirs.get(name) != stamp.get(name)]:
        name, given = differing[0], str(theirs.get(differing[0]))[:80]
        raise ValueError(f"its {name} is {given!r}, not {stamp.get(name)!r}")
    if tickets.dtype != np.uint64 or tickets.ndim != 1:
        raise ValueError(f"a census of {tickets.dtype} with {tickets.ndim} axes")
    if len(np.unique(tickets)) < len(tickets):
        raise ValueError("a census with a ticket twice")
    return tickets


def encode_fields(stage: str, fields: Mapping[str, Any]) -> RecordDict:
    """Encode a request or an answer of a stage of secure aggregation."""
    return RecordDict({"secure": ConfigRecord({"stage": stage, **fields})})


def stage_of(content: RecordDict) -> str:
    """Return the stage of secure aggregation that a request is of. Raises `ValueError`."""
    with _refusing():
        stage = content.config_records["secure"]["stage"]
        if stage not in REQUESTS:
            raise TypeError("no stage")
        return str(stage)


def decode_fields(content: RecordDict, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Decode the fields of a request or an answer. Raises `ValueError` if one is missing, or of another type."""
    with _refusing():
        fields: dict[str, Any] = dict(content.config_records["secure"])
        del fields["stage"]
        if fields.keys() != kinds.keys():
            raise TypeError(f"fields {sorted(fields.keys() ^ kinds.keys())[:3]}")
        for name, kind in kinds.items():
            entries = fields[name] if isinstance(kind, list) else [fields[name]]
            if type(entries) is not list or any(
                type(entry) is not (kind[0] if isinstance(kind, list) else kind) for entry in entries
            ):
                raise TypeError(f"{name} of another type")
        return fields


def split_order(content: RecordDict) -> RecordDict:
    """Return the order in a request to mask an answer to it."""
    return RecordDict({name: record for name, record in content.items() if name != "secure"})


def encode_masked(numbers: np.ndarray) -> RecordDict:
    """Encode a masked sum: (P,) uint64."""
    return RecordDict({"masked": ArrayRecord({"numbers": Array(numbers)})})


def decode_masked(content: RecordDict, size: int) -> np.ndarray:
    """Decode a masked sum of `size` numbers: (P,) uint64. Raises `ValueError` if it is of another size or type."""
    with _refusing():
        numbers = content.array_records["masked"]["numbers"].numpy()
        if numbers.dtype != np.uint64 or numbers.shape != (size,):
            raise TypeError(f"{numbers.dtype} of shape {numbers.shape} where {size} uint64 belong")
        return numbers


def max_answer_bytes(template: Adapter) -> int:
    """Bound the bytes of an update of such tensors: a longer answer is not worth decoding."""
    return ROOM_BESIDE + sum(ROOM_FOR_TENSOR + 8 * tensor.numel() for tensor in template.values())


def max_census_bytes(users: int) -> int:
    """Bound the bytes of a census of `users` users."""
    return ROOM_BESIDE + 8 * users


def payload_bytes(content: RecordDict) -> int:
    """Count the bytes of a message's payload."""
    arrays = sum(record.count_bytes() for record in content.array_records.values())
    configs = sum(record.count_bytes() for record in content.config_records.values())
    return arrays + configs + sum(record.count_bytes() for record in content.metric_records.values())
