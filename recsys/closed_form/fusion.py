"""The towers and the closed form in one vector space: the dot product of two vectors is the sum of their z-scores.

A user's scores s = V u of all items, by item vectors V (N, E), have the variance uᵀ C u over the catalogue, for the
covariance C (E, E) of the item vectors. So a half of the user vector that is divided by that standard deviation scores
in z-scores, less a constant that does not change the order of items, and a device can compute it without the items.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 4096
"""Items whose vectors are multiplied at a time."""

ROWS = 8
"""Rows of a product over users."""


def exact_covariance(vectors: Tensor, block: int = BLOCK) -> Tensor:
    """Compute the covariance of item vectors over a catalogue, in blocks of items: (N, E) → (E, E) float64."""
    mean = vectors.mean(0, dtype=torch.float64)
    total = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for part in vectors.split(block):
        centred = part.double() - mean
        total += centred.T @ centred
    return total / len(vectors)


def covariance(vectors: Tensor) -> Tensor:
    """Compute the covariance of item vectors over a catalogue: (N, E) → (E, E)."""
    return exact_covariance(vectors).float()


def standardise(users: Tensor, spread: Tensor) -> Tensor:
    """Divide user vectors by the standard deviation of their scores: (B, E), (E, E) → (B, E); zeros stay zeros.

    All products have `ROWS` rows: within one thread, a user gets the same vector, to the bit, in any batch.
    """
    variances = torch.cat([_variances(some, spread) for some in users.split(ROWS)])
    return users / variances.sqrt().clamp(min=torch.finfo(users.dtype).tiny).unsqueeze(1)


def _variances(users: Tensor, spread: Tensor) -> Tensor:
    """Compute the variances of the scores of at most `ROWS` user vectors: (b, E), (E, E) → (b,)."""
    rows = F.pad(users, (0, 0, 0, ROWS - len(users)))
    return ((rows @ spread) * rows).sum(-1)[: len(users)]


Encoder = Callable[[Sequence[np.ndarray]], Tensor]
"""A function of B histories that returns the towers' user vectors: (B, E)."""


@dataclass(frozen=True, eq=False)
class Fusion:
    """A weighted sum of z-scores: 1 - `share` of the towers', and `share` of the closed form's."""

    share: float  # in [0, 1]
    towers: Tensor  # (E, E) covariance of the towers' item vectors
    closed_form: Tensor  # (r, r) covariance of the candidate vectors

    @classmethod
    def over(cls, share: float, towers: Tensor, candidates: Tensor) -> "Fusion":
        """Fuse the scores over a catalogue: its item vectors (N, E) and candidate vectors (N, r)."""
        return cls(share, covariance(towers), covariance(candidates))

    def join_users(self, encode: Encoder, histories: Sequence[np.ndarray], closed_form: Tensor) -> Tensor:
        """Join the closed form's user vectors of histories with the towers', as `user_vectors`: (B, r) → (B, E + r).

        The towers encode only histories for which their scores count.
        """
        known, towers = closed_form.any(-1), torch.zeros(len(histories), len(self.towers))
        users = torch.arange(len(histories)) if self.share < 1 else (~known).nonzero().squeeze(1)
        if len(users):
            towers[users] = encode([histories[user] for user in users.tolist()]).to(towers.device)
        return self.user_vectors(towers, closed_form)

    def user_vectors(self, towers: Tensor, closed_form: Tensor) -> Tensor:
        """Join the user vectors of both: (B, E), (B, r) → (B, E + r).

        The towers score alone if the closed form knows no event of the history: its user vector is zeros.
        """
        known = closed_form.any(-1, keepdim=True)
        share = self.share * known
        halves = standardise(towers, self.towers) * (1 - share), standardise(closed_form, self.closed_form) * share
        return torch.cat(halves, dim=-1)
