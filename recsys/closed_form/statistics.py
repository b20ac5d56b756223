"""The sums of the closed form: what a client's history adds to the ridge regression, exactly.

    gram = Σ_t x_t x_tᵀ  (M, M)        cross = Σ_t x_t ψ(i_t)ᵀ  (M, M')

for the contexts x_t of a history (contexts.py), and a target vector ψ(i_t) of the event that follows. A stack of K
decays has K contexts in x_t: the sums are (KM, KM) and (KM, M'). Both add over events and users, so that the sums of
any partition of users over nodes are the same numbers: they are exact. Contexts are rounded to whole multiples of a
unit that is a power of two, one for each decay, at most 128 of it; features and targets likewise. A product of two such
numbers has at most 14 bits, so that float32 holds the sum of 1,024 of them exactly, and float64 the sum of 2³⁹.
Forgetting a user is a subtraction.
"""

from collections.abc import Iterable
from itertools import product
from math import ceil, log2
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fedrec.data.shard import check_rows
from fedrec.recsys.closed_form.contexts import ContextBlock, KernelStack

GRAM, CROSS = "gram", "cross"
Statistics = dict[str, Tensor]
"""`gram` (KM, KM) and `cross` (KM, M'), float64."""
Pairs = tuple[np.ndarray, np.ndarray]

LEVELS = 128
"""The largest context or feature, in units."""
PAIRED = 2**17
"""Events whose pairs are added at a time."""
ROWS = 1024
"""Contexts in a product in float32: the sum of so many products of two levels is exact."""

LARGEST_IN_FLOAT32 = 128
"""The largest sum of a context's weights with which float32 holds the context exactly: 24 bits, less the 10 of a weight
and the 7 of a feature."""


class Accumulator(Protocol):
    """A running sum of the statistics of histories."""

    def add(self, history: np.ndarray) -> None:
        """Add a history of rows, oldest first."""
        ...

    def total(self) -> Statistics:
        """Return the sums so far."""
        ...


def sum_statistics(accumulator: Accumulator, histories: Iterable[np.ndarray]) -> Statistics:
    """Sum the statistics of histories."""
    for history in histories:
        accumulator.add(history)
    return accumulator.total()


def unit_of(largest: float) -> float:
    """Return the smallest power of two of which `LEVELS` reach `largest`."""
    return 2.0 ** ceil(log2(largest / LEVELS))


def round_to_units(values: Tensor, unit: float) -> Tensor:
    """Round to whole multiples of a unit, at most `LEVELS` of it: the multiples, as float32."""
    return (values / unit).round_().clamp_(-LEVELS, LEVELS).float()


def per_feature(values: Iterable[float], width: int) -> Tensor:
    """Repeat a value of each of K kernels for each of M = `width` features: (KM,) float64."""
    return torch.tensor(list(values), dtype=torch.float64).repeat_interleave(width)


class FeatureSums:
    """The sums over features: φ (N, M) for contexts and ψ (N, M') for targets, both in [-1, 1]."""

    def __init__(self, contexts: Tensor, targets: Tensor, stack: KernelStack) -> None:
        self._contexts, self._targets, self._stack = contexts, targets, stack
        self._largest, self._target_unit = [kernel.largest_sum for kernel in stack.kernels], unit_of(1.0)
        self._rows: list[tuple[Tensor, Tensor]] = []
        self._waiting = 0
        width = len(stack) * contexts.shape[1]
        self._gram = torch.zeros(width, width, dtype=torch.float64)
        self._cross = torch.zeros(width, targets.shape[1], dtype=torch.float64)

    def add(self, history: np.ndarray) -> None:
        """Add a history of rows, oldest first."""
        check_rows(history, len(self._contexts))
        for blocks in self._stack.blocks(history):
            parts = [self._weigh(block, largest) for block, largest in zip(blocks, self._largest, strict=True)]
            targets = blocks[0].targets
            self._rows.append((torch.cat(parts, dim=1), torch.from_numpy(targets)))
            self._waiting += len(targets)
            if self._waiting >= ROWS:
                self._flush()

    def _weigh(self, block: ContextBlock, largest: float) -> Tensor:
        """Compute the contexts of a block, whose weights sum up to `largest` at most, in units: (B, M) float32."""
        precision = torch.float32 if largest <= LARGEST_IN_FLOAT32 else torch.float64
        events = self._contexts[torch.from_numpy(block.events)].to(precision)
        return round_to_units(torch.from_numpy(block.weights).to(precision) @ events, unit_of(largest))  # of exact sums

    def total(self) -> Statistics:
        """Return the sums so far."""
        self._flush()
        units = per_feature(map(unit_of, self._largest), self._contexts.shape[1])
        return {GRAM: self._gram * units.outer(units), CROSS: self._cross * (units * self._target_unit).unsqueeze(1)}

    def _flush(self) -> None:
        """Add the waiting contexts, in products of at most `ROWS`."""
        if not self._rows:
            return
        contexts = torch.cat([rows for rows, _ in self._rows])  # (n, KM)
        items = torch.cat([items for _, items in self._rows])  # (n,)
        for rows, places in zip(contexts.split(ROWS), items.split(ROWS), strict=True):
            self._gram += rows.T @ rows
            self._cross += rows.T @ round_to_units(self._targets[places], self._target_unit)
        self._rows, self._waiting = [], 0


