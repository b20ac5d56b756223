"""Linear models of the items: a score is the product of a history's vector and weights between items.

In the history's vector an event's weight falls with its age: decay^age, the age of the last event being 0.

Shapes: B histories, N items, T events of all histories.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Gt, Le
from scipy import sparse
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.recsys.hardware import free_memory
from fedrec.recsys.model.scoring import Scorer

Decay = Annotated[float, Gt(0), Le(1)]
"""The factor by which an event's weight falls with each later event; 1 weighs all events equally."""

HistoryVectors = Callable[[Sequence[np.ndarray], int, float], sparse.csr_matrix]
"""A function of B histories, the number of items and a decay that returns the histories' vectors: (B, N)."""


class TooManyItems(InputError):
    """A catalogue with more items than a model of all pairs of items has memory for."""


def latest_events(histories: Sequence[np.ndarray], items: int, decay: float) -> sparse.csr_matrix:
    """Weigh each item by the age of its latest event: (B, N). With a decay of 1, the binary matrix of the items."""
    users, rows, ages = _event_columns(histories)
    newest_first = (users * items + rows)[::-1]
    _, places = np.unique(newest_first, return_index=True)
    latest = len(newest_first) - 1 - places
    weights = decay ** ages[latest]
    return sparse.csr_matrix((weights, (users[latest], rows[latest])), shape=(len(histories), items))


def all_events(histories: Sequence[np.ndarray], items: int, decay: float) -> sparse.csr_matrix:
    """Weigh each item by the sum over its events: (B, N)."""
    users, rows, ages = _event_columns(histories)
    return sparse.csr_matrix((decay**ages, (users, rows)), shape=(len(histories), items))


def linear_scorer(weights: sparse.csr_matrix | np.ndarray, items: int, vectors: HistoryVectors, decay: float) -> Scorer:
    """Return a scorer by the products of the histories' vectors and weights (N, N). An empty history scores zeros."""
    in_float64: Any = weights.astype(np.float64)  # once, as the product would for each block of histories

    def score(histories: Sequence[np.ndarray]) -> Tensor:
        scores = vectors(histories, items, decay) @ in_float64  # (B, N)
        dense = scores if isinstance(scores, np.ndarray) else scores.toarray()
        return torch.from_numpy(dense.astype(np.float32))

    return score


def check_memory(model: str, items: int, numbers: int) -> None:
    """Raise `TooManyItems` if memory cannot hold the numbers in float64 that a model of all pairs of items needs."""
    if 8 * numbers > free_memory(torch.device("cpu")):
        raise TooManyItems(
            f"{model} solves for a matrix of {items:,} × {items:,}, more than memory holds; item-kNN needs less"
        )


def cholesky(gram: np.ndarray, ridge: float) -> Tensor:
    """Compute the Cholesky factor of gram + ridge·I: (N, N) → (N, N). The Gram matrix stays as it is."""
    shifted = torch.from_numpy(gram).clone()
    shifted.diagonal().add_(ridge)
    return torch.linalg.cholesky(shifted)


def _event_columns(histories: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the history, the item and the age of each event, in their order: (T,) each."""
    lengths = np.array([len(history) for history in histories], dtype=np.int64)
    users = np.repeat(np.arange(len(histories)), lengths)
    ages = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(lengths.sum())
    return users, np.concatenate(histories), ages
