"""The order of events in asynchronous rounds: which answers, begun from which adapters, make each step of the server.

It depends on the settings and the tickets alone, never on what is learned. So it is computed before anything is
trained, the clients of a step that began from the same adapter are trained together, and a run that was killed finds
its place by computing the same schedule again.

At one instant the answers come in first; then the server steps, if the buffer is full; then the free places are given
to new clients. Clients that finish at the same time answer in the order in which they began.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from fedrec.data.randomness import Stream, random_stream
from fedrec.federation.buffered.config import BufferConfig
from fedrec.federation.buffered.fleet import Fleet
from fedrec.federation.roster import Roster
from fedrec.federation.sampling import sample_clients


class ScheduleConfig(Protocol):
    """The settings of a run that decide on its schedule."""

    @property
    def seed(self) -> int: ...

    @property
    def clients_per_round(self) -> int: ...

    @property
    def buffer(self) -> BufferConfig: ...


class Work(NamedTuple):
    """A client at work. It compares by when it ends, then by when it was given out."""

    end: float
    number: int
    client: int  # place of the roster
    version: int  # steps that the server had made when the client began


@dataclass(frozen=True, eq=False)
class Step:
    """The answers that make one step of the server."""

    version: int  # steps of the server before it
    clock: float
    answers: dict[int, np.ndarray]  # version → places of the roster, rising
    given_up: int  # clients whose answers would be too stale for the next step
    in_use: frozenset[int]  # the versions that clients are still at work from

    def weights(self, exponent: float) -> dict[int, float]:
        """Compute the weight of the answers of each version: (1 + staleness)^-exponent (Nguyen et al. 2022,
        arXiv:2106.06639, section 5)."""
        return {version: (1 + self.version - version) ** -exponent for version in self.answers}

    def as_record(self) -> dict[str, Any]:
        """Return what a round's record says of the step."""
        clients = sum(map(len, self.answers.values()))
        stale = sum((self.version - version) * len(users) for version, users in self.answers.items())
        return {"clock": self.clock, "staleness": stale / clients, "clients_given_up": self.given_up}


def schedule_steps(roster: Roster, config: ScheduleConfig) -> Iterator[Step]:
    """Iterate over the steps of a run, without end. The roster must have a client."""
    fleet = _FleetAtWork(roster, config)
    while True:
        fleet.give_out()
        fleet.advance()
        while fleet.is_step_due:
            yield fleet.step()


@dataclass
class _FleetAtWork:
    """The state of the simulation: the clock, the clients at work, and the answers in the buffer."""

    roster: Roster
    config: ScheduleConfig
    clock: float = 0.0
    version: int = 0
    given_out: int = 0
    at_work: list[Work] = field(default_factory=list)  # a heap
    buffer: list[Work] = field(default_factory=list)
    absent: list[int] = field(default_factory=list)  # clients that were not there when their turn came
    all_had_turns: bool = False  # in this version

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.config.buffer, self.config.seed)
        self.turns = self._draw_turns()

    def _draw_turns(self) -> Iterator[int]:
        """Iterate over all clients in the order of their turns in this version, in random order: first those that a
        synchronous round would sample."""
        config, rng = self.config, random_stream(Stream.TURNS, self.config.seed, self.version)
        sampled = sample_clients(self.roster, config.clients_per_round, config.seed, self.version + 1)
        yield from rng.permutation(sampled).tolist()
        yield from rng.permutation(np.setdiff1d(np.arange(len(self.roster)), sampled)).tolist()

    def give_out(self) -> None:
        """Let clients begin from the present version until all places are taken; each at most once a version.

        Without staleness an answer keeps its place until the step: a client that begins later would be given up.
        """
        busy = {work.client for work in self.at_work}
        places = self.config.clients_per_round - (0 if self.config.buffer.max_staleness else len(self.buffer))
        while len(self.at_work) < places:
            client = next((client for client in self.turns if client not in busy), None)
            if client is None:
                self.all_had_turns = True
                return
            ticket = int(self.roster.tickets[client])
            if self.fleet.is_there(ticket, self.clock):
                end = self.clock + self.fleet.work_time(ticket)
                heapq.heappush(self.at_work, Work(end, self.given_out, client, self.version))
                self.given_out += 1
            else:
                self.absent.append(client)

    def advance(self) -> None:
        """Move the clock to the next answers, and put them into the buffer; with nobody at work, to the time at which
        absent clients may be there."""
        if not self.at_work:
            if self.absent:
                self.clock = float(int(self.clock) + 1)
                self.turns, self.absent, self.all_had_turns = iter(self.absent), [], False
            return
        self.clock = self.at_work[0].end
        while self.at_work and self.at_work[0].end == self.clock:
            self.buffer.append(heapq.heappop(self.at_work))

    @property
    def is_step_due(self) -> bool:
        """Whether the buffer is full, or holds the answers of everybody who could begin in this version."""
        nobody_left = self.all_had_turns and not (self.at_work or self.absent)
        return len(self.buffer) >= self.config.buffer.buffer_size or bool(nobody_left and self.buffer)

    def step(self) -> Step:
        """Empty the buffer into a step, and give up the clients that would be too stale for the next one."""
        size, version = self.config.buffer.buffer_size, self.version
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        self.version += 1
        self.turns, self.absent, self.all_had_turns = self._draw_turns(), [], False
        oldest, before = self.version - self.config.buffer.max_staleness, len(self.buffer) + len(self.at_work)
        self.buffer = [work for work in self.buffer if work.version >= oldest]
        self.at_work = [work for work in self.at_work if work.version >= oldest]
        heapq.heapify(self.at_work)
        given_up = before - len(self.buffer) - len(self.at_work)
        in_use = frozenset(work.version for work in (*self.buffer, *self.at_work))
        return Step(version, self.clock, _clients_by_version(taken), given_up, in_use)


def _clients_by_version(answers: list[Work]) -> dict[int, np.ndarray]:
    clients: dict[int, list[int]] = defaultdict(list)
    for work in answers:
        clients[work.version].append(work.client)
    return {version: np.sort(clients[version]) for version in sorted(clients)}
