"""The solution of the closed form: from sums to weights, and from weights to vectors of items.

    W = (G + λI)⁻¹ R        score of item i for a context x: xᵀ W D ψ(i),  D = (ΨᵀΨ + μI)⁻¹

for the sums G (M, M) and R (M, M'), the target vectors Ψ (N, M') of all items, a ridge λ, and a ridge μ of the
decoding: D ψ(i) are the weights by which target vectors are told apart best. One-hot targets need no decoding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedrec.recsys.closed_form.fusion import exact_covariance
from fedrec.recsys.closed_form.statistics import CROSS, GRAM, Statistics

BLOCK = 4096
"""Items whose target vectors are multiplied at a time."""

RANK_TOLERANCE = 1e-12
"""The smallest square of a singular value, relative to the largest, that is not taken for rounding."""


@dataclass(frozen=True, eq=False)
class RidgePath:
    """The solutions of a ridge regression for all λ, from one eigendecomposition of the Gram matrix."""

    eigenvalues: Tensor  # (M,)
    vectors: Tensor  # (M, M)
    projected: Tensor  # (M, M'): vectorsᵀ R

    @classmethod
    def of(cls, statistics: Statistics) -> "RidgePath":
        """Decompose the sums of some users."""
        eigenvalues, vectors = torch.linalg.eigh(statistics[GRAM])
        return cls(eigenvalues.clamp(min=0), vectors, vectors.T @ statistics[CROSS])

    def weights(self, ridge: float) -> Tensor:
        """Solve for one λ: (M, M') float64."""
        return self.vectors @ (self.projected / (self.eigenvalues + ridge).unsqueeze(1))


def target_gram(targets: Tensor, rows: Tensor) -> Tensor:
    """Compute ΨᵀΨ for some rows (n,) of the target vectors Ψ (N, M') of a catalogue, in blocks: (M', M') float64."""
    gram = torch.zeros(targets.shape[1], targets.shape[1], dtype=torch.float64)
    for part in rows.split(BLOCK):
        vectors = targets[part].double()
        gram += vectors.T @ vectors
    return gram


def decoding(gram: Tensor, ridge: float) -> Tensor:
    """Compute D = (ΨᵀΨ + μI)⁻¹ from ΨᵀΨ: (M', M') float64."""
    penalised = gram + ridge * torch.eye(len(gram), dtype=gram.dtype)
    return torch.cholesky_inverse(torch.linalg.cholesky(penalised))


def low_rank(weights: Tensor, gram: Tensor, targets: Tensor | None, rank: int) -> tuple[Tensor, Tensor]:
    """Factor weights W (M, M') into A (M, r) and B (M', r), r ≤ `rank`, whose product scores almost as W does.

    The factors minimise the squared error of the scores, less their mean over the items, which does not change an
    order: Σ_x Σ_i (xᵀ (W - A Bᵀ) (ψ_i - ψ̄))² over the contexts x of a Gram matrix (M, M) and the target vectors ψ_i of
    `targets` (N, M'); None: one-hot. It is the truncated SVD (Eckart and Young 1936, doi:10.1007/BF02288367) of
    G^½ W C^½, for the covariance C of the targets. Both factors are float64; r is smaller if W has a smaller rank.
    """
    root = _root_of_covariance(targets, weights.shape[1])
    seen = weights.T @ gram.double() @ weights  # (M', M'): WᵀGW
    squares, right = torch.linalg.eigh(root @ seen @ root)  # of the singular values, rising
    kept = squares > squares[-1] * RANK_TOLERANCE
    squares, right = squares[kept][-rank:].flip(0), root @ right[:, kept][:, -rank:].flip(1)
    return weights @ right / squares**0.25, seen @ right / squares**0.75


def _root_of_covariance(targets: Tensor | None, width: int) -> Tensor:
    """Compute the symmetric root of the covariance of target vectors (N, M'): (M', M') float64."""
    if targets is None:  # one-hot: the covariance is a projection, its own root, but for a factor
        return torch.eye(width, dtype=torch.float64) - 1 / width
    variances, components = torch.linalg.eigh(exact_covariance(targets))
    return components * variances.clamp(min=0).sqrt() @ components.T
