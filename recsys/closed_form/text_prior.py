"""Weights between items that their texts give: what weights from events can be pulled towards.

They are EASE's (Steck 2019, arXiv:1905.03375) with the directions of whitened embeddings in place of users: column j is
the ridge regression of item j's text on all others'. With the unit vectors z of whitened texts, A = (ZᵀZ + λI)⁻¹, and
h_j = z_jᵀ A z_j, the matrix inversion lemma gives its entries without a matrix (N, N) that is inverted:

    C_ij = z_iᵀ A z_j / (1 - h_j)        C_jj = 0

Whitening and A are fitted to the items that training may use. The text of another item j is in no regression, so that
nothing is taken out of A for it: C_ij = z_iᵀ A z_j. It changes no weight between other items.

L3AE (Moon et al. 2025, arXiv:2508.13500) pulls EASE towards such weights.

Over features Φ (N, M) of the items, the same weights are the ridge regression, with a penalty μ, of the targets that C
gives an item from its features:

    C_Φ = (ΦᵀΦ + μI)⁻¹ Φᵀ C Φ        (M, M)

As C is a product of two tables (N, E) but for its diagonal, no matrix (N, N) is computed, and time and memory grow with
N alone.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedrec.recsys.closed_form.features import Whitening

BLOCK = 4096
"""Items whose features are multiplied at a time."""


class TextFactors(NamedTuple):
    """Two tables whose product, without its diagonal, is the weights between items: C_ij = events_i · candidates_j."""

    events: Tensor  # (N, E) float64: z
    candidates: Tensor  # (N, E) float64: A z / (1 - h)


def factor_texts(embeddings: Tensor, ridge: float, rows: np.ndarray) -> TextFactors:
    """Factor the weights of texts by their embeddings (N, E); training may use the items `rows` (n,)."""
    vectors = Whitening.fit(embeddings[rows], 1.0)(embeddings).double()  # Z
    known = vectors[rows]
    inverse = torch.linalg.inv(known.T @ known + ridge * torch.eye(vectors.shape[1]).double())  # A
    candidates = vectors @ inverse
    candidates[rows] /= 1 - (candidates[rows] * known).sum(1, keepdim=True)
    return TextFactors(vectors, candidates)


def text_weights(embeddings: Tensor, ridge: float, rows: np.ndarray | None = None) -> Tensor:
    """Compute the weights C of texts from their embeddings: (N, E) → (N, N) float64.

    `rows` (n,) are those of the items that training may use; None: all.
    """
    factors = factor_texts(embeddings, ridge, np.arange(len(embeddings)) if rows is None else rows)
    return (factors.events @ factors.candidates.T).fill_diagonal_(0)


def feature_weights(factors: TextFactors, features: Tensor, gram: Tensor, rows: np.ndarray, penalty: float) -> Tensor:
    """Compute the weights C_Φ between features Φ (N, M) that the texts of the items `rows` (n,) give: (M, M) float64.

    `gram` (M, M) is ΦᵀΦ over these items.
    """
    diagonal = torch.zeros_like(gram)  # Φᵀ diag(C) Φ, before the diagonal of C is set to zero
    events, candidates = torch.zeros(2, len(gram), factors.events.shape[1], dtype=gram.dtype)  # Φᵀ times the factors
    for part in torch.from_numpy(rows).split(BLOCK):
        vectors, (z, other) = features[part].double(), (table[part] for table in factors)
        diagonal += vectors.T @ (vectors * (z * other).sum(1, keepdim=True))
        events += vectors.T @ z
        candidates += vectors.T @ other
    penalised = gram + penalty * torch.eye(len(gram), dtype=gram.dtype)
    return torch.cholesky_solve(events @ candidates.T - diagonal, torch.linalg.cholesky(penalised))
