"""Interactions in file order → histories: user by user, in time order, each item once unless repeats count.

No loop goes over events. Users are told apart by hashes of 64 bits, as they are by their salts.
Shapes: T events as given, t without repeats, b events of a block, U users.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl

BLOCK = 25_000
"""Events that are sorted at a time, about: few enough for a core's cache, and to be counted in 16 bits."""


@dataclass(frozen=True, eq=False)
class Histories:
    """Everybody's events, those of a user together and in time order; the users are in no order."""

    users: pl.Series  # (U,) ids
    lengths: np.ndarray  # (U,)
    items: np.ndarray  # (t,) rows of the catalogue
    repeat: int | None = None  # where in the file a repeat stands that was left out


@dataclass(frozen=True, eq=False)
class Events:
    """What decides on order and repeats, in the order of the file."""

    users: np.ndarray  # (T,) hashes
    times: np.ndarray  # (T,)
    items: np.ndarray  # (T,) rows of the catalogue
    repeats: bool  # whether a user's later events with an item are kept

    def blocks(self) -> list[np.ndarray]:
        """The places of the events, in blocks that no user is split between."""
        bits = min(16, (len(self.users) // BLOCK).bit_length())
        block = self.users.astype(np.uint16) & np.uint16((1 << bits) - 1)  # (T,)
        ends = np.cumsum(np.bincount(block, minlength=1 << bits))
        return np.split(np.argsort(block, kind="stable"), ends[:-1])

    def gather(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The histories in a block (b,): where the first event of each is in the file, its length, and all items; and
        where the first repeat is, if there is one."""
        users = self.users[places]
        order = np.lexsort((ranks(self.times[places]), *digits(users)))  # stable: ties keep the order of the file
        users, places = users[order], places[order]
        first = differs(users)
        users, items = small(np.cumsum(first) - 1), self.items[places]
        kept = np.ones(len(items), dtype=bool) if self.repeats else first_of_each(users, items)
        return places[first], np.bincount(users[kept]), items[kept], np.sort(places[~kept])[:1]


def histories(interactions: pl.DataFrame, items: np.ndarray, repeats: bool = False) -> Histories:
    """Of interactions in file order, whose items stand in these rows of the catalogue (T,)."""
    ids = interactions["user_id"]
    events = Events(ids.hash().to_numpy(), interactions["timestamp"].to_numpy(), items, repeats)
    with ThreadPoolExecutor() as pool:  # numpy lets go of the interpreter while it sorts
        columns = zip(*pool.map(events.gather, events.blocks()), strict=True)
    firsts, lengths, kept, left_out = (np.concatenate(column) for column in columns)
    return Histories(ids[firsts], lengths, kept, int(left_out.min()) if len(left_out) else None)


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value among those that differ."""
    return small(np.unique(values, return_inverse=True)[1])


def small(counts: np.ndarray) -> np.ndarray:
    """Numbers below how many there are, in as few bits as will do: what has 16 is sorted without being compared."""
    return counts.astype(np.min_scalar_type(len(counts)))


def digits(values: np.ndarray) -> np.ndarray:
    """The digits of 16 bits that unsigned numbers consist of, the last one first: (2 or 4, b)."""
    return values.view(np.uint16).reshape(len(values), values.itemsize // 2).T


def differs(values: np.ndarray) -> np.ndarray:
    """Where a value is another than the one before it: (b,) of bool."""
    found = np.ones(len(values), dtype=bool)
    found[1:] = values[1:] != values[:-1]
    return found


def first_of_each(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Which events are the first of their user with their item: (b,) of bool."""
    order = np.lexsort((*digits(items), users))
    first = np.empty(len(order), dtype=bool)
    first[order] = differs(users[order]) | differs(items[order])
    return first
