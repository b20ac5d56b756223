"""Item-item baselines: item-kNN and EASE. A user's score for an item is the sum of the weights from its history.

Both are fitted on all events that a split may read: for tuning, those before the validation item; for the test, those
before the test item. That favours them: they learn from each user's validation item, which the two-tower model reads
but never trains on. As published, they weigh all events of a history equally; with a `decay` below 1, recent ones weigh
more when a user is scored. The fit is the same.

Shapes: U users, N items, b items of a block.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from scipy import sparse

from fedrec.data.shard import check_rows
from fedrec.recsys.baselines.linear import Decay, check_memory, cholesky, latest_events, linear_scorer
from fedrec.recsys.baselines.tuning import TrainingData
from fedrec.recsys.model.scoring import Scorer

MATRICES = 4
"""Matrices (N, N) of float64 that EASE holds at once: XᵀX, its factor, its inverse, and a copy."""

MAX_SIMILARITIES = 2**22
"""Maximum similarities that are held at once, however many items there are."""


@dataclass(frozen=True)
class KNNConfig:
    """Item-kNN (Sarwar et al. 2001, doi:10.1145/371920.372071)."""

    neighbours: Annotated[int, Ge(1)] = 100  # the most similar items that each item keeps
    shrink: Annotated[float, Ge(0)] = (
        0.0  # added to the cosine's denominator: lowers the weights of pairs with few users
    )
    decay: Decay = 1.0  # of the history, when a user is scored


@dataclass(frozen=True)
class EASEConfig:
    """EASE (Steck 2019, arXiv:1905.03375)."""

    ridge: Annotated[float, Gt(0)] = 200.0  # λ, in users
    decay: Decay = 1.0  # of the history, when a user is scored


def item_knn(data: TrainingData, split: str, config: KNNConfig) -> Scorer:
    """Fit item-kNN: an item's score is the sum of its cosines with the history's items, if it is a neighbour of them.

    cosine(i, j) = |users of both| / (√|users of i| · √|users of j| + shrink).
    """
    key = (split, config.neighbours, config.shrink)
    weights = data.keep("item-kNN", key, lambda: _nearest(_training_matrix(data, split), config))
    return linear_scorer(weights, data.items, latest_events, config.decay)


def ease(data: TrainingData, split: str, config: EASEConfig, rank: int | None = None) -> Scorer:
    """Fit EASE: the weights B with a zero diagonal that minimise ‖X − XB‖² + λ‖B‖², for the interactions X (U, N).

    In closed form: P = (XᵀX + λI)⁻¹ and B = I − P / diag(P). With a `rank`, B's best approximation of that rank: what
    an index of vectors of that width can answer. Raises `InputError` if memory cannot hold P.
    """
    check_memory("EASE", data.items, MATRICES * data.items**2)

    def fit() -> np.ndarray:
        weights = ease_weights(training_gram(data, split), config.ridge).astype(np.float32)
        return weights if rank is None else truncated_svd(weights, rank)

    return linear_scorer(data.keep("EASE", (split, config.ridge, rank), fit), data.items, latest_events, config.decay)


def ease_weights(gram: np.ndarray, ridge: float) -> np.ndarray:
    """Compute EASE's weights B from XᵀX: (N, N) → (N, N), in float64."""
    inverse = torch.cholesky_inverse(cholesky(gram, ridge)).numpy()
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def training_gram(data: TrainingData, split: str) -> np.ndarray:
    """Compute XᵀX of all events that `split` may read: the number of users who had both items, (N, N)."""

    def count() -> np.ndarray:
        matrix = _training_matrix(data, split)
        return (matrix.T @ matrix).toarray()

    return data.keep("users of both items", split, count)


def truncated_svd(weights: np.ndarray, rank: int) -> np.ndarray:
    """Return the matrix of this rank nearest to weights (N, N). Eckart and Young 1936, doi:10.1007/BF02288367."""
    left, sizes, right = torch.linalg.svd(torch.from_numpy(weights))
    return ((left[:, :rank] * sizes[:rank]) @ right[:rank]).numpy()


def _training_matrix(data: TrainingData, split: str) -> sparse.csr_matrix:
    """Build the binary matrix of all events that `split` may read: (U, N). A repeated event counts once."""
    users, rows = data.shard.events(split)
    check_rows(rows, data.items)
    matrix = sparse.csr_matrix((np.ones(len(rows)), (users, rows)), shape=(len(data.shard), data.items))
    matrix.data[:] = 1
    return matrix


def _nearest(matrix: sparse.csr_matrix, config: KNNConfig) -> sparse.csr_matrix:
    """Compute the cosines of each item's nearest neighbours: (U, N) → (N, N), a column for each item."""
    norms = np.sqrt(matrix.getnnz(axis=0))  # (N,)
    items = len(norms)
    size = max(1, MAX_SIMILARITIES // items)
    neighbours = []
    for start in range(0, items, size):
        block = slice(start, min(start + size, items))
        cosines = (matrix[:, block].T @ matrix).toarray()  # (b, N)
        cosines /= np.maximum(norms[block, None] * norms + config.shrink, 1)
        np.fill_diagonal(cosines[:, block], 0)
        neighbours.append(_keep_largest(cosines, config.neighbours))
    return sparse.vstack(neighbours).T.tocsr()


def _keep_largest(values: np.ndarray, k: int) -> sparse.csr_matrix:
    """Keep the k largest values of each row; the others are zero: (b, N) → (b, N)."""
    k = min(k, values.shape[1])
    columns = np.argpartition(-values, k - 1)[:, :k]  # (b, k)
    largest = np.take_along_axis(values, columns, axis=1).ravel()
    matrix = sparse.csr_matrix((largest, columns.ravel(), np.arange(len(values) + 1) * k), shape=values.shape)
    matrix.eliminate_zeros()
    return matrix
