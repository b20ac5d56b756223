"""The private side of a dataset: the histories on one node, and the cohorts cut from them.

Shapes: C clients, B examples of a client, L events of a history, U users on the node, T events in all.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from data.errors import InputError

FOLDER = "shard"
DRAW, NEGATIVES, CROPS, SAMPLED = 1, 2, 3, 4
"""What a generator is for: the first number of every seed, so that no two draws share a stream."""

LENGTH_STEP = 8
"""Histories are padded to the next multiple of it, and one: the event that is only predicted."""

HELD_OUT = {"train": 2, "validation": 2, "test": 1}
"""Events at a history's end that a split may not read: leave-one-out by time. The last is the test item,
the one before it the validation item; what a split ranks is the first event it may not read."""


def salt_of(user_id: str) -> int:
    """A user's own number, from which all of the user's random draws derive. It never leaves the node.

    It is made from the id alone, so that a published dataset gives the same model anywhere. Whoever can guess ids
    can make their salts and tickets too: a node with real people behind its ids draws salts at random instead.
    """
    return int.from_bytes(hashlib.blake2b(user_id.encode(), digest_size=8, person=b"salt").digest())


def ticket_of(salt: int) -> int:
    """What the server may know of a user: a pseudonym by which it draws, as hard to undo as the salt is to guess.

    Tickets order the users the same way however they are spread over nodes.
    """
    return int.from_bytes(hashlib.blake2b(int(salt).to_bytes(8), digest_size=8, person=b"ticket").digest())


@dataclass(frozen=True, eq=False)
class Cohort:
    """Histories of some clients, cut to one length: right-aligned, oldest first, the client as leading axis."""

    items: np.ndarray = field(repr=False)  # (C, B, L) rows of the catalogue; 0 where there is none
    mask: np.ndarray = field(repr=False)  # (C, B, L) True where there is an event
    salts: np.ndarray = field(repr=False)  # (C,)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def pooled(self) -> "Cohort":
        """The same histories as the examples of a single client: what central training sees."""
        return Cohort(self.items.swapaxes(0, 1), self.mask.swapaxes(0, 1), self.salts[:1])

    def blocks(self, size: int) -> Iterator[tuple[np.ndarray, "Cohort"]]:
        """The cohort in blocks of at most `size` clients of like length, each with its clients' numbers.

        A client is padded to a length that depends on the client alone, never on its neighbours: arithmetic on
        it is then the same, to the bit, in any company.
        """
        longest = self.mask.sum(-1).max(-1)  # (C,)
        lengths = np.minimum(-(-longest // LENGTH_STEP) * LENGTH_STEP + 1, self.mask.shape[-1])
        for length in np.unique(lengths):
            clients = np.flatnonzero(lengths == length)
            for start in range(0, len(clients), size):
                block = clients[start : start + size]
                yield (
                    block,
                    Cohort(self.items[block][..., -length:], self.mask[block][..., -length:], self.salts[block]),
                )

    @classmethod
    def of(cls, histories: Sequence[np.ndarray], salts: np.ndarray, length: int) -> "Cohort":
        """Align histories (one a client) at the right; of a longer one the last `length` events are kept."""
        items = np.zeros((len(histories), 1, length), dtype=np.int64)  # (C, 1, L)
        mask = np.zeros_like(items, dtype=bool)
        for client, history in enumerate(histories):
            kept = history[-length:]
            items[client, 0, length - len(kept) :] = kept
            mask[client, 0, length - len(kept) :] = True
        return cls(items, mask, salts)


@dataclass(frozen=True, eq=False)
class Shard:
    """The histories of the users on one node, in time order, one after the other. Private: it does not travel."""

    starts: np.ndarray = field(repr=False)  # (U + 1,) where each user's events begin
    items: np.ndarray = field(repr=False)  # (T,) rows of the catalogue
    salts: np.ndarray = field(repr=False)  # (U,)

    def __len__(self) -> int:
        return len(self.salts)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a shard is private: it cannot be pickled, copied to another process or sent")

    def history(self, user: int, split: str = "test") -> np.ndarray:
        """The events of a user that `split` may read, oldest first."""
        return self.items[self.starts[user] : self.starts[user + 1] - HELD_OUT[split]]

    def crops(self, users: Iterable[int], length: int, seed: int, round: int) -> Cohort:
        """A window of `length` training events of some users; of a longer history, one drawn for this round.

        The draw belongs to the user (its salt), the round and the seed: it is the same on any node.
        """
        users = list(users)
        windows = []
        for user in users:
            history = self.history(user, "train")
            if (spare := len(history) - length) > 0:
                start = np.random.default_rng([CROPS, seed, round, int(self.salts[user])]).integers(spare + 1)
                history = history[start : start + length]
            windows.append(history)
        return Cohort.of(windows, self.salts[users], length)

    def held_out(self, users: Iterable[int], split: str) -> np.ndarray:
        """The item of each user that `split` ranks."""
        return np.array([self.items[self.starts[user + 1] - HELD_OUT[split]] for user in users], dtype=np.int64)

    def tickets(self) -> np.ndarray:
        return np.array([ticket_of(salt) for salt in self.salts], dtype=np.uint64)

    def part(self, part: int, parts: int) -> "Shard":
        """The users of one of `parts` nodes, dealt like cards."""
        if not 0 <= part < parts:
            raise InputError(f"part {part} of {parts} does not exist; parts count from 0 to {parts - 1}")
        if parts == 1:
            return self
        users = np.arange(part, len(self), parts)
        lengths = np.diff(self.starts)[users]
        events = [self.items[self.starts[user] : self.starts[user + 1]] for user in users]
        return Shard(
            starts=np.concatenate([[0], np.cumsum(lengths)]),
            items=np.concatenate(events) if events else self.items[:0],
            salts=self.salts[users],
        )

    def save(self, folder: Path) -> None:
        """Write plain `.npy` files, which open as memory maps."""
        target = folder / FOLDER
        target.mkdir(parents=True, exist_ok=True)
        for name, values in self._columns().items():
            np.save(target / f"{name}.npy", values, allow_pickle=False)

    def _columns(self) -> dict[str, np.ndarray]:
        return {
            "starts": self.starts.astype(np.int64),
            "items": self.items.astype(np.int32),
            "salts": self.salts.astype(np.uint64),
        }

    @classmethod
    def load(cls, folder: Path) -> "Shard":
        """Open a shard without reading it. Raises `InputError` where a file is missing or damaged."""
        columns = {}
        for name in ("starts", "items", "salts"):
            path = folder / FOLDER / f"{name}.npy"
            try:
                columns[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            except FileNotFoundError as error:
                raise InputError(f"{path} is missing; prepare the data again with `fedrec data prepare`") from error
            except (ValueError, OSError, EOFError) as error:
                raise InputError(f"{path} cannot be read ({error}); prepare the data again") from error
        if len(columns["starts"]) != len(columns["salts"]) + 1 or columns["starts"][-1] != len(columns["items"]):
            raise InputError(f"the files under {folder / FOLDER} do not belong together; prepare the data again")
        return cls(**columns)
