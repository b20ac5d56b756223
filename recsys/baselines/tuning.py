"""The baselines by name, and how each is tuned: every setting of a small grid, chosen on validation alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from time import perf_counter
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.recsys.baselines.neighbours import EASEConfig, KNNConfig, ease, item_knn
from fedrec.recsys.baselines.sasrec import Epoch, SASRecConfig, fit_sasrec, sasrec_scorer
from fedrec.recsys.baselines.simple import popularity, random_scores, text_neighbours
from fedrec.recsys.evaluation.ranking import per_user, rank, sample_users
from fedrec.recsys.model.scoring import Scorer

METRIC = "ndcg@10"
VALIDATION_USERS = 2000
"""Ranked at most to compare settings: the same ones for every setting and every baseline."""

Grid = Mapping[str, Sequence[Any]]
"""Setting → the values to try."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a baseline is fitted on: everybody's histories, and the public items."""

    shard: Shard
    embeddings: Tensor  # (N, E) of the items' texts
    seed: int = 0

    @property
    def items(self) -> int:
        return len(self.embeddings)


@dataclass(frozen=True)
class NoConfig:
    """No settings."""


@dataclass(frozen=True)
class TextConfig:
    """Text neighbours."""

    last: Annotated[int, Ge(1)] = 10  # events of the history that make the taste


EpochCallback = Callable[[Epoch], None]


@dataclass(frozen=True)
class Baseline:
    """A rival: its settings, how it is fitted on what a split may read, and what to try."""

    config: type
    fit: Callable[[TrainingData, str, Any, EpochCallback], Scorer]
    grid: Grid = field(default_factory=dict)
    refits: bool = True  # for the test, on what that may read; else what was fitted for validation is tested


def _sasrec(given: TrainingData, split: str, config: SASRecConfig, watch: EpochCallback) -> Scorer:
    generator = np.random.default_rng(given.seed)
    return sasrec_scorer(fit_sasrec(given.shard, given.items, config, generator, watch))


RIDGES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)

BASELINES = {
    "random": Baseline(NoConfig, lambda given, split, config, watch: random_scores(given.items, given.seed)),
    "popularity": Baseline(NoConfig, lambda given, split, config, watch: popularity(given.shard, given.items, split)),
    "text neighbours": Baseline(
        TextConfig,
        lambda given, split, config, watch: text_neighbours(given.embeddings, config.last),
        {"last": (1, 3, 10, 30)},
    ),
    "item-kNN": Baseline(
        KNNConfig,
        lambda given, split, config, watch: item_knn(given.shard, given.items, split, config),
        {"neighbours": (5, 10, 20, 50, 100, 200), "shrink": (0.0, 10.0, 30.0, 100.0)},
    ),
    "EASE": Baseline(
        EASEConfig,
        lambda given, split, config, watch: ease(given.shard, given.items, split, config),
        {"ridge": RIDGES},
    ),
    "EASE in vectors": Baseline(
        EASEConfig,
        lambda given, split, config, watch: ease(given.shard, given.items, split, config, given.embeddings.shape[1]),
        {"ridge": RIDGES},
    ),
    "SASRec": Baseline(SASRecConfig, _sasrec, {"dropout": (0.2, 0.4, 0.6)}, refits=False),
}
"""From knowing nothing to the strongest. SASRec trains on the training events alone, as our own model does."""


@dataclass(frozen=True)
class Trial:
    """One setting, and how it did on validation."""

    settings: dict[str, Any]
    ndcg: float  # NDCG@10
    seconds: float  # to fit and to rank


@dataclass(frozen=True)
class Tuned:
    """A baseline ready for the test, and how its settings were chosen."""

    score: Scorer = field(repr=False)
    settings: dict[str, Any]
    trials: list[Trial]

    @property
    def record(self) -> dict[str, Any]:
        """The choice, ready for JSON."""
        return {
            "settings": self.settings,
            "chosen_by": f"validation {METRIC}",
            "trials": list(map(asdict, self.trials)),
        }


def tune(
    baseline: Baseline,
    given: TrainingData,
    grid: Grid | None = None,
    watch: EpochCallback = lambda epoch: None,
    refit: bool = True,
) -> Tuned:
    """Fit each setting for validation, keep the best (the first of equals), and fit it for the test.

    `grid` replaces the baseline's own values by name. Without `refit`, what was fitted for validation is tested: where
    items are cold, the validation events of others tell of them. Raises `InputError` for a setting that does not fit.
    """
    users = sample_users(given.shard, VALIDATION_USERS, np.random.default_rng(given.seed))
    trials: list[Trial] = []
    best: tuple[float, Any, Scorer] | None = None
    for config in configs(baseline, grid or {}):
        started = perf_counter()
        score = baseline.fit(given, "validation", config, watch)
        ndcg = float(per_user(rank(score, given.shard, users, "validation").ranks, METRIC).mean())
        trials.append(Trial(asdict(config), ndcg, perf_counter() - started))
        if best is None or ndcg > best[0]:
            best = ndcg, config, score
    assert best, "a grid has one setting at least"
    _, config, score = best
    return Tuned(
        baseline.fit(given, "test", config, watch) if baseline.refits and refit else score, asdict(config), trials
    )


def configs(baseline: Baseline, changes: Grid) -> list[Any]:
    """Every setting of the baseline's grid under these changes. Raises `InputError`."""
    grid = {**baseline.grid, **changes}
    known = asdict(baseline.config())
    for name, values in grid.items():
        if name not in known:
            raise InputError(f"setting {name!r} is not known; the settings are {', '.join(known) or 'none'}")
        if isinstance(values, str) or not isinstance(values, Sequence) or not len(values):
            raise InputError(f"setting {name} = {values!r} is no list of values to try; write [{values!r}]")
    return [_config(baseline.config, dict(zip(grid, values, strict=True))) for values in product(*grid.values())]


def _config(kind: type, settings: dict[str, Any]) -> Any:
    try:
        return TypeAdapter(kind).validate_python(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"setting {first['loc'][0]} = {first['input']!r}: {first['msg'].lower()}") from error
