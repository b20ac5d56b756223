"""Events of large files, of which every row is sound: a batch of text at a time becomes numbers.

Text takes ten times the memory of numbers. Here ids become categories, numbered in the order of their appearance, and
only distinct ones are held as text. A file with a row that is not sound is read as a small one, which can say why.
"""

from collections.abc import Iterator

import polars as pl

from fedrec.data.ids import distinct_ids, id_faults
from fedrec.data.readers.formats import TableFile, Unreadable

LARGE = 2**28
"""The size of a file in bytes from which its events are read in batches."""

IDS = ("user_id", "item_id")


class NotSound(Exception):
    """A row without an id, or without a whole number for its time."""


def read_sound_events(file: TableFile, columns: dict[str, str]) -> pl.DataFrame | None:
    """Read users, items and times of a large file (our name → the file's), in file order, with ids as categories.

    None if the file is small, if other columns are asked for, or if a row is not sound.
    """
    if set(columns) != {*IDS, "timestamp"} or file.path.stat().st_size < LARGE:
        return None
    try:
        events = _gather(file.read_batches(columns))
    except (NotSound, *Unreadable):
        return None
    faulty = any(id_faults(distinct_ids(events[name])).is_not_null().any() for name in IDS)
    return None if faulty or events.is_empty() else events


def _gather(batches: Iterator[pl.DataFrame]) -> pl.DataFrame:
    """Convert batches of rows to numbers, and join them a column at a time. Raises `NotSound`."""
    kinds = {name: pl.Categorical(pl.Categories.random()) for name in IDS}
    chunks: dict[str, list[pl.Series]] = {name: [] for name in (*IDS, "timestamp")}
    for batch in batches:
        for name, kind in kinds.items():
            chunks[name].append(_as_text(batch[name]).cast(kind))
        chunks["timestamp"].append(_as_whole(batch["timestamp"]))
    if not chunks["timestamp"]:
        raise NotSound
    return pl.DataFrame([pl.concat(chunks.pop(name), rechunk=True) for name in (*IDS, "timestamp")])


def _as_text(ids: pl.Series) -> pl.Series:
    if ids.has_nulls() or not (ids.dtype == pl.String or ids.dtype.is_integer()):
        raise NotSound
    return ids.cast(pl.String)


def _as_whole(times: pl.Series) -> pl.Series:
    """Convert times to int64. Raises `NotSound` if one is no whole number."""
    if not (times.dtype == pl.String or times.dtype.is_integer()):
        raise NotSound
    bare = times.str.strip_chars() if times.dtype == pl.String else times
    whole = bare.cast(pl.Int64, strict=False)
    if whole.has_nulls():
        raise NotSound
    return whole
