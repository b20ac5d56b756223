"""A simulated fleet: how long each device works, and when it is there. No device sleeps: the clock is a number.

By Zipf's law, of which the Pareto distribution is the continuous form: if u is uniform in (0, 1], u^-a has Pareto's
tail with the shape 1 / a. A device's draws depend on the seed and its client's ticket alone, whatever node it is on.
"""

from dataclasses import dataclass

from fedrec.data.randomness import Stream, random_stream
from fedrec.federation.buffered.config import BufferConfig


@dataclass(frozen=True)
class Fleet:
    """The devices of a run's clients, each told by the ticket of its client."""

    config: BufferConfig
    seed: int

    def work_time(self, ticket: int) -> float:
        """Return the time that a device needs for a client's work in a round, at least 1."""
        return self._quantile(Stream.DEVICE_SPEED, ticket) ** -self.config.fleet_slowness

    def is_there(self, ticket: int, clock: float) -> bool:
        """Return whether a device can begin to work at this time: one coin for each unit of time."""
        if not self.config.fleet_absence:
            return True
        chance = self._quantile(Stream.DEVICE_PRESENCE, ticket) ** self.config.fleet_absence
        return random_stream(Stream.PRESENCE, self.seed, int(clock), ticket).random() < chance

    def _quantile(self, stream: Stream, ticket: int) -> float:
        """Return a device's place in a ranking of all devices, in (0, 1]."""
        return 1.0 - random_stream(stream, self.seed, ticket).random()
