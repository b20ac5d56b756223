"""Client state: what a node keeps of its users between rounds, and never sends."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch

from fedrec.data.errors import InputError
from fedrec.data.manifest import CLIENT_STATE
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.data.storage.reading import regular
from fedrec.federation.messages import OrderRefused

UserStates = dict[int, Any]
"""The state of each user that has one, by the user's number in the node's shard."""

OWNER_ALONE = 0o600
REMEDY = "remove it, and its users begin the run again"


def state_file(folder: Path, part: int, parts: int) -> Path:
    """Return the file of the node that hosts part `part` of a folder's users."""
    return folder / CLIENT_STATE / f"part-{part}-of-{parts}.pt"


class Snapshot(NamedTuple):
    """The states as a round left them."""

    states: UserStates
    round: int


class ClientStateStore:
    """The client states of one run, in memory, and in a file if one is given: then they outlive the process.

    Three rounds are remembered: the last one; the one before it, since a server that was stopped before it saved a
    round asks for that round again; and the best one so far, which only the server knows, and names with each order. A
    state is replaced, never changed, so that remembering costs no copies. In the file a user is known by the salt,
    which stays when the node's histories are prepared again and the numbers shift. Only tensors, plain values and
    `types` are read from the file.
    """

    def __init__(self, file: Path | None = None, salts: np.ndarray | None = None, types: Sequence[Any] = ()) -> None:
        self._file, self._salts = file, np.zeros(0, dtype=np.uint64) if salts is None else salts
        self._begin("")
        if file and file.exists():
            self._load(file, types)

    def __reduce__(self) -> NoReturn:
        raise TypeError("client states are private: they cannot be pickled, copied to another process or sent")

    @contextmanager
    def training(self, run: str, round: int, best: int) -> Iterator[UserStates]:
        """Give the states to a block that replaces them by those after `round`; if the block fails, nothing changes.

        A new run begins without states. Raises `OrderRefused` for a round whose beginning is forgotten.
        """
        if run != self._run:
            self._begin(run)
        if round < self._last.round:
            raise OrderRefused(f"round {round} is asked for after round {self._last.round}: its client states are gone")
        start = self._before if round == self._last.round else self._last
        if start.round <= best:
            self._best = Snapshot(start.states, best)
        states = dict(start.states)
        yield states
        self._before, self._last = start, Snapshot(states, round)
        if self._file:
            self._save(self._file)

    def at(self, run: str, round: int) -> UserStates:
        """Return the states as `round` left them. Raises `OrderRefused` if they are forgotten."""
        if run != self._run:
            return {}
        for snapshot in (self._last, self._before):
            if snapshot.round <= round:
                return snapshot.states
        if round != self._best.round:
            raise OrderRefused(f"the client states that round {round} left are forgotten")
        return self._best.states

    def _begin(self, run: str) -> None:
        self._run = run
        self._last = self._before = self._best = Snapshot({}, 0)

    def _save(self, file: Path) -> None:
        snapshots = {
            name: (round, {int(self._salts[user]): state for user, state in states.items()})
            for name, (states, round) in (("now", self._last), ("before", self._before), ("best", self._best))
        }
        file.parent.mkdir(mode=0o700, exist_ok=True)
        with replaced_file(file, OWNER_ALONE) as path:
            torch.save({"run": self._run, "left": snapshots}, path)

    def _load(self, file: Path, types: Sequence[Any]) -> None:
        users = {int(salt): user for user, salt in enumerate(self._salts)}
        regular(file, REMEDY)
        try:
            with torch.serialization.safe_globals(list(types)):
                content = torch.load(file, weights_only=True)
            self._run = content["run"]
            self._last, self._before, self._best = (
                Snapshot({users[salt]: state for salt, state in states.items() if salt in users}, round)
                for round, states in (content["left"][name] for name in ("now", "before", "best"))
            )
        except Exception as error:  # a damaged file can fail in any way
            raise InputError(f"{file} cannot be read ({type(error).__name__}); {REMEDY}") from error
