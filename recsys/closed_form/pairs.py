"""Counts of pairs of items with alike texts: the closed form's third kind of features, and the smallest of its sums.

The texts are public, so that everybody knows which pairs are counted: an item with each of its nearest neighbours by
text. A user adds to the count of a pair if both items are in the history, with a weight that falls with the number of
events between them. All other pairs of items, which are almost all, are not counted, and under differential privacy
need no noise.

A count becomes a weight by empirical Bayes: pairs are grouped by the likeness of their texts, and a count is pulled to
the mean of its group, the more, the more of its group's spread is noise and chance.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fedrec.data.shard import check_rows
from fedrec.recsys.closed_form.contexts import UNIT, DecayKernel
from fedrec.recsys.closed_form.norm_bounds import NormBounds
from fedrec.recsys.closed_form.statistics import Statistics

PAIRS = "pairs"
BLOCK = 1024
"""Items whose texts are compared at a time."""
LIKENESS_UNIT = 2.0**20
"""Likenesses are multiples of 1 / `LIKENESS_UNIT`, so that two processors rank the neighbours of an item alike."""
GROUPS = 40
"""Groups of pairs by the likeness of their texts, at most."""
SMALLEST_MEAN = 1e-4
"""The smallest mean count of a group of pairs."""


@dataclass(frozen=True, eq=False)
class PairGate:
    """The pairs that are counted: P of them, in a fixed order."""

    items: int  # N
    keys: np.ndarray  # (P,) rising: first · N + second, with first < second
    likeness: np.ndarray  # (P,) cosines of the whitened texts, at least 0

    @classmethod
    def by_text(cls, vectors: Tensor, neighbours: int) -> "PairGate":
        """Pair each item with its nearest neighbours by text vectors (N, E) of unit length."""
        items, count = len(vectors), min(neighbours, len(vectors) - 1)
        found = [_nearest(start, vectors, count) for start in range(0, items, BLOCK)]
        nearest, likeness = (np.concatenate(parts).reshape(-1) for parts in zip(*found, strict=True))
        own = np.repeat(np.arange(items), count)
        keys = np.minimum(own, nearest) * items + np.maximum(own, nearest)
        keys, places = np.unique(keys, return_index=True)
        return cls(items, keys, np.maximum(likeness[places], 0.0))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The two items of each pair: (P,), (P,)."""
        return self.keys // self.items, self.keys % self.items

    def find(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the places of pairs of different items, and -1 for a pair that is not counted: (n,), (n,) → (n,)."""
        keys = np.minimum(first, second) * self.items + np.maximum(first, second)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, places, -1)

    def table(self, weights: Tensor) -> Tensor:
        """Write the weights of pairs (P,) into a symmetric table over items: (N, N)."""
        first, second = map(torch.from_numpy, self.ends)
        table = torch.zeros(self.items, self.items, dtype=weights.dtype)
        table[first, second] = weights
        table[second, first] = weights
        return table


def _nearest(start: int, vectors: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest neighbours of a block of items, and their likeness: (B, count) twice. Ties by row."""
    block = vectors[start : start + BLOCK].double()
    likeness = np.round((block @ vectors.double().T).numpy() * LIKENESS_UNIT) / LIKENESS_UNIT
    likeness[np.arange(len(block)), start + np.arange(len(block))] = -np.inf
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
    return nearest, np.take_along_axis(likeness, nearest, axis=1)


class PairSums:
    """The counts of pairs over some histories; each history's are clipped, if there are bounds to clip to."""

    def __init__(self, gate: PairGate, kernel: DecayKernel, clipped: NormBounds | None) -> None:
        self._gate, self._weights, self._clipped = gate, kernel.weights, clipped
        self._counts = torch.zeros(len(gate), dtype=torch.float64)

    def add(self, history: np.ndarray) -> None:
        """Add a history of rows, oldest first."""
        check_rows(history, self._gate.items)
        places, weights = self._pairs_of(history.astype(np.int64))
        if not len(places):
            return
        counts = {PAIRS: torch.from_numpy(weights)}
        added = self._clipped.clip(counts) if self._clipped else counts
        self._counts[torch.from_numpy(places)] += added[PAIRS]

    def _pairs_of(self, history: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the counted pairs of a history, each once, with the weight at which it is closest: (p,), (p,)."""
        places, distances = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        for start in range(0, len(history), BLOCK):
            first, second = _near(start, len(history), len(self._weights))
            differ = history[first] != history[second]
            first, second = first[differ], second[differ]
            found = self._gate.find(history[first], history[second])
            places.append(found[found >= 0])
            distances.append((second - first)[found >= 0])
        found, apart = np.concatenate(places), np.concatenate(distances)
        order = np.lexsort((apart, found))
        found, closest = np.unique(found[order], return_index=True)
        return found, self._weights[apart[order][closest] - 1]

    def total(self) -> Statistics:
        """Return the counts so far."""
        return {PAIRS: self._counts}


@lru_cache(maxsize=64)
def _near(start: int, events: int, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of two events at most `reach` apart, the first of them in the block from `start`."""
    first = np.repeat(np.arange(start, min(start + BLOCK, events)), reach)
    second = first + np.tile(np.arange(1, reach + 1), len(first) // reach)
    within = second < events
    return first[within], second[within]


def pair_bounds(gate: PairGate, kernel: DecayKernel, events: int, clip: float) -> NormBounds:
    """Build the bounds of the counts of users with at most `events` events that count; `clip` of 0: not clipped."""
    shapes = {PAIRS: torch.Size([len(gate)])}
    if clip:
        return NormBounds.clipped(shapes, clip)
    return NormBounds(shapes, 1 / UNIT, min(len(gate), events * kernel.reach) ** 0.5)


@dataclass(frozen=True, eq=False)
class PairWeights:
    """The weights of pairs that some counts give, for any weight of the texts."""

    gate: PairGate
    shrunken: Tensor  # (P,): counts pulled to the mean of their group
    prior: Tensor  # (P,): the square of the likeness, on the scale of a mean count

    @classmethod
    def of(cls, gate: PairGate, counts: Tensor, deviation: float) -> "PairWeights":
        """Shrink counts (P,) that have noise of a standard deviation in them."""
        return cls(gate, shrink(counts, gate.likeness, deviation), _text_prior(gate, counts))

    def table(self, prior: float) -> Tensor:
        """Return the weight of each item for each other one, with the texts weighted by `prior`: (N, N) float64."""
        return self.gate.table(self.shrunken + prior * self.prior)


def _text_prior(gate: PairGate, counts: Tensor) -> Tensor:
    scale = max(float(counts.mean()), SMALLEST_MEAN)
    return torch.from_numpy(gate.likeness) ** 2 * scale


def shrink(counts: Tensor, likeness: np.ndarray, deviation: float) -> Tensor:
    """Pull counts (P,) to the mean m of their group of like likeness: by V / (V + σ² + m), and to zero at least.

    V is the variance of the group less that of the noise, σ², and of chance, which for counts is m: the best linear
    estimate if counts are Poisson draws around rates of the variance V (empirical Bayes: Robbins 1956).
    """
    groups = max(1, min(GROUPS, len(counts) // 8))
    group = np.empty(len(counts), dtype=np.int64)
    group[np.argsort(likeness, kind="stable")] = np.arange(len(counts)) * groups // len(counts)
    values, sizes = counts.numpy(), np.bincount(group, minlength=groups)
    mean = np.maximum(np.bincount(group, values, groups) / sizes, SMALLEST_MEAN)
    spread = np.bincount(group, (values - mean[group]) ** 2, groups) / sizes
    noise = deviation**2 + mean
    signal = np.maximum(spread - noise, 0.0)
    kept = (signal / (signal + noise))[group]
    return torch.from_numpy(np.maximum(mean[group] + kept * (values - mean[group]), 0.0))
