"""What a node keeps of its users between rounds and never sends: their private parts."""

from collections.abc import Iterator
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

OWNER_ALONE = 0o600


def state_file(folder: Path, part: int, parts: int) -> Path:
    """Of the node that hosts part `part` of a folder's users."""
    return folder / CLIENT_STATE / f"part-{part}-of-{parts}.pt"


class Left(NamedTuple):
    """The private parts by user, as a round left them."""

    parts: UserStates
    round: int


class ClientStateStore:
    """The private parts of one run, in memory, and in a file where one is given: then they outlive the process.

    Three rounds are remembered: the last one; the one before it, for a server that was stopped before it saved a round
    asks for that again; and the best one so far, which the server alone knows, and names with each order. A part is
    replaced, never changed, so that remembering costs no copies. In the file a user is known by the salt, which stays
    when the node's histories are prepared anew and the numbers shift.
    """

    def __init__(self, file: Path | None = None, salts: np.ndarray | None = None) -> None:
        self._file, self._salts = file, np.zeros(0, dtype=np.uint64) if salts is None else salts
        self._begin("")
        if file and file.exists():
            self._load(file)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a keep is private: it cannot be pickled, copied to another process or sent")

    @contextmanager
    def training(self, run: str, round: int, best: int) -> Iterator[UserStates]:
        """The parts, to be replaced by those that `round` leaves; what fails within changes nothing.

        Another run begins with nothing. Raises `OrderRefused` for a round whose beginning is forgotten.
        """
        if run != self._run:
            self._begin(run)
        if round < self._now.round:
            raise OrderRefused(f"round {round} is asked for after round {self._now.round}: its private parts are gone")
        given = self._before if round == self._now.round else self._now
        if given.round <= best:
            self._best = Left(given.parts, best)
        parts = dict(given.parts)
        yield parts
        self._before, self._now = given, Left(parts, round)
        if self._file:
            self._save(self._file)

    def at(self, run: str, round: int) -> UserStates:
        """The parts as `round` left them. Raises `OrderRefused` where they are forgotten."""
        if run != self._run:
            return {}
        for left in (self._now, self._before):
            if left.round <= round:
                return left.parts
        if round != self._best.round:
            raise OrderRefused(f"the private parts that round {round} left are forgotten")
        return self._best.parts

    def _begin(self, run: str) -> None:
        self._run = run
        self._now = self._before = self._best = Left({}, 0)

    def _save(self, file: Path) -> None:
        known = {
            name: (left.round, {int(self._salts[user]): part for user, part in left.parts.items()})
            for name, left in (("now", self._now), ("before", self._before), ("best", self._best))
        }
        file.parent.mkdir(mode=0o700, exist_ok=True)
        with replaced_file(file, OWNER_ALONE) as path:
            torch.save({"run": self._run, "left": known}, path)

    def _load(self, file: Path) -> None:
        from fedrec.recsys.federated_baselines.method import PersonalTable, UserState

        users = {int(salt): user for user, salt in enumerate(self._salts)}
        regular(file, "remove it, and its users begin the run anew")
        try:
            with torch.serialization.safe_globals([UserState, PersonalTable]):
                found = torch.load(file, weights_only=True)
            self._run = found["run"]
            self._now, self._before, self._best = (
                Left({users[salt]: part for salt, part in parts.items() if salt in users}, round)
                for round, parts in (found["left"][name] for name in ("now", "before", "best"))
            )
        except Exception as error:  # a damaged file can fail in any way
            raise InputError(
                f"{file} cannot be read ({type(error).__name__}); remove it, and its users begin the run anew"
            ) from error
