"""The towers and the closed form in one vector space: the dot product of two vectors is the sum of their z-scores.

A user's scores s = V u of all items, by item vectors V (N, E), have the variance uᵀ C u over the catalogue, for the
covariance C (E, E) of the item vectors. So a half of the user vector that is divided by that standard deviation scores
in z-scores, less a constant that does not change the order of items, and a device can compute it without the items.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 4096
"""Items whose vectors are multiplied at a time."""


def covariance(vectors: Tensor) -> Tensor:
    """Compute the covariance of item vectors over a catalogue, in blocks: (N, E) → (E, E)."""
    mean = vectors.mean(0, dtype=torch.float64)
    total = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for part in vectors.split(BLOCK):
        centred = part.double() - mean
        total += centred.T @ centred
    return (total / len(vectors)).float()


def standardise(users: Tensor, spread: Tensor) -> Tensor:
    """Divide user vectors by the standard deviation of their scores: (B, E), (E, E) → (B, E); zeros stay zeros."""
    variances = ((users @ spread) * users).sum(-1, keepdim=True)
    return users / variances.sqrt().clamp(min=torch.finfo(users.dtype).tiny)


@dataclass(frozen=True, eq=False)
class Fusion:
    """A weighted sum of z-scores: 1 - `share` of the towers', and `share` of the closed form's."""

    share: float  # in [0, 1]
    towers: Tensor  # (E, E) covariance of the towers' item vectors
    closed_form: Tensor  # (r, r) covariance of the candidate vectors

    def user_vectors(self, towers: Tensor, closed_form: Tensor) -> Tensor:
        """Join the user vectors of both: (B, E), (B, r) → (B, E + r)."""
        halves = standardise(towers, self.towers) * (1 - self.share), standardise(closed_form, self.closed_form)
        return torch.cat([halves[0], halves[1] * self.share], dim=-1)


def item_vectors(towers: Tensor, candidates: Tensor) -> Tensor:
    """Join the item vectors of both: (N, E), (N, r) → (N, E + r)."""
    return torch.cat([towers, candidates], dim=-1)
