"""Metrics by group: users with short, middle and long histories."""

from dataclasses import dataclass

import numpy as np

from fedrec.recsys.evaluation.ranking import metric_means, metric_sums

NAMES = ("short", "middle", "long")


@dataclass(frozen=True)
class Group:
    """Users with histories of similar length, and the metrics over them."""

    name: str
    shortest: int  # events
    longest: int  # events, inclusive
    users: int
    metrics: dict[str, float]


def by_length(lengths: np.ndarray, ranks: np.ndarray) -> list[Group]:
    """Group users into thirds by the length of their histories, the short first: lengths (U,) in events, ranks (U,).

    Users of one length stay together. So thirds are uneven if many lengths are equal, and one may be missing.
    """
    if not len(lengths):
        return []
    bounds = np.quantile(lengths, [1 / 3, 2 / 3], method="inverted_cdf")
    third = np.searchsorted(bounds, lengths)  # 0, 1 or 2; a bound itself belongs below
    masks = {name: third == number for number, name in enumerate(NAMES)}
    return [_measure_group(name, lengths[mask], ranks[mask]) for name, mask in masks.items() if mask.any()]


def _measure_group(name: str, lengths: np.ndarray, ranks: np.ndarray) -> Group:
    metrics = metric_means(metric_sums(ranks))
    users = int(metrics.pop("users"))
    return Group(name, int(lengths.min()), int(lengths.max()), users, metrics)
