"""Time to quality of synchronous, over-selected and buffered rounds, under simulated fleets of unequal devices.

The runs of all cases are kept in a folder, and an interrupted one is resumed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fedrec.data.dataset import Dataset
from fedrec.federation import round_log
from fedrec.federation.buffered.config import BufferConfig
from fedrec.federation.census import take_census
from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.round_log import SCORE, RoundLog
from fedrec.federation.rounds import run
from fedrec.federation.setup import TrainingSetup

ANSWERS, VALIDATIONS = 6_400, 10
"""Answers of clients in a run, and validations, after equally many answers each."""

FLEETS = {"slowness 0.5": (0.5, 0.5)}
"""Zipf's exponents of slowness and of absence."""

SHARES = (0.8, 0.9, 1.0)
"""Targets, as shares of the best validation of synchronous rounds."""

Say = Callable[[str], None]


class Case(NamedTuple):
    """A way to make rounds: how many clients are at work, after how many answers the server steps, and how stale these
    may be."""

    at_work: int
    buffer_size: int
    max_staleness: int

    def configure(self, config: RunConfig, slowness: float, absence: float) -> RunConfig:
        """Return the settings of a run that ends after `ANSWERS` answers."""
        steps = -(-ANSWERS // self.buffer_size)
        exponent = config.buffer.staleness_exponent
        return replace(
            config,
            clients_per_round=self.at_work,
            rounds=steps,
            validate_every=max(1, steps // VALIDATIONS),
            buffer=BufferConfig(self.buffer_size, exponent, self.max_staleness, slowness, absence),
        )


CASES = {
    "synchronous": Case(64, 64, 0),
    "over-selected": Case(83, 64, 0),
    "buffered": Case(64, 32, 20),
}
"""A round of 64 clients; one of 83 that takes the first 64 answers (Bonawitz et al. 2019, arXiv:1902.01046); and steps
at each 32 answers of 64 clients at work."""


class Point(NamedTuple):
    """A validation of a run: when, after how many answers, and its score."""

    clock: float
    answers: int
    score: float


def measure(data: Path, config: RunConfig, out: Path, say: Say) -> dict[str, Any]:
    """Train each case under each fleet on a prepared dataset, and compare when they reach the same quality."""
    setup = TrainingSetup(Dataset.open(data), config)
    fleets = {}
    for fleet, exponents in FLEETS.items():
        curves, found = {}, {}
        for name, case in CASES.items():
            say(f"{fleet}: {name}")
            folder = out / f"{fleet}, {name}".replace(" ", "-").replace(",", "")
            records = train(setup, case.configure(config, *exponents), folder)
            curves[name], found[name] = curve_of(records), summarise(records) | case._asdict()
        best = max(point.score for point in next(iter(curves.values())))
        for name, curve in curves.items():
            found[name] |= {
                "reached": {f"{share:g}": time_to_score(curve, share * best) for share in SHARES},
                "curve": [(round(clock, 1), answers, round(score, 4)) for clock, answers, score in curve],
            }
        fleets[fleet] = {"slowness": exponents[0], "absence": exponents[1], "cases": found}
    return {"data": setup.dataset.manifest["name"], "answers": ANSWERS, "fleets": fleets}


def train(setup: TrainingSetup, config: RunConfig, folder: Path) -> list[dict[str, Any]]:
    """Train a run to its end, from the state in its folder if there is one, and return the records of its rounds."""
    folder.mkdir(parents=True, exist_ok=True)
    setup = replace(setup, config=config)
    grid = LocalGrid.over(setup)
    state = State.load(folder) or State.start(setup.method.adapter(), config.server)
    round_log.rewind(folder, state.round)
    run(grid, take_census(grid, config, setup.stamp), state, config, RoundLog(folder))
    return round_log.read(folder)


def curve_of(records: Sequence[dict[str, Any]]) -> list[Point]:
    """Return the validations of a run."""
    answers, points = 0, []
    for record in records:
        answers += record["clients_answered"]
        if record["validation"]:
            points.append(Point(record["clock"], answers, record["validation"][SCORE]))
    return points


def time_to_score(curve: Sequence[Point], score: float) -> dict[str, float] | None:
    """Return the time and the answers at the first validation of at least this score, or None if there is none."""
    point = next((point for point in curve if point.score >= score), None)
    return {"clock": round(point.clock, 1), "answers": point.answers} if point else None


def summarise(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what a run cost: time, work that was thrown away, bytes, and the mean staleness of its steps."""
    answers = sum(record["clients_answered"] for record in records)
    lost = sum(record["clients_given_up"] for record in records)
    return {
        "answers": answers,
        "best": round(max(point.score for point in curve_of(records)), 4),
        "clock": round(records[-1]["clock"], 1),
        "given_up": round(lost / (answers + lost), 3),
        "staleness": round(sum(record["staleness"] for record in records) / len(records), 2),
        "bytes": sum(record["bytes_down"] + record["bytes_up"] for record in records),
        "seconds": round(sum(record["seconds"] for record in records), 1),
    }
