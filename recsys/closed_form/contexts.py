"""Decayed contexts of a history: what the closed form reads before each event.

The context before event t is x_t = Σ_s w(t - 1 - s) φ(i_s) over the events s < t, for a feature vector φ(i) of each
item. The weight w(a) = γᵃ of an event falls with its age a. With `reverse` = ρ > 0 the events after t count too, as
ρ Σ_s w(s - t - 1) φ(i_s) over s > t: a history read from both sides, as in item-item models without an order. A user
is always scored by the past alone.

A stack of K decays has K contexts of each event, one after the other in one vector: recent events and the taste behind
them weigh in one regression.

Weights are rounded to multiples of 2⁻¹⁰, so that an event counts for a bounded time (the reach), and every sum of
weighted features on a grid is exact, on any machine and in any order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

UNIT = 2.0**10
"""Weights are multiples of 1 / UNIT."""

BLOCK = 128
"""Events whose contexts are computed at a time: few, since most weights between them and the events around are 0."""


class ContextBlock(NamedTuple):
    """The contexts of some consecutive events of one history: row t of `weights` holds the weights of `events`."""

    weights: np.ndarray  # (B, E) float64, multiples of 1 / UNIT
    events: np.ndarray  # (E,) items that the contexts read
    targets: np.ndarray  # (B,) items that the contexts come before


@dataclass(frozen=True)
class DecayKernel:
    """The weight of an event in a context, by its age."""

    decay: float  # γ, in [0, 1)
    reverse: float = 0.0  # ρ, of the events after the target

    @cached_property
    def weights(self) -> np.ndarray:
        """The weights by age 0, 1, …, as far as they are above 0: (reach,)."""
        ages = np.arange(1 + int(np.log(1 / (2 * UNIT)) / np.log(self.decay)) if self.decay else 1)
        return np.round(np.power(self.decay, ages) * UNIT) / UNIT

    @property
    def reach(self) -> int:
        """The number of events before a target that count."""
        return len(self.weights)

    @cached_property
    def by_offset(self) -> np.ndarray:
        """The weights of an event by its distance before a target, from -reach to reach: 0 at distance 0."""
        after = np.round(self.reverse * UNIT * self.weights) / UNIT
        return np.concatenate([after[::-1], [0.0], self.weights])

    @property
    def first(self) -> int:
        """The place of the first event of a history that has a context; without a look ahead, the first has none."""
        return 0 if self.reverse else 1

    @property
    def largest_sum(self) -> float:
        """The largest sum of the weights of a context."""
        return float(self.weights.sum()) * (1 + self.reverse)

    def blocks(self, history: np.ndarray) -> Iterator[ContextBlock]:
        """Iterate over the contexts of all events of a history that have one, in blocks."""
        for start in range(self.first, len(history), BLOCK):
            end = min(start + BLOCK, len(history))
            low, high = max(0, start - self.reach), min(len(history), end + self.reach) if self.reverse else end - 1
            if high > low and len(history) > 1:
                weights = self._weights_between(np.arange(start, end), np.arange(low, high))
                yield ContextBlock(weights, history[low:high], history[start:end])

    def weigh_history(self, events: int) -> np.ndarray:
        """Return the weights of a whole history's events, oldest first, for the context after the last one: (T,)."""
        weights = np.zeros(events)
        known = min(events, self.reach)
        weights[events - known :] = self.weights[:known][::-1]
        return weights

    def _weights_between(self, targets: np.ndarray, events: np.ndarray) -> np.ndarray:
        """Return the weights of events at some places in the contexts of targets at others: (B,), (E,) → (B, E)."""
        offsets = targets[:, None] - events
        near = np.abs(offsets) <= self.reach
        return np.where(near, self.by_offset[np.where(near, offsets + self.reach, self.reach)], 0.0)


@dataclass(frozen=True)
class KernelStack:
    """The kernels of a stacked context [x_t of the first decay; x_t of the second; …], one after the other."""

    decays: tuple[float, ...]  # γ of each, in [0, 1)
    reverse: float = 0.0  # ρ, of all

    @cached_property
    def kernels(self) -> tuple[DecayKernel, ...]:
        """A kernel of each decay."""
        return tuple(DecayKernel(decay, self.reverse) for decay in self.decays)

    def __len__(self) -> int:
        """Count the kernels: K."""
        return len(self.decays)

    @property
    def reach(self) -> int:
        """The number of events before a target that count for any kernel."""
        return max(kernel.reach for kernel in self.kernels)

    @property
    def first(self) -> int:
        """The place of the first event of a history that has a context."""
        return self.kernels[0].first

    @cached_property
    def by_offset(self) -> np.ndarray:
        """Each kernel's weights of an event by its distance before a target: (K, 2 reach + 1), from -reach to reach."""
        return np.stack([np.pad(kernel.by_offset, self.reach - kernel.reach) for kernel in self.kernels])

    def blocks(self, history: np.ndarray) -> Iterator[tuple[ContextBlock, ...]]:
        """Iterate over the contexts of all events of a history that have one: blocks of the same targets, by kernel."""
        return zip(*(kernel.blocks(history) for kernel in self.kernels), strict=True)
