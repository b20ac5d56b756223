"""Counts of pairs of items with alike texts: the closed form's third kind of features, and the smallest of its sums.

The texts are public, so that everybody knows which pairs are counted: an item with each of its nearest neighbours by
text. A user adds to the count of a pair if both items are in the history, with a weight that falls with the number of
events between them. All other pairs of items, which are almost all, are not counted, and under differential privacy
need no noise.

A count becomes a weight by empirical Bayes: pairs are grouped by the likeness of their texts, and a count is pulled to
the mean of its group, the more, the more of its group's spread is noise and chance.
"""

from dataclasses import dataclass

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
EVENTS = 2**16
"""Events whose pairs are counted at a time."""
LIKENESS_UNIT = 2.0**20
"""Likenesses are multiples of 1 / `LIKENESS_UNIT`, so that two processors rank the neighbours of an item alike."""
GROUPS = 40
"""Groups of pairs by the likeness of their texts, at most."""
SMALLEST_MEAN = 1e-4
"""The smallest mean count of a group of pairs."""
LEAST_POPULARITY = 0.01
"""The smallest popularity of an item, as a share of the mean: of rarer ones it is mostly noise."""


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
    """The counts of pairs over some histories; each history's are clipped, if there are bounds to clip to.

    Histories wait, and are counted together. A history adds the same numbers in any company.
    """

    def __init__(self, gate: PairGate, kernel: DecayKernel, clipped: NormBounds | None) -> None:
        self._gate, self._weights, self._clipped = gate, kernel.weights, clipped
        self._counts = np.zeros(len(gate))
        self._waiting: list[np.ndarray] = []
        self._events = 0

    def add(self, history: np.ndarray) -> None:
        """Add a history of rows, oldest first."""
        check_rows(history, self._gate.items)
        self._waiting.append(history)
        self._events += len(history)
        if self._events >= EVENTS:
            self._flush()

    def total(self) -> Statistics:
        """Return the counts so far."""
        self._flush()
        return {PAIRS: torch.from_numpy(self._counts)}

    def _flush(self) -> None:
        """Count the pairs of the waiting histories."""
        if not self._waiting:
            return
        owners, places, weights = self._closest()
        if self._clipped:
            lengths = np.sqrt(np.bincount(owners, weights**2, len(self._waiting)))
            factors = self._clipped.factors(lengths)[owners]
            weights = np.trunc(weights * factors / self._clipped.unit) * self._clipped.unit
        self._counts += np.bincount(places, weights, len(self._gate))
        self._waiting, self._events = [], 0

    def _closest(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the counted pairs of each waiting history, each once, with the weight at which it is closest.

        They are histories, places of pairs, and weights: (p,) each, in the order of histories and places.
        """
        lengths = np.array([len(history) for history in self._waiting])
        items = np.concatenate(self._waiting).astype(np.int64)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        found = [np.zeros((2, 0), dtype=np.int64)]
        for distance in range(1, min(len(self._weights), int(lengths.max()) - 1) + 1):
            first = np.flatnonzero((owner[distance:] == owner[:-distance]) & (items[distance:] != items[:-distance]))
            places = self._gate.find(items[first], items[first + distance])
            keys = owner[first] * len(self._gate) + places
            found.append(np.stack([keys, np.full_like(keys, distance)])[:, places >= 0])
        keys, distances = np.concatenate(found, axis=1)
        keys, closest = np.unique(keys, return_index=True)  # the first of a pair is its closest
        return keys // len(self._gate), keys % len(self._gate), self._weights[distances[closest] - 1]


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

    def table(self, prior: float, discount: float = 0.0) -> Tensor:
        """Return the weight of each item for each other one, with the texts weighted by `prior`: (N, N) float64.

        A pair's weight is divided by the `discount`-th power of the popularity of both items, which the sums of their
        weights tell.
        """
        table = self.gate.table(self.shrunken + prior * self.prior)
        if not discount:
            return table
        popularity = table.sum(1)
        least = max(LEAST_POPULARITY * float(popularity.mean()), torch.finfo(table.dtype).tiny)
        scales = popularity.clamp(min=least) ** -discount
        return table * scales * scales.unsqueeze(1)


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
