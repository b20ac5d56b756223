"""The arrays of a message in one parcel: Flower 1.41 sends each array in two objects, and each object by a request to
the SuperLink and another from it. An adapter of twelve tensors would cost it four times as many as the parcel does."""

import json
from itertools import accumulate, pairwise
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

PARCEL, INDEX = "parcel", "parcel.index"


def wrap(content: RecordDict) -> RecordDict:
    """Return a content whose array records are one, beside an index of them."""
    found = [(record, name, array) for record, of in content.array_records.items() for name, array in of.items()]
    index = {
        "records": list(content.array_records),
        "arrays": [[record, name, a.dtype, list(a.shape), a.stype, len(a.data)] for record, name, a in found],
    }
    data = b"".join(array.data for _, _, array in found)
    other = {name: record for name, record in content.items() if name not in content.array_records}
    parcel = ArrayRecord({PARCEL: Array("uint8", (len(data),), "bytes", data)})
    return RecordDict({**other, INDEX: ConfigRecord({INDEX: json.dumps(index)}), PARCEL: parcel})


def unwrap(content: RecordDict) -> RecordDict:
    """Return the content that was wrapped, and any other as it is. Raises `ValueError` if it is damaged."""
    if PARCEL not in content.array_records:
        return content
    try:
        data = content.array_records[PARCEL][PARCEL].data
        index: dict[str, Any] = json.loads(str(content.config_records[INDEX][INDEX]))
        ends = accumulate((int(length) for *_, length in index["arrays"]), initial=0)
        arrays: dict[str, dict[str, Array]] = {str(record): {} for record in index["records"]}
        for (record, name, dtype, shape, stype, _), (start, end) in zip(index["arrays"], pairwise(ends), strict=True):
            arrays[record][str(name)] = Array(str(dtype), tuple(map(int, shape)), str(stype), data[start:end])
    except Exception as error:  # it is from outside, and can be damaged in any way
        raise ValueError(f"sent a parcel that cannot be opened ({type(error).__name__})") from error
    other = {name: record for name, record in content.items() if name not in (PARCEL, INDEX)}
    return RecordDict({**other, **{record: ArrayRecord(of) for record, of in arrays.items()}})
