"""The private part of a dataset: the histories on one node, and the cohorts that are built from them.

Shapes: C clients, B examples of a client, L events of a history, U users on the node, T events in all.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from fedrec.data.errors import InputError
from fedrec.data.randomness import DrawKey, Stream, random_stream, ticket_of
from fedrec.data.storage.atomic_files import unreplaced
from fedrec.data.storage.reading import open_array

FOLDER = "shard"
FILES = tuple(f"{FOLDER}/{name}.npy" for name in ("starts", "items", "salts"))
HELD = f"{FOLDER}/held.npy"
"""The file of `Shard.held`, if the split is not leave-one-out."""

SLICE = 2**18
"""Users whose events are gathered at a time, where all users' events would not fit into memory."""

LENGTH_STEP = 8
"""Histories are padded to a multiple of this, plus one: the event that is only predicted."""

HELD_OUT = {"train": 2, "validation": 2, "test": 1}
"""The number of events at a history's end that a split may not read, by leave-one-out: the last event is the test item,
and the event before it the validation item. A split ranks the first event that it may not read."""

NO_ITEM = -1
"""The marker in both held-out places of a user without held-out items (in a split by cold items only)."""


def check_rows(rows: np.ndarray, items: int) -> None:
    """Raise `InputError` if a row is not in a catalogue of `items` items. The error names no user."""
    if rows.size and not 0 <= rows.min() <= rows.max() < items:
        raise InputError("the histories name items that the catalogue lacks; prepare the data again")


