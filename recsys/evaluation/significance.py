"""The paired bootstrap: whether one ranking of the same users is better than another, and by how much.

Efron and Tibshirani 1993, doi:10.1201/9780429246593; for comparing rankings, Sakai 2006, doi:10.1145/1148170.1148261.
"""

from dataclasses import dataclass

import numpy as np

from fedrec.data.errors import InputError

RESAMPLES = 10_000
MAX_COUNTS = 2**22
"""Maximum counts that are sampled at once."""


@dataclass(frozen=True)
class Comparison:
    """The difference of a metric between two models (ours minus theirs), over the same users."""

    users: int
    difference: float  # of the means over users
    low: float  # bounds of its 95 % percentile interval
    high: float
    p: float  # one-sided: the share of resamples in which ours is not better


def compare(
    ours: np.ndarray, theirs: np.ndarray, generator: np.random.Generator, resamples: int = RESAMPLES
) -> Comparison:
    """Compare a metric of the same users under two models: (U,), (U,), as `per_user` returns it.

    Raises `InputError` if the numbers of users differ, or there are none.
    """
    if len(ours) != len(theirs) or not len(ours):
        raise InputError(f"{len(ours)} users beside {len(theirs)}; compare rankings of the same users, one at least")
    differences = ours - theirs
    means = _resampled_means(differences, generator, resamples)
    low, high = np.percentile(means, [2.5, 97.5])
    p = (1 + int((means <= 0).sum())) / (1 + resamples)
    return Comparison(len(ours), float(differences.mean()), float(low), float(high), p)


def bootstrap_interval(
    values: np.ndarray, generator: np.random.Generator, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Compute the 95 % percentile interval of the mean of at least one value: (U,)."""
    low, high = np.percentile(_resampled_means(values, generator, resamples), [2.5, 97.5])
    return float(low), float(high)


def _resampled_means(values: np.ndarray, generator: np.random.Generator, resamples: int) -> np.ndarray:
    """Compute the means of bootstrap samples: (U,) → (resamples,).

    A metric at a cutoff takes few distinct values. So a resample is one multinomial sample of how often each value
    occurs, whose cost does not grow with the number of users.
    """
    _, firsts, counts = np.unique(values, return_index=True, return_counts=True)
    order = np.argsort(firsts)  # by first occurrence: swapping the models changes all signs, and no sample
    kinds, shares = values[firsts[order]], counts[order] / len(values)
    size = max(1, MAX_COUNTS // len(kinds))
    means = [
        generator.multinomial(len(values), shares, size=min(size, resamples - start)) @ kinds / len(values)
        for start in range(0, resamples, size)
    ]
    return np.concatenate(means)
