"""The solution of the closed form: from sums to weights, and from weights to vectors of items.

    W = (G + λI)⁻¹ R        score of item i for a context x: xᵀ W D ψ(i),  D = (ΨᵀΨ + μI)⁻¹

for the sums G (M, M) and R (M, M'), the target vectors Ψ (N, M') of all items, a ridge λ, and a ridge μ of the
decoding: D ψ(i) are the weights by which target vectors are told apart best. One-hot targets need no decoding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedrec.recsys.closed_form.statistics import CROSS, GRAM, Statistics

BLOCK = 4096
"""Items whose target vectors are multiplied at a time."""


@dataclass(frozen=True, eq=False)
class RidgePath:
    """The solutions of a ridge regression for all λ, from one eigendecomposition of the Gram matrix."""

    eigenvalues: Tensor  # (M,)
    vectors: Tensor  # (M, M)
    projected: Tensor  # (M, M'): vectorsᵀ R
    absent: Tensor  # (M,) bool: features that no context has

    @classmethod
    def of(cls, statistics: Statistics) -> "RidgePath":
        """Decompose the sums of some users."""
        eigenvalues, vectors = torch.linalg.eigh(statistics[GRAM])
        absent = statistics[GRAM].diagonal() == 0
        return cls(eigenvalues.clamp(min=0), vectors, vectors.T @ statistics[CROSS], absent)

    def weights(self, ridge: float) -> Tensor:
        """Solve for one λ: (M, M') float64. A feature that no context has gets zeros, which rounding would blur."""
        weights = self.vectors @ (self.projected / (self.eigenvalues + ridge).unsqueeze(1))
        return weights.masked_fill(self.absent.unsqueeze(1), 0.0)


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
