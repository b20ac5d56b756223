"""What a node keeps of its users between rounds and never sends: their private parts."""

from typing import Any, NoReturn


class Keep:
    """Private parts by user, now and as they were in the best round so far; in this process's memory, for one run.

    The server alone knows which round is best, and says so with each training order. A part is replaced, never
    changed, so that what a round leaves is remembered without a copy.
    """

    def __init__(self) -> None:
        self._started = False
        self._forget()

    def _forget(self) -> None:
        self._now: dict[int, Any] = {}
        self._best: dict[int, Any] = {}
        self._trained, self._best_round = 0, 0

    def __reduce__(self) -> NoReturn:
        raise TypeError("a keep is private: it cannot be pickled, copied to another process or sent")

    def start(self) -> None:
        """A run begins: what an earlier one left is forgotten."""
        self._started = True
        self._forget()

    def train(self, round: int, best: int) -> dict[int, Any]:
        """The parts, to be replaced by those of `round`; those of the best round are remembered.

        Raises `ValueError` where this process was not there when the run began, or the round was trained before.
        """
        if not self._started or round <= self._trained:
            raise ValueError(f"round {round}: the private parts of its users are not those of the round before")
        if self._trained <= best:
            self._best, self._best_round = dict(self._now), best
        self._trained = round
        return self._now

    def at(self, round: int) -> dict[int, Any]:
        """The parts as `round` left them. Raises `ValueError` where they are forgotten."""
        if self._trained <= round:
            return self._now
        if round != self._best_round:
            raise ValueError(f"the private parts that round {round} left are forgotten")
        return self._best
