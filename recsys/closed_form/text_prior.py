"""Weights between items that their texts give: what weights from events can be pulled towards.

They are EASE's (Steck 2019, arXiv:1905.03375) with the directions of whitened embeddings in place of users: column j is
the ridge regression of item j's text on all others'. With the unit vectors z of whitened texts, A = (ZᵀZ + λI)⁻¹, and
h_j = z_jᵀ A z_j, the matrix inversion lemma gives its entries without a matrix (N, N) that is inverted:

    C_ij = z_iᵀ A z_j / (1 - h_j)        C_jj = 0

Whitening and A are fitted to the items that training may use. The text of another item j is in no regression, so that
nothing is taken out of A for it: C_ij = z_iᵀ A z_j. It changes no weight between other items.

L3AE (Moon et al. 2025, arXiv:2508.13500) pulls EASE towards such weights.
"""

import numpy as np
import torch
from torch import Tensor

from fedrec.recsys.closed_form.features import Whitening


def text_weights(embeddings: Tensor, ridge: float, rows: np.ndarray | None = None) -> Tensor:
    """Compute the weights C of texts from their embeddings: (N, E) → (N, N) float64.

    `rows` (n,) are those of the items that training may use; None: all.
    """
    used = np.arange(len(embeddings)) if rows is None else rows
    vectors = Whitening.fit(embeddings[used], 1.0)(embeddings).double()  # Z
    known = vectors[used]
    inverse = torch.linalg.inv(known.T @ known + ridge * torch.eye(vectors.shape[1]).double())  # A
    candidates = vectors @ inverse
    candidates[used] /= 1 - (candidates[used] * known).sum(1, keepdim=True)
    return (vectors @ candidates.T).fill_diagonal_(0)
