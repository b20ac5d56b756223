"""Item-item baselines: cosine neighbours, and EASE. A user's score for an item is the sum of weights from its history.

Both are fitted on everything that a split may read: to be tuned, on the events before the validation item; to be
tested, on the events before the test item. That is generous: they learn from each user's validation item, which our
own model reads but never trains on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt
from scipy import sparse
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.data.shard import Shard, check_rows
from fedrec.recsys.hardware import free_memory
from fedrec.recsys.model.scoring import Scorer

PRODUCTS = 2**22
"""Similarities that are held at a time, however many items there are."""


@dataclass(frozen=True)
class KNNConfig:
    """Item-kNN (Sarwar et al. 2001, doi:10.1145/371920.372071)."""

    neighbours: Annotated[int, Ge(1)] = 100  # of each item, the most similar ones
    shrink: Annotated[float, Ge(0)] = 0.0  # added to the cosine's denominator: distrusts pairs with few users


@dataclass(frozen=True)
class EASEConfig:
    """EASE (Steck 2019, arXiv:1905.03375)."""

    ridge: Annotated[float, Gt(0)] = 200.0  # λ, in users


def interactions(histories: Sequence[np.ndarray], items: int) -> sparse.csr_matrix:
    """Which items each history holds: (B, N) of ones."""
    return _ones(
        np.repeat(np.arange(len(histories)), [len(h) for h in histories]),
        np.concatenate(histories),
        items,
        len(histories),
    )


def item_knn(shard: Shard, items: int, split: str, config: KNNConfig) -> Scorer:
    """An item scores the cosines between its users and those of the history's items, if it is near to them.

    cosine(i, j) = |users of both| / (√|users of i| · √|users of j| + shrink).
    """
    held = _held(shard, items, split)
    norms = np.sqrt(held.getnnz(axis=0))  # (N,)
    size = max(1, PRODUCTS // items)
    near = []
    for start in range(0, items, size):
        part = slice(start, min(start + size, items))
        similar = (held[:, part].T @ held).toarray()  # (b, N)
        similar /= np.maximum(norms[part, None] * norms + config.shrink, 1)
        np.fill_diagonal(similar[:, part], 0)
        near.append(_largest(similar, config.neighbours))
    return _linear(items, sparse.vstack(near).T.tocsr())


def ease(shard: Shard, items: int, split: str, config: EASEConfig, rank: int | None = None) -> Scorer:
    """The weights B with a diagonal of zeros that minimise ‖X − XB‖² + λ‖B‖², for X (U, N) who had what.

    In closed form: P = (XᵀX + λI)⁻¹ and B = I − P / diag(P). With a `rank`, B's best approximation of it: what an index
    of vectors so wide can answer. Raises `InputError` where there is no room for P.
    """
    if not has_room_for_ease(items):
        raise InputError(f"EASE inverts a matrix of {items:,} × {items:,}, more than memory holds; leave it out")
    weights = ease_weights(_held(shard, items, split), config.ridge).astype(np.float32)
    return _linear(items, weights if rank is None else truncated_svd(weights, rank))


def has_room_for_ease(items: int) -> bool:
    """Whether memory holds four matrices of (N, N) in float64: the products, their factor, its inverse, a copy."""
    return 4 * 8 * items**2 <= free_memory(torch.device("cpu"))


def ease_weights(held: sparse.csr_matrix, ridge: float) -> np.ndarray:
    """EASE's weights B from who had what: (U, N) → (N, N), in float64."""
    gram = (held.T @ held).toarray()  # (N, N)
    gram[np.diag_indices_from(gram)] += ridge
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(torch.from_numpy(gram))).numpy()
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def truncated_svd(weights: np.ndarray, rank: int) -> np.ndarray:
    """The matrix of this rank that is nearest to weights (N, N). Eckart and Young 1936, doi:10.1007/BF02288367."""
    left, sizes, right = torch.linalg.svd(torch.from_numpy(weights))
    return ((left[:, :rank] * sizes[:rank]) @ right[:rank]).numpy()


def _held(shard: Shard, items: int, split: str) -> sparse.csr_matrix:
    """Who had what, of all that `split` may read: (U, N) of ones."""
    users, rows = shard.events(split)
    check_rows(rows, items)
    return _ones(users, rows, items, len(shard))


def _ones(users: np.ndarray, rows: np.ndarray, items: int, count: int) -> sparse.csr_matrix:
    """Who holds what: (U, N); an item that somebody has had twice is held once."""
    held = sparse.csr_matrix((np.ones(len(rows)), (users, rows)), shape=(count, items))
    held.data[:] = 1
    return held


def _largest(values: np.ndarray, k: int) -> sparse.csr_matrix:
    """The k largest of each row, and zeros: (b, N) → (b, N)."""
    k = min(k, values.shape[1])
    columns = np.argpartition(-values, k - 1)[:, :k]  # (b, k)
    kept = np.take_along_axis(values, columns, axis=1).ravel()
    found = sparse.csr_matrix((kept, columns.ravel(), np.arange(len(values) + 1) * k), shape=values.shape)
    found.eliminate_zeros()
    return found


def _linear(items: int, weights: sparse.csr_matrix | np.ndarray) -> Scorer:
    """A history scores the sum of its items' weights (N, N)."""

    def score(histories: Sequence[np.ndarray]) -> Tensor:
        scores: Any = interactions(histories, items) @ weights  # (B, N)
        dense = scores if isinstance(scores, np.ndarray) else scores.toarray()
        return torch.from_numpy(dense.astype(np.float32))

    return score
