"""The sums of the closed form: what a client's history adds to the ridge regression, exactly.

    gram = Σ_t x_t x_tᵀ  (M, M)        cross = Σ_t x_t ψ(i_t)ᵀ  (M, M')

for the contexts x_t of a history (contexts.py), and a target vector ψ(i_t) of the event that follows. Both add over
events and users, so that the sums of any partition of users over nodes are the same numbers: they are exact. Contexts
are rounded to whole multiples of a unit that is a power of two, at most 128 of it; features and targets likewise. A
product of two such numbers has at most 14 bits, so that float32 holds the sum of 1,024 of them exactly, and float64 the
sum of 2³⁹. Forgetting a user is a subtraction.
"""

from collections.abc import Iterable
from math import ceil, log2
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fedrec.data.shard import check_rows
from fedrec.recsys.closed_form.contexts import ContextBlock, DecayKernel

GRAM, CROSS = "gram", "cross"
Statistics = dict[str, Tensor]
"""`gram` (M, M) and `cross` (M, M'), float64."""

LEVELS = 128
"""The largest context or feature, in units."""
ROWS = 1024
"""Contexts in a product in float32: the sum of so many products of two levels is exact."""

LARGEST_IN_FLOAT32 = 128
"""The largest sum of a context's weights with which float32 holds the context exactly: 24 bits, less the 10 of a weight
and the 7 of a feature."""


class Accumulator(Protocol):
    """A running sum of the statistics of context blocks."""

    def add(self, block: ContextBlock) -> None:
        """Add the contexts of some events of a history."""
        ...

    def total(self) -> Statistics:
        """Return the sums so far."""
        ...


def sum_statistics(accumulator: Accumulator, kernel: DecayKernel, histories: Iterable[np.ndarray]) -> Statistics:
    """Sum the statistics of histories."""
    for history in histories:
        for block in kernel.blocks(history):
            accumulator.add(block)
    return accumulator.total()


def unit_of(largest: float) -> float:
    """Return the smallest power of two of which `LEVELS` reach `largest`."""
    return 2.0 ** ceil(log2(largest / LEVELS))


def round_to_units(values: Tensor, unit: float) -> Tensor:
    """Round to whole multiples of a unit, at most `LEVELS` of it: the multiples, as float32."""
    return (values / unit).round_().clamp_(-LEVELS, LEVELS).float()


class FeatureSums:
    """The sums over features: φ (N, M) for contexts and ψ (N, M') for targets, both in [-1, 1]."""

    def __init__(self, contexts: Tensor, targets: Tensor, kernel: DecayKernel) -> None:
        self._contexts, self._targets = contexts, targets
        self._context_unit, self._target_unit = unit_of(kernel.largest_sum), unit_of(1.0)
        self._rows: list[tuple[Tensor, Tensor]] = []
        self._waiting = 0
        self._precision = torch.float32 if kernel.largest_sum <= LARGEST_IN_FLOAT32 else torch.float64
        width = contexts.shape[1]
        self._gram = torch.zeros(width, width, dtype=torch.float64)
        self._cross = torch.zeros(width, targets.shape[1], dtype=torch.float64)

    def add(self, block: ContextBlock) -> None:
        """Add the contexts of some events of a history."""
        check_rows(block.events, len(self._contexts))
        check_rows(block.targets, len(self._targets))
        weights = torch.from_numpy(block.weights).to(self._precision)
        contexts = weights @ self._contexts[torch.from_numpy(block.events)].to(self._precision)  # (B, M), exact
        self._rows.append((round_to_units(contexts, self._context_unit), torch.from_numpy(block.targets)))
        self._waiting += len(block.targets)
        if self._waiting >= ROWS:
            self._flush()

    def total(self) -> Statistics:
        """Return the sums so far."""
        self._flush()
        unit = self._context_unit
        return {GRAM: self._gram * unit**2, CROSS: self._cross * (unit * self._target_unit)}

    def _flush(self) -> None:
        """Add the waiting contexts, in products of at most `ROWS`."""
        if not self._rows:
            return
        contexts = torch.cat([rows for rows, _ in self._rows])  # (n, M)
        items = torch.cat([items for _, items in self._rows])  # (n,)
        for rows, places in zip(contexts.split(ROWS), items.split(ROWS), strict=True):
            self._gram += rows.T @ rows
            self._cross += rows.T @ round_to_units(self._targets[places], self._target_unit)
        self._rows, self._waiting = [], 0


class ItemSums:
    """The sums over item ids: both feature maps are one-hot. No context is computed, only the pairs of its events."""

    def __init__(self, items: int) -> None:
        self._gram = np.zeros((items, items))
        self._cross = np.zeros((items, items))

    def add(self, block: ContextBlock) -> None:
        """Add the contexts of some events of a history."""
        events, targets = block.events, block.targets
        check_rows(events, len(self._gram))
        check_rows(targets, len(self._gram))
        np.add.at(self._gram, (events[:, None], events), block.weights.T @ block.weights)
        np.add.at(self._cross, (events[:, None], targets), block.weights.T)

    def total(self) -> Statistics:
        """Return the sums so far."""
        return {GRAM: torch.from_numpy(self._gram.copy()), CROSS: torch.from_numpy(self._cross.copy())}
