"""The private side of a dataset: the histories on one node, and the cohorts cut from them.

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
LENGTH_STEP = 8
"""Histories are padded to the next multiple of it, and one: the event that is only predicted."""

HELD_OUT = {"train": 2, "validation": 2, "test": 1}
"""Events at a history's end that a split may not read: leave-one-out by time. The last is the test item,
the one before it the validation item; what a split ranks is the first event it may not read."""

NOTHING = -1
"""In both held-out places of a user who only trains: in a split by cold items not everybody has had some."""


def check_rows(rows: np.ndarray, items: int) -> None:
    """Raises `InputError` where a row is none of a catalogue of so many items. It says nothing of a user."""
    if rows.size and not 0 <= rows.min() <= rows.max() < items:
        raise InputError("the histories name items that the catalogue lacks; prepare the data again")


@dataclass(frozen=True, eq=False)
class Cohort:
    """Histories of some clients, cut to one length: right-aligned, oldest first, the client as leading axis."""

    items: np.ndarray = field(repr=False)  # (C, B, L) rows of the catalogue; 0 where there is none
    mask: np.ndarray = field(repr=False)  # (C, B, L) True where there is an event
    read: np.ndarray = field(repr=False)  # (C, B, L) True where the user tower reads it
    salts: np.ndarray = field(repr=False)  # (C,)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def pooled(self) -> "Cohort":
        """The same histories as the examples of a single client: what central training sees."""
        return self._cut(lambda column: column.swapaxes(0, 1), self.salts[:1])

    def with_event_dropout(self, share: float, key: DrawKey) -> "Cohort":
        """The cohort with this share of its events not read, only predicted: drawn by each client (its salt)."""
        if not share:
            return self
        rngs = key.client_streams(Stream.EVENT_DROPOUT, self.salts)
        return replace(self, read=self.mask & np.stack([rng.random(self.mask.shape[1:]) >= share for rng in rngs]))

    def blocks(self, events: int, clients: int) -> Iterator[tuple[np.ndarray, "Cohort"]]:
        """The cohort in even blocks of clients of like length, the longest first, each with its clients' numbers.

        A block holds at most so many events (with their padding) and clients, but always one client. A client is
        padded to a length that depends on the client alone, never on its neighbours: arithmetic on it is then the
        same, to the bit, in any company.
        """
        lengths = self._padded(self.mask.sum(-1).max(-1))  # (C,)
        for length in np.unique(lengths)[::-1]:
            alike = np.flatnonzero(lengths == length)
            size = max(1, min(clients, events // (self.mask.shape[1] * int(length))))
            for block in np.array_split(alike, -(-len(alike) // size)):
                yield block, self._cut(lambda column: column[block][..., -length:], self.salts[block])  # noqa: B023

    def trimmed(self) -> Iterator["Cohort"]:
        """All clients' examples in groups of like length, each without the padding that it does not need."""
        lengths = self._padded(self.mask.sum(-1).max(0))  # (B,)
        for length in np.unique(lengths):
            alike = np.flatnonzero(lengths == length)
            yield self._cut(lambda column: column[:, alike, -length:], self.salts)  # noqa: B023

    def _cut(self, cut: Callable[[np.ndarray], np.ndarray], salts: np.ndarray) -> "Cohort":
        return Cohort(cut(self.items), cut(self.mask), cut(self.read), salts)

    def _padded(self, events: np.ndarray) -> np.ndarray:
        return np.minimum(-(-events // LENGTH_STEP) * LENGTH_STEP + 1, self.mask.shape[-1])

    def within(self, items: int) -> "Cohort":
        """The cohort, for a catalogue of so many items. Raises `InputError` where a history names another."""
        check_rows(self.items, items)
        return self

    @classmethod
    def of(cls, histories: Sequence[np.ndarray], salts: np.ndarray, length: int) -> "Cohort":
        """Align histories (one a client) at the right; of a longer one the last `length` events are kept."""
        lengths = np.array([len(history) for history in histories], dtype=np.int64)
        ends = np.cumsum(lengths)
        events = np.concatenate(histories) if len(histories) else np.zeros(0, dtype=np.int64)
        return cls.cut(events, ends - lengths, ends, salts, length)

    @classmethod
    def cut(cls, events: np.ndarray, starts: np.ndarray, ends: np.ndarray, salts: np.ndarray, length: int) -> "Cohort":
        """The same of histories that stand in one array, from `starts` to `ends` (C,)."""
        places = ends[:, None] + np.arange(-length, 0)  # (C, L)
        mask = places >= starts[:, None]
        items = np.zeros(places.shape, dtype=np.int64)
        items[mask] = events[places[mask]]
        return cls(items[:, None], mask[:, None], mask[:, None], salts)  # (C, 1, L)


@dataclass(frozen=True, eq=False)
class Shard:
    """The histories of the users on one node, each in time order. Private: it does not travel.

    `items` may hold more than these histories: a node's part of a shard shares the file, and reads its own of it.
    """

    starts: np.ndarray = field(repr=False)  # (U,) where each user's events begin
    ends: np.ndarray = field(repr=False)  # (U,) and end
    items: np.ndarray = field(repr=False)  # (T,) rows of the catalogue
    salts: np.ndarray = field(repr=False)  # (U,)

    def __len__(self) -> int:
        return len(self.salts)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a shard is private: it cannot be pickled, copied to another process or sent")

    def history(self, user: int, split: str = "test") -> np.ndarray:
        """The events of a user that `split` may read, oldest first."""
        events = self.items[self.starts[user] : self.ends[user] - HELD_OUT[split]]
        return events[:-1] if len(events) and events[-1] == NOTHING else events

    def everything(self, user: int) -> np.ndarray:
        """All events of a user, oldest first, the held-out ones too: to recommend from, never to measure with."""
        events = self.items[self.starts[user] : self.ends[user]]
        return events[events != NOTHING]

    def ranked(self, users: Iterable[int]) -> np.ndarray:
        """Those of some users who have held-out items."""
        users = np.fromiter(users, dtype=np.int64)
        return users[self.items[self.ends[users] - 1] != NOTHING]

    def events(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """All that `split` may read, user after user: the user and the item of each event, (T,) both."""
        lengths = self.ends - self.starts - HELD_OUT[split]
        users, items = np.repeat(np.arange(len(self)), lengths), self.items[_places(self.starts, lengths)]
        there = items != NOTHING
        return users[there], items[there]

    def crops(
        self, users: Iterable[int], length: int, seed: int, round: int, held_out: int = HELD_OUT["train"]
    ) -> Cohort:
        """A window of `length` training events of some users; of a longer history, one drawn for this round.

        These are all events but the last `held_out`. The draw belongs to the user (its salt), the round and the seed:
        it is the same on any node.
        """
        users = np.fromiter(users, dtype=np.int64)
        starts, ends, salts = self.starts[users], self.ends[users] - held_out, self.salts[users]
        spare = ends - starts - length
        for client in np.flatnonzero(spare > 0):
            rng = random_stream(Stream.TRAINING_WINDOWS, seed, round, salts[client])
            ends[client] = starts[client] + rng.integers(spare[client] + 1) + length
        return Cohort.cut(self.items, starts, ends, salts, length)

    def held_out(self, users: Iterable[int], split: str) -> np.ndarray:
        """The item of each user that `split` ranks: of those who are `ranked`."""
        users = np.fromiter(users, dtype=np.int64)
        return self.items[self.ends[users] - HELD_OUT[split]].astype(np.int64)

    def tickets(self) -> np.ndarray:
        return np.fromiter(map(ticket_of, self.salts.tolist()), dtype=np.uint64, count=len(self))

    def part(self, part: int, parts: int) -> "Shard":
        """The users of one of `parts` nodes, dealt like cards: a view, no event is read."""
        if not 0 <= part < parts:
            raise InputError(f"part {part} of {parts} does not exist; parts count from 0 to {parts - 1}")
        return self.of(slice(part, None, parts))

    def of(self, users: np.ndarray | slice) -> "Shard":
        """Some of the users, in their order; no event is read."""
        return Shard(self.starts[users], self.ends[users], self.items, self.salts[users])

    def save(self, folder: Path) -> None:
        """Write plain `.npy` files, which open as memory maps: these users' events alone, one user after the other."""
        target = folder / FOLDER
        target.mkdir(parents=True, exist_ok=True)
        lengths = self.ends - self.starts
        bounds = np.append(0, np.cumsum(lengths))
        np.save(target / "starts.npy", bounds.astype(np.int64), allow_pickle=False)
        np.save(target / "items.npy", self.items[_places(self.starts, lengths)].astype(np.int32), allow_pickle=False)
        np.save(target / "salts.npy", self.salts.astype(np.uint64), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> "Shard":
        """Open a shard; its events stay on the disk. Raises `InputError` where a file is missing or damaged: it says
        nothing of a user, since a server may get to read it."""
        files, remedy = [folder / file for file in FILES], "prepare the data again with `fedrec data prepare`"
        with unreplaced(folder / FOLDER):
            bounds, items, salts = (open_array(file, remedy) for file in files)
        if len(bounds) != len(salts) + 1 or bounds[-1] != len(items):
            raise InputError(f"the files under {folder / FOLDER} do not belong together; prepare the data again")
        if bounds[0] != 0 or (len(salts) and np.diff(bounds).min() <= HELD_OUT["train"]):
            raise InputError(f"{files[0]}: a history has no event to train on; prepare the data again")
        return cls(bounds[:-1], bounds[1:], items, salts)


def _places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Where the events of histories stand, one history after the other: (U,), (U,) → (T,)."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)
