"""The solution of the closed form: from sums to weights, and from weights to vectors of items.

    W = (G + (λ + κ)I)⁻¹ (R + κC)        score of item i for a context x: xᵀ W D ψ(i),  D = (ΨᵀΨ + μI)⁻¹

for the sums G (M, M) and R (M, M'), the target vectors Ψ (N, M') of all items, a ridge λ, and a ridge μ of the
decoding: D ψ(i) are the weights by which target vectors are told apart best. One-hot targets need no decoding. With
κ above 0, W is pulled towards the weights C (M, M').
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedrec.recsys.closed_form.statistics import CROSS, GRAM, Statistics

BLOCK = 4096
"""Items whose target vectors are multiplied at a time."""


@dataclass(frozen=True, eq=False)
class RidgePath:
    """The solutions of a ridge regression for all λ and κ, from one eigendecomposition of the Gram matrix."""

    eigenvalues: Tensor  # (M,)
    vectors: Tensor  # (M, M)
    projected: Tensor  # (M, M'): vectorsᵀ R
    absent: Tensor  # (M,) bool: features that no context has
    prior: Tensor | None = None  # (M, M'): vectorsᵀ C

    @classmethod
    def of(cls, statistics: Statistics, prior: Tensor | None = None) -> "RidgePath":
        """Decompose the sums of some users; `prior` are the weights C.

        C may be of one block of features, (M / K, M'), of K that stand one after the other: each block is pulled
        towards C / K, so that the sum of the blocks is pulled towards C.
        """
        eigenvalues, vectors = torch.linalg.eigh(statistics[GRAM])
        absent = statistics[GRAM].diagonal() == 0
        path = cls(eigenvalues.clamp(min=0), vectors, vectors.T @ statistics[CROSS], absent)
        if prior is None:
            return path
        return replace(path, prior=vectors.unflatten(0, (-1, len(prior))).mean(0).T @ prior)

    def weights(self, ridge: float, pull: float = 0.0) -> Tensor:
        """Solve for one λ and κ: (M, M') float64. Only with a prior can κ be above 0.

        Without a pull, a feature that no context has gets zeros, which rounding would blur.
        """
        weights = self.vectors @ (self._pulled(pull) / (self.eigenvalues + ridge + pull).unsqueeze(1))
        return weights if pull else weights.masked_fill(self.absent.unsqueeze(1), 0.0)

    def roots(self, ridge: float, pull: float = 0.0) -> Tensor:
        """Return LᵀW for the weights W of one λ and κ, and LLᵀ = G + (λ + κ)I, but for a rotation: (M, M') float64.

        The length of a column is that of its target's scores of all contexts, the penalty counted as contexts.
        """
        return self._pulled(pull) / (self.eigenvalues + ridge + pull).sqrt().unsqueeze(1)

    def _pulled(self, pull: float) -> Tensor:
        if not pull:
            return self.projected
        assert self.prior is not None, "there are no weights to pull towards"
        return self.projected + pull * self.prior


def positive_part(gram: Tensor) -> Tensor:
    """Return the nearest matrix without an eigenvalue below zero: (M, M) → (M, M) float64 (Higham 1988)."""
    eigenvalues, vectors = torch.linalg.eigh(gram.double())
    return (vectors * eigenvalues.clamp(min=0)) @ vectors.T


def item_popularity(gram: Tensor, items: int) -> Tensor:
    """Compute how often each item is an event of a context, by its squared weights: (N,), at least 1.

    `gram` is that of one-hot features, of which the first N = `items` belong to the first decay.
    """
    return gram.diagonal()[:items].clamp(min=1)


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
