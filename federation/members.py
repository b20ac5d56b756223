"""The members of a run's sums: the users whose sums are in the total, and the node of each.

A user is known by a mark: a hash of the user's ticket, keyed with the run's id. It is not the ticket, so that two runs
cannot be compared by it, and nothing that a user did is in it. A user's sums are added and subtracted together with the
mark, so that nobody counts twice, and nobody is subtracted twice.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fedrec.data.errors import InputError
from fedrec.data.storage.reading import regular


def marks_of(run: str, tickets: np.ndarray) -> np.ndarray:
    """Compute the marks of users by their tickets (u,), in a run of this id: (u,) uint64."""
    key = run.encode()
    digests = (
        hashlib.blake2b(int(ticket).to_bytes(8), digest_size=8, key=key, person=b"member").digest()
        for ticket in tickets
    )
    return np.fromiter(map(int.from_bytes, digests), dtype=np.uint64, count=len(tickets))


@dataclass(frozen=True, eq=False)
class Members:
    """The users in some sums."""

    marks: np.ndarray  # (U,) uint64, rising
    nodes: np.ndarray  # (U,) uint64: the node of each

    @classmethod
    def of(cls, marks: np.ndarray, nodes: np.ndarray) -> Self:
        """Build the members from marks in any order, and the node of each: (U,), (U,)."""
        order = np.argsort(marks, kind="stable")
        return cls(marks[order].astype(np.uint64), nodes[order].astype(np.uint64))

    def __len__(self) -> int:
        return len(self.marks)

    def find(self, marks: np.ndarray) -> np.ndarray:
        """Return the places of marks among the members, and -1 for a mark that is not there: (u,) → (u,)."""
        places = np.searchsorted(self.marks, marks)
        there = np.append(self.marks, np.uint64(0))[places] == marks
        return np.where(there & (places < len(self)), places, -1)

    def with_users(self, marks: np.ndarray, node: int) -> "Members":
        """Return the members with users of a node added."""
        nodes = np.full(len(marks), node, dtype=np.uint64)
        return Members.of(np.concatenate([self.marks, marks]), np.concatenate([self.nodes, nodes]))

    def without(self, places: np.ndarray) -> "Members":
        """Return the members without those at some places."""
        return Members(np.delete(self.marks, places), np.delete(self.nodes, places))

    def save(self, path: Path) -> None:
        """Write the members to a file."""
        save_file({"marks": self.marks, "nodes": self.nodes}, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the members of a file. Raises `InputError` if it is missing or damaged."""
        remedy = "train the run again, into another folder"
        try:
            columns = load_file(regular(path, remedy))
            marks, nodes = columns["marks"], columns["nodes"]
        except FileNotFoundError as error:
            raise InputError(f"{path} is missing; {remedy}") from error
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise InputError(f"{path} cannot be read ({error}); {remedy}") from error
        if marks.shape != nodes.shape or marks.ndim != 1 or (marks[1:] <= marks[:-1]).any():
            raise InputError(f"{path}: its marks do not rise, or do not fit its nodes; {remedy}")
        return cls(marks, nodes)
