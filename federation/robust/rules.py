"""Robust rules: centres of the answers' mean changes that a minority of false answers cannot move far.

An answer is an update: the sum of the clipped changes of its users, whose mean is that sum over its `learners`. Each
answer has one vote, however many users it stands for; one without a learner has none. Shapes: A answers that vote, P
numbers of the adapter.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Self

import torch
from torch import Tensor

from fedrec.federation.messages import Update
from fedrec.recsys.model.lora import Adapter

Centre = Callable[[Tensor, int], Tensor]
"""A function of the answers' mean changes and of the number of false answers that it allows for: (A, P), f → (P,)."""

SMOOTHING = 1e-6
"""The least distance in a weight of the geometric median: ν in the paper."""
PASSES, TOLERANCE = 100, 1e-9
"""Passes of Weiszfeld's algorithm, at most, and the relative gain below which it stops."""

logger = logging.getLogger("fedrec")


def coordinate_median(means: Tensor, liars: int) -> Tensor:
    """Compute the median of each number; of an even number of answers, the mean of the two in the middle.

    Yin et al. 2018, arXiv:1803.01498, definition 1. It withstands any minority of false answers.
    """
    ordered, half = means.sort(dim=0).values, len(means) // 2
    return ordered[half] if len(means) % 2 else (ordered[half - 1] + ordered[half]) / 2


def trimmed_mean(means: Tensor, liars: int) -> Tensor:
    """Compute the mean of each number without its `liars` largest and its `liars` smallest values.

    Yin et al. 2018, arXiv:1803.01498, definition 2.
    """
    return means.sort(dim=0).values[liars : len(means) - liars].mean(0)


def geometric_median(means: Tensor, liars: int) -> Tensor:
    """Compute the point with the smallest sum of distances to the answers, by the smoothed Weiszfeld algorithm.

    Pillutla et al. 2022, arXiv:1912.13445, algorithm 2, with one weight for all answers. It withstands any minority of
    false answers, and needs no guess of their number.
    """
    centre, before = means.mean(0), math.inf
    for _ in range(PASSES):
        distances = torch.linalg.vector_norm(means - centre, dim=1).clamp(min=SMOOTHING)
        if before - (now := float(distances.sum())) <= TOLERANCE * now:
            break
        weights, before = 1 / distances, now
        centre = weights @ means / weights.sum()
    return centre


def multi_krum(means: Tensor, liars: int) -> Tensor:
    """Compute the mean of the n - f - 2 answers (f liars among n) that are nearest to their n - f - 2 neighbours.

    Blanchard et al. 2017, "Machine learning with adversaries"; the number that is kept is that of the proof of El
    Mhamdi et al. 2018, arXiv:1802.07927. Of fewer than three answers the mean is taken.
    """
    near = len(means) - liars - 2
    if near < 1:
        return means.mean(0)
    squares = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist").square()
    scores = squares.sort(dim=1).values[:, 1 : near + 1].sum(1)  # the first is the distance to itself
    return means[scores.argsort(stable=True)[:near]].mean(0)


@dataclass(frozen=True)
class CentreRule:
    """An aggregation rule that replaces the mean over users by a centre of the answers' means.

    The centre is multiplied by the total of `learners`, since the server divides by it: the rule returns a sum over
    users whose mean is the centre. Losses and counts are added as they are: they are reported, and move nothing.
    """

    centre: Centre
    per_liar: int = 2
    """Answers that the rule needs for each that may be false, beside `beside`."""
    beside: int = 1

    def __call__(self, updates: Sequence[Update], liars: float) -> Update:
        """Combine at least one update of a round, of which a share `liars` may be false."""
        total = reduce(add, updates)
        voting = [update for update in updates if update.sums["learners"]]
        if not voting:
            return total
        table = _Layout.of(total.deltas)
        means = torch.stack([table.flatten(update.deltas) / update.sums["learners"] for update in voting])
        centre = self.centre(means, self._count_liars(len(voting), liars, total.round))
        return replace(total, deltas=table.split(centre * total.sums["learners"]), codes=None)

    def _count_liars(self, answers: int, share: float, round: int) -> int:
        """Count the false answers that the rule allows for: the share, rounded up, or as many as it can bear."""
        assumed, borne = math.ceil(share * answers - 1e-9), max(0, (answers - self.beside) // self.per_liar)
        if assumed > borne:
            logger.warning(
                "round %s: %s answers bear %s false ones, not the %s of liars = %g; use more nodes or groups",
                *(round, answers, borne, assumed, share),
            )
        return min(assumed, borne)


def bound_norms(updates: Sequence[Update], liars: float) -> Update:
    """Scale each answer down until its mean change is no longer than the median of them, and add the answers.

    The absolute bound, the clip, is checked before (federation/validate_update.py). An answer that is a mean over many
    users is shorter than one user's, so that this rule needs answers that stand for like numbers of users. It bounds
    the length of a lie and not its direction (Sun et al. 2019, arXiv:1911.07963).
    """
    total = reduce(add, updates)
    voting = [update for update in updates if update.sums["learners"]]
    if not voting:
        return total
    lengths = torch.stack([_length(update.deltas) / update.sums["learners"] for update in voting])
    factors = (coordinate_median(lengths, 0) / lengths.clamp(min=torch.finfo(lengths.dtype).tiny)).clamp(max=1)
    scaled = [
        replace(update, deltas={name: tensor * factor for name, tensor in update.deltas.items()})
        for update, factor in zip(voting, factors, strict=True)
    ]
    return replace(total, deltas=reduce(add, scaled).deltas, codes=None)


def _length(deltas: Adapter) -> Tensor:
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(tensor) for tensor in deltas.values()]))


@dataclass(frozen=True)
class _Layout:
    """The order of an adapter's tensors in one vector."""

    shapes: dict[str, torch.Size]

    @classmethod
    def of(cls, deltas: Adapter) -> Self:
        return cls({name: tensor.shape for name, tensor in deltas.items()})

    def flatten(self, deltas: Adapter) -> Tensor:
        return torch.cat([deltas[name].flatten() for name in self.shapes])

    def split(self, vector: Tensor) -> Adapter:
        parts = vector.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
