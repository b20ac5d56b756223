"""The fairness report: how well groups of users are served, and which items they are shown.

Only means over groups and counts over all users are in it, beside the sizes of the groups; a group of few users is
listed all the same, with an interval that shows how little is known of it.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.recsys.evaluation.groups import Masks, count_events, group_users, split_by_popularity
from fedrec.recsys.evaluation.ranking import Ranking, per_user
from fedrec.recsys.evaluation.significance import bootstrap_interval, compare

NDCG, RECALL = "ndcg@10", "recall@10"


@dataclass(frozen=True)
class GroupQuality:
    """The quality for the users of one group, with 95 % intervals by the bootstrap over them."""

    by: str  # what the groups are by
    group: str
    users: int
    ndcg: float  # at 10, as is recall
    ndcg_low: float
    ndcg_high: float
    recall: float
    recall_low: float
    recall_high: float


@dataclass(frozen=True)
class GroupDifference:
    """The difference of NDCG@10 for the users of one group between two models, with its paired 95 % interval."""

    by: str
    group: str
    users: int
    ndcg: float
    against: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Exposure:
    """The items of one part of the catalogue by popularity, and their shares of the training events and the lists."""

    part: str  # head, middle or tail
    items: int
    events: float  # share of all training events
    recommendations: float  # share of the places in all top 10


@dataclass(frozen=True)
class FairnessReport:
    """Quality by group, and exposure by popularity."""

    users: int
    quality: tuple[GroupQuality, ...]
    exposure: tuple[Exposure, ...]
    gini: float  # of the items' numbers of recommendations: 0 if all are shown alike, towards 1 if few are
    coverage: float  # share of the rankable items in any user's top 10

    def as_record(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        return asdict(self)


def report_fairness(ranking: Ranking, dataset: Dataset, split: str, seed: int = 0) -> FairnessReport:
    """Report on a ranking of all users of a dataset whose coverage was measured, as `rank_held_out` returns it.

    `seed` is of the resamples. Raises `InputError` if no user was ranked.
    """
    users = dataset.shard.ranked(range(len(dataset.shard)), split)
    if not len(users):
        raise InputError("no user has a held-out item, so that there are no groups to measure")
    generator = np.random.default_rng(seed)
    quality = tuple(
        _measure_quality(by, name, ranking.ranks[mask], generator)
        for by, masks in group_users(dataset, users, split).items()
        for name, mask in masks.items()
    )
    events = count_events(dataset)
    exposure = _measure_exposure(split_by_popularity(events), events, ranking.listed)
    return FairnessReport(len(users), quality, exposure, gini(ranking.listed), ranking.coverage)


def compare_groups(
    ours: Ranking, theirs: Ranking, dataset: Dataset, split: str, seed: int = 0
) -> tuple[GroupDifference, ...]:
    """Compare two rankings of the same users, group by group."""
    users = dataset.shard.ranked(range(len(dataset.shard)), split)
    generator, a, b = np.random.default_rng(seed), per_user(ours.ranks, NDCG), per_user(theirs.ranks, NDCG)
    return tuple(
        _compare_group(by, name, a[mask], b[mask], generator)
        for by, masks in group_users(dataset, users, split).items()
        for name, mask in masks.items()
    )


def gini(counts: np.ndarray) -> float:
    """Compute the Gini coefficient of non-negative counts (N,); 0 if all are zero.

    Σᵢ (2 i - N - 1) xᵢ / (N Σ x), with x in rising order and i from 1.
    """
    ordered, n = np.sort(counts), len(counts)
    total = n * ordered.sum()
    return float(((2 * np.arange(1, n + 1) - n - 1) * ordered).sum() / total) if total else 0.0


def _measure_quality(by: str, name: str, ranks: np.ndarray, generator: np.random.Generator) -> GroupQuality:
    ndcg, recall = per_user(ranks, NDCG), per_user(ranks, RECALL)
    of_ndcg, of_recall = (bootstrap_interval(values, generator) for values in (ndcg, recall))
    return GroupQuality(by, name, len(ranks), float(ndcg.mean()), *of_ndcg, float(recall.mean()), *of_recall)


def _compare_group(
    by: str, name: str, ours: np.ndarray, theirs: np.ndarray, generator: np.random.Generator
) -> GroupDifference:
    found = compare(ours, theirs, generator)
    means = float(ours.mean()), float(theirs.mean())
    return GroupDifference(by, name, found.users, *means, found.difference, found.low, found.high)


def _measure_exposure(parts: Masks, events: np.ndarray, listed: np.ndarray) -> tuple[Exposure, ...]:
    of_events, of_lists = (counts / max(1, counts.sum()) for counts in (events, listed))
    return tuple(
        Exposure(name, int(mask.sum()), float(of_events[mask].sum()), float(of_lists[mask].sum()))
        for name, mask in parts.items()
    )