class ItemSums:
    """The sums over item ids: both feature maps are one-hot.

    No context is computed. Two events of a history at a distance of d add the same to every entry of `cross`, and to
    `gram` an amount that depends on d and on the ends of the history alone, so that all pairs of one distance are
    added at once.
    """

    def __init__(self, items: int, stack: KernelStack) -> None:
        width = len(stack) * items
        self._gram, self._cross = np.zeros((width, width)), np.zeros((width, items))
        self._items, self._by_offset, self._first = items, stack.by_offset, stack.first
        self._waiting: list[np.ndarray] = []
        self._events = 0

    def add(self, history: np.ndarray) -> None:
        """Add a history of rows, oldest first."""
        check_rows(history, self._items)
        self._waiting.append(history)
        self._events += len(history)
        if self._events >= PAIRED:
            self._flush()

    def total(self) -> Statistics:
        """Return the sums so far."""
        self._flush()
        return {GRAM: torch.from_numpy(self._gram), CROSS: torch.from_numpy(self._cross)}

    def _flush(self) -> None:
        """Add the pairs of events of the waiting histories, distance by distance."""
        if not self._waiting:
            return
        lengths = np.array([len(history) for history in self._waiting])
        items = np.concatenate(self._waiting).astype(np.int64)
        before = np.arange(len(items)) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # events before this one
        after = np.repeat(lengths, lengths) - 1 - before
        reach, kernels = self._by_offset.shape[1] // 2, range(len(self._by_offset))
        for distance in range(min(2 * reach, lengths.max() - 1) + 1):
            early = np.flatnonzero(after >= distance)
            pairs = items[early], items[early + distance]
            targets = np.maximum(self._first - before[early], -reach), np.minimum(after[early], reach)
            for two in product(kernels, kernels):
                self._add_to_gram(distance, pairs, targets, two)
            if 0 < distance <= reach:
                self._add_to_cross(distance, pairs)
        self._waiting, self._events = [], 0

    def _add_to_gram(self, distance: int, pairs: Pairs, targets: Pairs, kernels: tuple[int, int]) -> None:
        """Add pairs of events that are in the contexts of the targets at some offsets after the first event.

        The offsets are from `targets[0]` to `targets[1]` of each pair, both included. The first event of a pair weighs
        by the first of two kernels, and the second by the second.
        """
        early, offsets = self._by_offset[kernels[0]], self._by_offset.shape[1]
        later = np.concatenate([np.zeros(distance), self._by_offset[kernels[1]]])[:offsets]
        sums, reach = np.concatenate([[0.0], np.cumsum(early * later)]), offsets // 2  # over the targets before each
        if not sums[-1]:
            return
        weights = sums[targets[1] + reach + 1] - sums[targets[0] + reach]
        there = weights > 0
        first, second = (self._items * kernel + items[there] for kernel, items in zip(kernels, pairs, strict=True))
        _scatter(self._gram, first, second, weights[there])
        if distance:
            _scatter(self._gram, second, first, weights[there])

    def _add_to_cross(self, distance: int, pairs: Pairs) -> None:
        """Add pairs of an event and a target, in both orders."""
        reach = self._by_offset.shape[1] // 2
        for kernel, weights in enumerate(self._by_offset):
            for offset, (event, target) in ((distance, pairs), (-distance, pairs[::-1])):
                if weight := weights[reach + offset]:
                    _scatter(self._cross, self._items * kernel + event, target, np.full(len(event), weight))


def _scatter(table: np.ndarray, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
    """Add values to entries of a table, in place; an entry may be named more than once."""
    np.add.at(table.reshape(-1), rows * table.shape[1] + columns, values)
