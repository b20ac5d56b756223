"""The ledger of a run: what it guarantees to its users, and what its releases have spent of that.

It is a file in the run's folder. A release is entered before its noise is drawn, and is on the disk before anything of
it is used, so that a crash can make the ledger count a release that nobody saw, and never the other way round.
"""

import os
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from fedrec.data.errors import InputError
from fedrec.data.storage.json_file import save_json
from fedrec.data.storage.reading import read_json
from fedrec.federation.privacy.accounting import RELATION, Releases, default_delta
from fedrec.federation.privacy.config import PrivacyConfig

FILE = "privacy.json"
SAMPLER = "Poisson: each user by an own coin, drawn from the operating system's generator"
MECHANISM = "discrete Gaussian noise on a sum over users, each clipped in L2 norm"
BY_NODES = (
    f"{MECHANISM}: the sum of shares that nodes add before they mask their sums, enough if as few stay as a sum is "
    "unmasked of, and if as many nodes are honest as honest_nodes says"
)
_REMEDY = "without it, what the run has spent is unknown; train again, into another folder"


@dataclass(frozen=True)
class Spent:
    """What some releases have spent."""

    epsilon: float = 0.0
    delta: float = 0.0


@dataclass(frozen=True)
class Ledger:
    """The guarantee of a run, the plan that keeps it, and the releases so far."""

    epsilon: float  # of the whole run, with what the run that it started from has spent
    delta: float  # likewise
    population: int  # users when the run began, which are taken to be known
    plan: Releases  # all that the run may release
    clip: float  # of a user's change; the largest, if it adapts
    statistic_clip: float
    rounds: int = 0  # released so far
    statistics: int = 0  # released so far: 0 or 1
    start: Spent = field(default_factory=Spent)  # by the run that it started from, and those before it
    relation: str = RELATION
    sampler: str = SAMPLER
    mechanism: str = MECHANISM
    noise_by: str = "server"  # or "nodes"
    honest_nodes: float = 1.0  # the share of a group's nodes that add their noise, and keep it to themselves
    statistic_excess: float = 1.0  # the variance of the noise in the closed form's sums, over that of the plan

    @classmethod
    def plan_run(cls, config: PrivacyConfig, wanted: Releases, population: int, clip: float, start: Spent) -> Self:
        """Find the noise for a run. Raises `InputError` if nothing is left to spend, or no noise is enough."""
        if config.epsilon <= start.epsilon:
            raise InputError(
                f"setting epsilon = {config.epsilon:g}: the run to start from has spent {start.epsilon:g} of it; "
                "raise epsilon, or leave `start` out"
            )
        delta = config.delta or default_delta(population)
        plan = wanted.with_noise(config.epsilon - start.epsilon, delta, config.statistic_budget)
        ledger = cls(config.epsilon, delta + start.delta, population, plan, clip, config.statistic_clip, start=start)
        if not config.by_nodes:
            return ledger
        return replace(ledger, mechanism=BY_NODES, noise_by=config.noise_by, honest_nodes=config.honest_nodes)

    @property
    def spent(self) -> Spent:
        """What all releases so far have spent, with those of the run that it started from."""
        return self._spent(self._so_far)

    @property
    def spent_at_server(self) -> Spent | None:
        """What they have spent against the server itself, if the nodes add the noise: it knows who was drawn, so that
        sampling hides nobody. For a user who was drawn in all rounds. None if the server adds the noise."""
        return self._spent(replace(self._so_far, sampling_rate=1.0)) if self.noise_by == "nodes" else None

    @property
    def _so_far(self) -> Releases:
        return replace(self.plan, rounds=self.rounds, statistics=self.statistics)

    def _spent(self, releases: Releases) -> Spent:
        epsilon = releases.spent(self.delta - self.start.delta)
        return Spent(self.start.epsilon + epsilon, self.delta if epsilon else self.start.delta)

    @property
    def expected_cohort(self) -> float:
        """The expected number of users of a round."""
        return self.plan.sampling_rate * self.population

    def with_round(self) -> "Ledger":
        """Return the ledger with another round in it. Raises `InputError` if the plan has none left."""
        if self.rounds >= self.plan.rounds:
            raise InputError(f"the run has spent its epsilon = {self.epsilon:g} in {self.rounds} rounds; it ends here")
        return replace(self, rounds=self.rounds + 1)

    def with_statistics(self) -> "Ledger":
        """Return the ledger with the closed form's sums in it. Raises `InputError` if they are in it already."""
        if self.statistics >= self.plan.statistics:
            raise InputError(
                f"{FILE} counts the closed form's sums as released already; a crash may have lost them, and a second "
                "release would overspend: train again, into another folder"
            )
        return replace(self, statistics=self.statistics + 1)

    def save(self, folder: Path) -> None:
        """Write the ledger, and return when it is on the disk."""
        save_json(folder / FILE, asdict(self))
        place = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the ledger of a run. Raises `InputError` if it is missing or damaged."""
        path = folder / FILE
        try:
            record = read_json(path, _REMEDY)
        except FileNotFoundError as error:
            raise InputError(f"{path} is missing; {_REMEDY}") from error
        if unknown := record.keys() - {item.name for item in fields(cls)}:
            raise InputError(f"{path}: {min(unknown)} is not known; {_REMEDY}")
        try:
            return TypeAdapter(cls).validate_python(record)
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(
                f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}; {_REMEDY}"
            ) from error

    def as_record(self) -> dict[str, Any]:
        """Return the ledger as data for the card, with what is spent."""
        at_server = self.spent_at_server
        known = {"spent_at_server": asdict(at_server)} if at_server else {}
        return asdict(self) | {"spent": asdict(self.spent)} | known
