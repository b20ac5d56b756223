"""The pauses between two looks for something that comes from another machine."""

import time
from dataclasses import dataclass, field

SHORTEST, LONGEST = 0.05, 3.0
"""Seconds of a pause. The longest is that of Flower's own SuperNode and grid, which always pause that long."""
SHARE = 0.1
"""A pause as a share of the time waited so far: what comes is seen late by this share of the wait."""


@dataclass(frozen=True)
class Waiting:
    """A wait, from now on. Its pauses grow with it, so that a short wait ends at once and a long one costs little."""

    since: float = field(default_factory=lambda: time.monotonic())

    @property
    def seconds(self) -> float:
        """Seconds waited so far."""
        return time.monotonic() - self.since

    @property
    def pause(self) -> float:
        """Seconds until the next look."""
        return min(max(SHORTEST, SHARE * self.seconds), LONGEST)
