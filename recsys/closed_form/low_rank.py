"""Weights of a smaller rank, so that an item is served by few numbers."""

from collections.abc import Callable

import torch
from torch import Tensor

from fedrec.recsys.closed_form.fusion import exact_covariance

RANK_TOLERANCE = 1e-12
"""The smallest square of a singular value, relative to the largest, that is not taken for rounding."""


def low_rank(weights: Tensor, gram: Tensor, targets: Tensor | None, rank: int) -> tuple[Tensor, Tensor]:
    """Factor weights W (M, M') into A (M, r) and B (M', r), r ≤ `rank`, whose product scores almost as W does.

    The factors minimise the squared error of the scores, less their mean over the items, which does not change an
    order: Σ_x Σ_i (xᵀ (W - A Bᵀ) (ψ_i - ψ̄))² over the contexts x of a Gram matrix (M, M) and the target vectors ψ_i of
    `targets` (N, M'); None: one-hot. It is the truncated SVD (Eckart and Young 1936, doi:10.1007/BF02288367) of
    G^½ W C^½, for the covariance C of the targets. Both factors are float64; r is smaller if W has a smaller rank.
    """
    times_root = _product_with_root(targets)
    seen = weights.T @ gram.double() @ weights  # (M', M'): WᵀGW
    squares, vectors = torch.linalg.eigh(times_root(times_root(seen).T))  # of the singular values, rising
    kept = squares > squares[-1] * RANK_TOLERANCE
    squares, vectors = squares[kept][-rank:].flip(0), times_root(vectors[:, kept][:, -rank:].flip(1))
    return weights @ vectors / squares**0.25, seen @ vectors / squares**0.75


def _product_with_root(targets: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return the product of the symmetric root of the covariance of target vectors (N, M') with a matrix (M', n)."""
    if targets is None:  # one-hot: the covariance is a projection, its own root, but for a factor
        return lambda matrix: matrix - matrix.mean(0)
    variances, components = torch.linalg.eigh(exact_covariance(targets))
    root = components * variances.clamp(min=0).sqrt() @ components.T
    return lambda matrix: root @ matrix
