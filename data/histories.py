"""Interactions in file order → histories: user by user, in time order, each item once unless repeats count.

No loop goes over events. Users are told apart by hashes of 64 bits, as they are by their salts.
Shapes: T events as read, t without repeats, b events of a block, U users.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
import polars as pl

from fedrec.data.shard import Shard

BLOCK = 25_000
"""Approximate number of events sorted at a time: few enough for a core's cache, and to be counted in 16 bits."""

PART = 2**23
"""Approximate number of events of which the rows are divided into blocks at a time."""

SLICE = 2**20
"""Users whose ids, or events whose copies are held at a time."""


@dataclass(frozen=True, eq=False)
class Histories:
    """The events of all users, user by user in time order; the users are in no order."""

    users: pl.Series  # (U,) ids
    lengths: np.ndarray  # (U,)
    items: np.ndarray  # (t,) rows of the catalogue
    repeat: int | None = None  # the row of the first repeat that was left out
    times: np.ndarray | None = None  # (t,) if the split needs them
    held: np.ndarray | None = None  # (U, 2) as `Shard.held`, once a split has cut them

    @property
    def counts(self) -> tuple[int, int, int]:
        """The numbers of users, of items that occur, and of events; empty held-out places do not count."""
        items = self.items[self.items >= 0] if self.items.dtype.kind == "i" else self.items
        return len(self.lengths), int(np.count_nonzero(count_rows(items))), len(items)

    def user_of_each(self) -> np.ndarray:
        """Return the place of each event's user: (t,)."""
        return np.repeat(np.arange(len(self.lengths), dtype=np.int32), self.lengths)

    def keep(self, kept: np.ndarray) -> "Histories":
        """Return the histories of some events (t,) of bool, without the users who have none of them."""
        lengths = np.bincount(self.user_of_each()[kept], minlength=len(self.lengths))
        times = None if self.times is None else self.times[kept]
        there = lengths > 0
        return Histories(self.users.filter(pl.Series(there)), lengths[there], self.items[kept], times=times)

    def keep_users(self, kept: np.ndarray) -> "Histories":
        """Return the histories of some users (U,) of bool."""
        if kept.all():
            return self
        events = np.repeat(kept, self.lengths)
        times = None if self.times is None else self.times[events]
        there = kept & (self.lengths > 0)
        return Histories(self.users.filter(pl.Series(there)), self.lengths[there], self.items[events], times=times)


