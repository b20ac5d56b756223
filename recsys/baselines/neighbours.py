"""Item-item baselines: item-kNN and EASE. A user's score for an item is the sum of the weights from its history.

Both are fitted on all events that a split may read: for tuning, those before the validation item; for the test, those
before the test item. That favours them: they learn from each user's validation item, which the two-tower model reads
but never trains on.

Shapes: U users, B histories, N items, b items of a block.
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

MAX_SIMILARITIES = 2**22
"""Maximum similarities that are held at once, however many items there are."""


@dataclass(frozen=True)
class KNNConfig:
    """Item-kNN (Sarwar et al. 2001, doi:10.1145/371920.372071)."""

    neighbours: Annotated[int, Ge(1)] = 100  # the most similar items that each item keeps
    shrink: Annotated[float, Ge(0)] = (
        0.0  # added to the cosine's denominator: lowers the weights of pairs with few users
    )


@dataclass(frozen=True)
class EASEConfig:
    """EASE (Steck 2019, arXiv:1905.03375)."""

    ridge: Annotated[float, Gt(0)] = 200.0  # λ, in users


def interaction_matrix(histories: Sequence[np.ndarray], items: int) -> sparse.csr_matrix:
    """Build the binary matrix of the items in each history: (B, N)."""
    users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    return _binary_matrix(users, np.concatenate(histories), (len(histories), items))


def item_knn(shard: Shard, items: int, split: str, config: KNNConfig) -> Scorer:
    """Fit item-kNN: an item's score is the sum of its cosines with the history's items, if it is a neighbour of them.

    cosine(i, j) = |users of both| / (√|users of i| · √|users of j| + shrink).
    """
    matrix = _training_matrix(shard, items, split)
    norms = np.sqrt(matrix.getnnz(axis=0))  # (N,)
    size = max(1, MAX_SIMILARITIES // items)
    neighbours = []
    for start in range(0, items, size):
        block = slice(start, min(start + size, items))
        cosines = (matrix[:, block].T @ matrix).toarray()  # (b, N)
        cosines /= np.maximum(norms[block, None] * norms + config.shrink, 1)
        np.fill_diagonal(cosines[:, block], 0)
        neighbours.append(_keep_largest(cosines, config.neighbours))
    return _linear_scorer(items, sparse.vstack(neighbours).T.tocsr())


def ease(shard: Shard, items: int, split: str, config: EASEConfig, rank: int | None = None) -> Scorer:
    """Fit EASE: the weights B with a zero diagonal that minimise ‖X − XB‖² + λ‖B‖², for the interactions X (U, N).

    In closed form: P = (XᵀX + λI)⁻¹ and B = I − P / diag(P). With a `rank`, B's best approximation of that rank: what
    an index of vectors of that width can answer. Raises `InputError` if memory cannot hold P.
    """
    if not has_room_for_ease(items):
        raise InputError(f"EASE inverts a matrix of {items:,} × {items:,}, more than memory holds; leave it out")
    weights = ease_weights(_training_matrix(shard, items, split), config.ridge).astype(np.float32)
    return _linear_scorer(items, weights if rank is None else truncated_svd(weights, rank))


def has_room_for_ease(items: int) -> bool:
    """Check that memory can hold four matrices (N, N) of float64: the products, their factor, its inverse, a copy."""
    return 4 * 8 * items**2 <= free_memory(torch.device("cpu"))


def ease_weights(matrix: sparse.csr_matrix, ridge: float) -> np.ndarray:
    """Compute EASE's weights B from the interactions: (U, N) → (N, N), in float64."""
    gram = (matrix.T @ matrix).toarray()  # (N, N)
    gram[np.diag_indices_from(gram)] += ridge
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(torch.from_numpy(gram))).numpy()
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def truncated_svd(weights: np.ndarray, rank: int) -> np.ndarray:
    """Return the matrix of this rank nearest to weights (N, N). Eckart and Young 1936, doi:10.1007/BF02288367."""
    left, sizes, right = torch.linalg.svd(torch.from_numpy(weights))
    return ((left[:, :rank] * sizes[:rank]) @ right[:rank]).numpy()


def _training_matrix(shard: Shard, items: int, split: str) -> sparse.csr_matrix:
    """Build the binary matrix of all events that `split` may read: (U, N)."""
    users, rows = shard.events(split)
    check_rows(rows, items)
    return _binary_matrix(users, rows, (len(shard), items))


def _binary_matrix(users: np.ndarray, rows: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Build a matrix (U, N) of ones at the events; an event that is repeated counts once."""
    matrix = sparse.csr_matrix((np.ones(len(rows)), (users, rows)), shape=shape)
    matrix.data[:] = 1
    return matrix


def _keep_largest(values: np.ndarray, k: int) -> sparse.csr_matrix:
    """Keep the k largest values of each row; the others are zero: (b, N) → (b, N)."""
    k = min(k, values.shape[1])
    columns = np.argpartition(-values, k - 1)[:, :k]  # (b, k)
    largest = np.take_along_axis(values, columns, axis=1).ravel()
    matrix = sparse.csr_matrix((largest, columns.ravel(), np.arange(len(values) + 1) * k), shape=values.shape)
    matrix.eliminate_zeros()
    return matrix


def _linear_scorer(items: int, weights: sparse.csr_matrix | np.ndarray) -> Scorer:
    """Return a scorer by the sum of the weights (N, N) of a history's items. An empty history scores zeros."""

    def score(histories: Sequence[np.ndarray]) -> Tensor:
        scores: Any = interaction_matrix(histories, items) @ weights  # (B, N)
        dense = scores if isinstance(scores, np.ndarray) else scores.toarray()
        return torch.from_numpy(dense.astype(np.float32))

    return score