@dataclass(frozen=True, eq=False)
class Cohort:
    """The histories of the clients of a round, padded to one length: right-aligned, oldest event first."""

    items: np.ndarray = field(repr=False)  # (C, B, L) rows of the catalogue; 0 in the padding
    mask: np.ndarray = field(repr=False)  # (C, B, L) True for events, False for padding
    read: np.ndarray = field(repr=False)  # (C, B, L) True for events that the user tower reads
    salts: np.ndarray = field(repr=False)  # (C,)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def pooled(self) -> "Cohort":
        """The same histories as the examples of a single client, for central training."""
        return self._cut(lambda column: column.swapaxes(0, 1), self.salts[:1])

    def with_event_dropout(self, share: float, key: DrawKey) -> "Cohort":
        """Drop a share of the events, drawn by each client's salt, from the input; they are still predicted."""
        if not share:
            return self
        rngs = key.client_streams(Stream.EVENT_DROPOUT, self.salts)
        return replace(self, read=self.mask & np.stack([rng.random(self.mask.shape[1:]) >= share for rng in rngs]))

    def blocks(self, events: int, clients: int) -> Iterator[tuple[np.ndarray, "Cohort"]]:
        """Divide the cohort into even blocks of clients of equal padded length, the longest first.

        Yields each block with its clients' indices. A block holds at most `events` events, padding included, and
        `clients` clients, but at least one client. A client's padded length depends on the client alone, so that its
        arithmetic is the same, to the bit, in any cohort.
        """
        lengths = self._padded(self.mask.sum(-1).max(-1))  # (C,)
        for length in np.unique(lengths)[::-1]:
            alike = np.flatnonzero(lengths == length)
            size = max(1, min(clients, events // (self.mask.shape[1] * int(length))))
            for block in np.array_split(alike, -(-len(alike) // size)):
                yield block, self._cut(lambda column: column[block][..., -length:], self.salts[block])  # noqa: B023

    def split_by_length(self) -> Iterator["Cohort"]:
        """Split the examples into groups of equal padded length, each without the padding that it does not need."""
        lengths = self._padded(self.mask.sum(-1).max(0))  # (B,)
        for length in np.unique(lengths):
            alike = np.flatnonzero(lengths == length)
            yield self._cut(lambda column: column[:, alike, -length:], self.salts)  # noqa: B023

    def select(self, clients: np.ndarray) -> "Cohort":
        """Return the histories of some clients, in their order."""
        return self._cut(lambda column: column[clients], self.salts[clients])

    def _cut(self, cut: Callable[[np.ndarray], np.ndarray], salts: np.ndarray) -> "Cohort":
        return Cohort(cut(self.items), cut(self.mask), cut(self.read), salts)

    def _padded(self, events: np.ndarray) -> np.ndarray:
        return np.minimum(-(-events // LENGTH_STEP) * LENGTH_STEP + 1, self.mask.shape[-1])

    def check_rows(self, items: int) -> "Cohort":
        """Return the cohort. Raises `InputError` if one of its rows is not in a catalogue of `items` items."""
        check_rows(self.items, items)
        return self

    @classmethod
    def from_histories(cls, histories: Sequence[np.ndarray], salts: np.ndarray, length: int) -> "Cohort":
        """Build a cohort of one history per client, right-aligned; the last `length` events of longer ones are kept."""
        lengths = np.array([len(history) for history in histories], dtype=np.int64)
        ends = np.cumsum(lengths)
        events = np.concatenate(histories) if len(histories) else np.zeros(0, dtype=np.int64)
        return cls.from_spans(events, ends - lengths, ends, salts, length)

    @classmethod
    def from_spans(
        cls, events: np.ndarray, starts: np.ndarray, ends: np.ndarray, salts: np.ndarray, length: int
    ) -> "Cohort":
        """Build a cohort of histories that lie in one array, from `starts` to `ends` (C,)."""
        places = ends[:, None] + np.arange(-length, 0)  # (C, L)
        mask = places >= starts[:, None]
        items = np.zeros(places.shape, dtype=np.int64)
        items[mask] = events[places[mask]]
        return cls(items[:, None], mask[:, None], mask[:, None], salts)  # (C, 1, L)


@dataclass(frozen=True, eq=False)
class Shard:
    """The histories of the users on one node, each in time order. Private: a shard does not travel.

    `items` may hold more than these histories: the parts of a shard share one file.
    """

    starts: np.ndarray = field(repr=False)  # (U,) the start of each user's events in `items`
    ends: np.ndarray = field(repr=False)  # (U,) the end
    items: np.ndarray = field(repr=False)  # (T,) rows of the catalogue
    salts: np.ndarray = field(repr=False)  # (U,)
    held: np.ndarray | None = field(default=None, repr=False)
    """(U, 2) events at each history's end from the validation item on, and from the test item on; None: leave-one-out.

    A user with equal numbers has no validation item, and one with a zero no test item."""

    def __len__(self) -> int:
        return len(self.salts)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a shard is private: it cannot be pickled, copied to another process or sent")

    def history(self, user: int, split: str = "test") -> np.ndarray:
        """Return the events of a user that `split` may read, oldest first: rows of the catalogue."""
        events = self.items[self.starts[user] : self.ends[user] - self._held_out(user, HELD_OUT[split])]
        return events[:-1] if len(events) and events[-1] == NO_ITEM else events

    def training_events(self, user: int, held_out: int) -> np.ndarray:
        """Return a user's events without the `held_out` last parts, oldest first: rows of the catalogue.

        2 leaves out validation and test, 1 test, 0 nothing.
        """
        events = self.items[self.starts[user] : self.ends[user] - self._held_out(user, held_out)]
        return events[events != NO_ITEM]

    def lengths(self, held_out: int = 0) -> np.ndarray:
        """Count each user's events without the `held_out` last parts, as `training_events` has them: (U,).

        The empty held-out places of a split by cold items count.
        """
        return self.ends - self.starts - self._held_out(slice(None), held_out)

    def _held_out(self, users: int | slice | np.ndarray, parts: int) -> np.ndarray | int:
        """Return the number of events in the last `parts` parts of some users' histories."""
        if self.held is None or not parts:
            return parts
        return self.held[users, HELD_OUT["train"] - parts]

    def full_history(self, user: int) -> np.ndarray:
        """Return all events of a user, held-out events included: to recommend from, never to measure with."""
        events = self.items[self.starts[user] : self.ends[user]]
        return events[events != NO_ITEM]

    def ranked(self, users: Iterable[int], split: str = "test") -> np.ndarray:
        """Return the users who have a held-out item in `split`, of the given ones."""
        users = np.fromiter(users, dtype=np.int64)
        if self.held is None:
            return users[self.items[self.ends[users] - 1] != NO_ITEM]
        held = self.held[users]
        return users[held[:, 1] > 0 if split == "test" else held[:, 0] > held[:, 1]]

    def events(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return all events that `split` may read, user by user: the user and the item of each, (T,) both."""
        lengths = self.lengths(HELD_OUT[split])
        users, items = np.repeat(np.arange(len(self)), lengths), self.items[_places(self.starts, lengths)]
        there = items != NO_ITEM
        return users[there], items[there]

    def training_windows(
        self, users: Iterable[int], length: int, seed: int, round: int, held_out: int = HELD_OUT["train"]
    ) -> Cohort:
        """Return a window of `length` training events of each user, drawn for this round from longer histories.

        Training events are all but the last `held_out` parts. The draw depends on the user's salt, the round and the
        seed alone, so it is the same on any node.
        """
        users = np.fromiter(users, dtype=np.int64)
        starts, ends, salts = self.starts[users], self.ends[users] - self._held_out(users, held_out), self.salts[users]
        spare = ends - starts - length
        for client in np.flatnonzero(spare > 0):
            rng = random_stream(Stream.TRAINING_WINDOWS, seed, round, salts[client])
            ends[client] = starts[client] + rng.integers(spare[client] + 1) + length
        return Cohort.from_spans(self.items, starts, ends, salts, length)

    def held_out(self, users: Iterable[int], split: str) -> np.ndarray:
        """Return the held-out item of each user in `split`; the users must be `ranked` in it."""
        users = np.fromiter(users, dtype=np.int64)
        return self.items[self.ends[users] - self._held_out(users, HELD_OUT[split])].astype(np.int64)

    def tickets(self) -> np.ndarray:
        """Derive the users' tickets: (U,)."""
        return np.fromiter(map(ticket_of, self.salts.tolist()), dtype=np.uint64, count=len(self))

    def part(self, part: int, parts: int) -> "Shard":
        """Return the users of one of `parts` nodes, dealt like cards. It is a view: no event is read."""
        if not 0 <= part < parts:
            raise InputError(f"part {part} of {parts} does not exist; parts count from 0 to {parts - 1}")
        return self.select(slice(part, None, parts))

    def select(self, users: np.ndarray | slice) -> "Shard":
        """Return a shard of some of the users, in their order. It is a view: no event is read."""
        held = None if self.held is None else self.held[users]
        return Shard(self.starts[users], self.ends[users], self.items, self.salts[users], held)

    def save(self, folder: Path) -> None:
        """Write the events of these users as plain `.npy` files, which can be memory-mapped."""
        target = folder / FOLDER
        target.mkdir(parents=True, exist_ok=True)
        lengths = self.ends - self.starts
        bounds = np.append(0, np.cumsum(lengths))
        np.save(target / "starts.npy", bounds.astype(np.int64), allow_pickle=False)
        with (target / "items.npy").open("wb") as file:
            header = {"descr": "<i4", "fortran_order": False, "shape": (int(bounds[-1]),)}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(self), SLICE):
                users = slice(start, start + SLICE)
                self.items[_places(self.starts[users], lengths[users])].astype("<i4").tofile(file)
        np.save(target / "salts.npy", self.salts.astype(np.uint64), allow_pickle=False)
        if self.held is not None:
            np.save(folder / HELD, self.held.astype(np.int32).ravel(), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> "Shard":
        """Open a shard; its events stay on disk.

        Raises `InputError` if a file is missing or damaged. The error names no user, since a server may read it.
        """
        files, remedy = [folder / file for file in FILES], "prepare the data again with `fedrec data prepare`"
        with unreplaced(folder / FOLDER):
            bounds, items, salts = (open_array(file, remedy) for file in files)
            held = open_array(folder / HELD, remedy) if (folder / HELD).exists() else None
        if len(bounds) != len(salts) + 1 or bounds[-1] != len(items) or not _fits(held, len(salts)):
            raise InputError(f"the files under {folder / FOLDER} do not belong together; prepare the data again")
        shard = cls(bounds[:-1], bounds[1:], items, salts, None if held is None else held.reshape(-1, 2))
        if bounds[0] != 0 or (len(salts) and shard.lengths(HELD_OUT["train"]).min() <= 0):
            raise InputError(f"{files[0]}: a history has no event to train on; prepare the data again")
        return shard


def _fits(held: np.ndarray | None, users: int) -> bool:
    """Check that counts of held-out events (2U,) are those of this many users, and are possible."""
    if held is None:
        return True
    return len(held) == 2 * users and bool(((held[1::2] >= 0) & (held[::2] >= held[1::2])).all())


def _places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the indices of the events of histories, one history after the other: (U,), (U,) → (T,)."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)