@dataclass(frozen=True, eq=False)
class Events:
    """The events in file order, reduced to what decides on order and repeats."""

    users: np.ndarray  # (T,) hashes, or numbers of categories
    times: np.ndarray  # (T,)
    items: np.ndarray  # (T,) rows of the catalogue
    repeats: bool  # whether a user's later events with an item are kept
    keep_times: bool = False

    def user_blocks(self) -> Iterator[list[np.ndarray]]:
        """Divide the events into blocks, as arrays of their rows; a user's events are all in one block.

        Yields some blocks at a time: rows of all events would take twice the memory of the items.
        """
        bits = min(16, (len(self.users) // BLOCK).bit_length())
        block = self.users.astype(np.uint16) & np.uint16((1 << bits) - 1)  # (T,)
        parts = 1 << min(bits, (len(self.users) // PART).bit_length())
        for part in range(parts):
            rows = np.flatnonzero(block % parts == part) if parts > 1 else np.arange(len(block))
            within = block[rows] // parts
            ends = np.cumsum(np.bincount(within, minlength=(1 << bits) // parts))
            yield np.split(rows[np.argsort(within, kind="stable")], ends[:-1])

    def sort_block(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Sort a block (b,) into histories.

        Returns each history's first row and its length, then the items of all histories, their times if they are
        kept, and the row of the first repeat (none or one).
        """
        users = self.users[rows]
        order = np.lexsort((dense_ranks(self.times[rows]), *radix_digits(users)))  # stable: ties keep the file order
        users, rows = users[order], rows[order]
        first = starts_new_value(users)
        users, items = as_narrowest(np.cumsum(first) - 1), self.items[rows]
        kept = np.ones(len(items), dtype=bool) if self.repeats else is_first_of_pair(users, items)
        times = self.times[rows[kept]] if self.keep_times else self.times[:0]
        return rows[first], np.bincount(users[kept]), items[kept], times, np.sort(rows[~kept])[:1]


def build_histories(
    interactions: pl.DataFrame, items: np.ndarray, repeats: bool = False, times: bool = False
) -> Histories:
    """Build the histories from interactions in file order, whose items are these rows of the catalogue (T,)."""
    ids = interactions["user_id"]
    users = ids.to_physical() if isinstance(ids.dtype, pl.Categorical) else ids.hash()
    events = Events(users.to_numpy(), interactions["timestamp"].to_numpy(), items, repeats, times)
    with ThreadPoolExecutor() as pool:  # numpy releases the interpreter lock while it sorts
        blocks = [found for part in events.user_blocks() for found in pool.map(events.sort_block, part)]
    columns = zip(*blocks, strict=True)
    firsts, lengths, kept, kept_times, repeated = (np.concatenate(column) for column in columns)
    first_repeat = int(repeated.min()) if len(repeated) else None
    return Histories(ids[firsts].cast(pl.String), lengths, kept, first_repeat, kept_times if times else None)


def catalogue_rows(ids: pl.Series, catalogue: pl.Series) -> np.ndarray:
    """Look up each item id's row in the catalogue, which has them all: (T,). Ids are compared by their hashes.

    Of categories each is looked up once.
    """
    if isinstance(ids.dtype, pl.Categorical):
        distinct = ids.unique()
        numbers = distinct.to_physical().to_numpy()
        rows = np.zeros(int(numbers.max(initial=0)) + 1, dtype=np.uint32)
        rows[numbers] = catalogue_rows(distinct.cast(pl.String), catalogue)
        return rows[ids.to_physical().to_numpy()]
    rows = pl.DataFrame({"hash": catalogue.hash()}).with_row_index("row")
    return pl.DataFrame({"hash": ids.hash()}).join(rows, on="hash", how="left", maintain_order="left")["row"].to_numpy()


def build_shard(histories: Histories, selected: np.ndarray, salt: Callable[[str], int]) -> tuple[pl.Series, Shard]:
    """Build the shard of the selected users (U,) in the order of their ids; returns the ids, too."""
    users = histories.users.arg_sort().to_numpy()
    users = users[selected[users]]
    ids = histories.users[users]
    texts = chain.from_iterable(ids[start : start + SLICE].to_list() for start in range(0, len(ids), SLICE))
    salts = np.fromiter(map(salt, texts), dtype=np.uint64, count=len(users))
    ends = np.cumsum(histories.lengths)[users]
    held = None if histories.held is None else histories.held[users]
    return ids, Shard(ends - histories.lengths[users], ends, histories.items, salts, held)


def count_rows(rows: np.ndarray, items: int = 0) -> np.ndarray:
    """Count how often each row of the catalogue occurs: (t,) → (N,) or, with fewer `items`, up to the last one.

    A part at a time: `bincount` copies what it counts, as int64.
    """
    counts = np.zeros(items, dtype=np.int64)
    for start in range(0, len(rows), SLICE):
        part = np.bincount(rows[start : start + SLICE], minlength=len(counts))
        part[: len(counts)] += counts
        counts = part
    return counts


def dense_ranks(values: np.ndarray) -> np.ndarray:
    """Rank values; equal values have the same rank, and no rank is skipped."""
    return as_narrowest(np.unique(values, return_inverse=True)[1])


def as_narrowest(counts: np.ndarray) -> np.ndarray:
    """Store numbers below their own count in the narrowest type: numpy sorts 16 bits by radix, without comparing."""
    return counts.astype(np.min_scalar_type(len(counts)))


def radix_digits(values: np.ndarray) -> np.ndarray:
    """Split unsigned numbers into digits of 16 bits, the lowest first: (2 or 4, b)."""
    return values.view(np.uint16).reshape(len(values), values.itemsize // 2).T


def starts_new_value(values: np.ndarray) -> np.ndarray:
    """Mark the values that differ from the value before them: (b,) of bool."""
    starts = np.ones(len(values), dtype=bool)
    starts[1:] = values[1:] != values[:-1]
    return starts


def is_first_of_pair(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Mark the first event of each user with each item: (b,) of bool."""
    order = np.lexsort((*radix_digits(items), users))
    first = np.empty(len(order), dtype=bool)
    first[order] = starts_new_value(users[order]) | starts_new_value(items[order])
    return first
