"""Whether one ranking of the same users is better than another, and by how much: the paired bootstrap.

Efron and Tibshirani 1993, doi:10.1201/9780429246593; for comparing rankings, Sakai 2006, doi:10.1145/1148170.1148261.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from fedrec.data.errors import InputError

RESAMPLES = 10_000
NUMBERS = 2**22
"""Counts that are drawn at a time."""


@dataclass(frozen=True)
class Comparison:
    """Ours minus theirs, over users."""

    users: int
    difference: float  # of the means
    low: float  # its 95 % interval, by percentiles
    high: float
    p: float  # one-sided: how often resampled users would not find ours better


def compare(
    ours: np.ndarray, theirs: np.ndarray, generator: np.random.Generator, resamples: int = RESAMPLES
) -> Comparison:
    """Compare a metric of the same users under two models: (U,), (U,), as `rank.per_user` gives it.

    Raises `InputError` where the two are not of the same users, as far as their number tells.
    """
    if len(ours) != len(theirs) or not len(ours):
        raise InputError(f"{len(ours)} users beside {len(theirs)}; compare rankings of the same users, one at least")
    differences = ours - theirs
    means = _resampled_means(differences, generator, resamples)
    low, high = np.percentile(means, [2.5, 97.5])
    p = (1 + int((means <= 0).sum())) / (1 + resamples)
    return Comparison(len(ours), float(differences.mean()), float(low), float(high), p)


def _resampled_means(values: np.ndarray, generator: np.random.Generator, resamples: int) -> np.ndarray:
    """Means of as many values, drawn with replacement, again and again: (U,) → (resamples,).

    Users with the same value are alike, and a metric at a cutoff takes few values. So a resample is one draw of how
    often each value occurs, by the multinomial law: its cost does not grow with the number of users.
    """
    _, firsts, counts = np.unique(values, return_index=True, return_counts=True)
    order = np.argsort(firsts)  # of first occurrence: swapping the models changes all signs, and no draw
    kinds, shares = values[firsts[order]], counts[order] / len(values)
    size = max(1, NUMBERS // len(kinds))
    means = [
        generator.multinomial(len(values), shares, size=min(size, resamples - start)) @ kinds / len(values)
        for start in range(0, resamples, size)
    ]
    return np.concatenate(means)


@dataclass(frozen=True)
class OverSeeds:
    """A number that was measured once per seed."""

    seeds: int
    mean: float
    sd: float | None  # of the sample; None where there is one seed


def over_seeds(values: Sequence[float]) -> OverSeeds:
    """Mean and standard deviation of one value per seed; of none, `InputError`."""
    if not values:
        raise InputError("no values to average; measure one seed at least")
    return OverSeeds(len(values), fmean(values), stdev(values) if len(values) > 1 else None)
