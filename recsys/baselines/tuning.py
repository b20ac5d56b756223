"""The tuning of a baseline: all hyperparameters of a small grid are tried on validation alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from time import perf_counter
from typing import Annotated, Any, TypeVar

import numpy as np
from annotated_types import Ge
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.recsys.baselines.sasrec import Epoch
from fedrec.recsys.evaluation.ranking import per_user, rank, sample_users
from fedrec.recsys.model.scoring import Scorer

METRIC = "ndcg@10"
VALIDATION_USERS = 2000
"""Maximum users that are ranked in a trial: the same for all trials of all baselines."""

Kept = TypeVar("Kept")

Grid = Mapping[str, Sequence[Any]]
"""Hyperparameter → the values to try."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The data that a baseline is fitted on: all users' histories, and the public items."""

    shard: Shard
    embeddings: Tensor  # (N, E) of the items' texts
    seed: int = 0
    _kept: dict[str, tuple[object, Any]] = field(default_factory=dict, repr=False)

    @property
    def items(self) -> int:
        return len(self.embeddings)

    def keep(self, name: str, key: object, compute: Callable[[], Kept]) -> Kept:
        """Return the result of `compute`, which is kept under this name until another key is asked for.

        So trials that differ only in how a user is scored share one fit.
        """
        if name not in self._kept or self._kept[name][0] != key:
            self._kept.pop(name, None)  # frees its memory first
            self._kept[name] = key, compute()
        return self._kept[name][1]


@dataclass(frozen=True)
class NoConfig:
    """The config of a baseline without hyperparameters."""


@dataclass(frozen=True)
class TextConfig:
    """Text neighbours: cosine to the mean text of the last events."""

    last: Annotated[int, Ge(1)] = 10  # events of the history in the mean


EpochCallback = Callable[[Epoch], None]
"""A function that is called after each epoch of a baseline that trains in epochs."""


@dataclass(frozen=True)
class Baseline:
    """A baseline: its config, a function that fits it on the events that a split may read, and its grid."""

    config: type
    fit: Callable[[TrainingData, str, Any, EpochCallback], Scorer]
    grid: Grid = field(default_factory=dict)
    refits: bool = True  # whether the best is fitted again for the test, on all events that the test may read


@dataclass(frozen=True)
class Trial:
    """One combination of hyperparameters, and its result on validation."""

    settings: dict[str, Any]
    ndcg: float  # NDCG@10
    seconds: float  # to fit and to rank


@dataclass(frozen=True)
class TuningResult:
    """A baseline that is fitted for the test, and the trials that chose its hyperparameters."""

    score: Scorer = field(repr=False)
    settings: dict[str, Any]
    trials: list[Trial]

    @property
    def record(self) -> dict[str, Any]:
        """The choice and its trials, as JSON."""
        return {
            "settings": self.settings,
            "chosen_by": f"validation {METRIC}",
            "trials": list(map(asdict, self.trials)),
        }


def tune(
    baseline: Baseline,
    data: TrainingData,
    grid: Grid | None = None,
    observe: EpochCallback = lambda epoch: None,
    refit: bool = True,
) -> TuningResult:
    """Try all hyperparameters of the grid on validation, choose the best (the first of equals), and refit for the test.

    `grid` replaces the baseline's own values by name. Without `refit`, the test uses the baseline as it was fitted for
    validation: if items are cold, the validation events of other users would reveal them. Raises `InputError` for a
    value that is not allowed.
    """
    users = sample_users(data.shard, VALIDATION_USERS, np.random.default_rng(data.seed))
    trials: list[Trial] = []
    best: tuple[float, Any, Scorer] | None = None
    for config in grid_configs(baseline, grid or {}):
        started = perf_counter()
        score = baseline.fit(data, "validation", config, observe)
        ndcg = float(per_user(rank(score, data.shard, users, "validation").ranks, METRIC).mean())
        trials.append(Trial(asdict(config), ndcg, perf_counter() - started))
        if best is None or ndcg > best[0]:
            best = ndcg, config, score
    assert best, "a grid has at least one combination"
    _, config, score = best
    if refit and baseline.refits:
        score = baseline.fit(data, "test", config, observe)
    return TuningResult(score, asdict(config), trials)


def grid_configs(baseline: Baseline, changes: Grid) -> list[Any]:
    """Build the config of each combination in the baseline's grid, under these changes. Raises `InputError`."""
    grid = {**baseline.grid, **changes}
    known = asdict(baseline.config())
    for name, values in grid.items():
        if name not in known:
            raise InputError(f"setting {name!r} is not known; the settings are {', '.join(known) or 'none'}")
        if isinstance(values, str) or not isinstance(values, Sequence) or not len(values):
            raise InputError(f"setting {name} = {values!r} is no list of values to try; write [{values!r}]")
    return [
        _validate_config(baseline.config, dict(zip(grid, values, strict=True))) for values in product(*grid.values())
    ]


def _validate_config(kind: type, settings: dict[str, Any]) -> Any:
    """Build a config. Raises `InputError` for a value that is not allowed."""
    try:
        return TypeAdapter(kind).validate_python(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"setting {first['loc'][0]} = {first['input']!r}: {first['msg'].lower()}") from error
