"""Scorers: whatever ranks the catalogue for a user, and the two-tower model as one.

Shapes: B histories, L events of a history, N items, E embedding.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fedrec.data.shard import Cohort
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.two_tower import TwoTowerModel

Scorer = Callable[[Sequence[np.ndarray]], Tensor]
"""A function of B histories that returns a score of every item: (B, N)."""

UserScorer = Callable[[Iterable[int]], Tensor]
"""A function of B users of a shard that returns a score of every item: (B, N). A method that stores parameters of each
user ranks by it, since a history alone does not determine its scores."""

HistoryEncoder = Callable[[Tensor, Tensor], Tensor]
"""A function of the item vectors of right-aligned histories, and of the mask of their events, that returns user
vectors: (B, L, E), (B, L) → (B, E)."""

EVENTS_PER_BLOCK = 4096
"""Maximum events that are encoded at once, padding included, however many histories there are."""


def model_scorer(model: TwoTowerModel, adapter: Adapter, vectors: Tensor) -> Scorer:
    """Return a scorer of a model in training; `vectors` (N, E) are its item vectors."""
    return vector_scorer(partial(model.user_vectors, adapter), model.config.history, vectors)


def vector_scorer(encode: HistoryEncoder, length: int, vectors: Tensor) -> Scorer:
    """Return a scorer of the items of `vectors` (N, E), by user vectors of each history's last `length` events."""

    def score(histories: Sequence[np.ndarray]) -> Tensor:
        return user_vectors(encode, length, vectors, histories) @ vectors.T  # (B, N)

    return score


def user_vectors(encode: HistoryEncoder, length: int, vectors: Tensor, histories: Sequence[np.ndarray]) -> Tensor:
    """Compute user vectors of the last `length` events of each history: (B, E); zeros for an empty history."""
    encoded = torch.zeros(len(histories), vectors.shape[1], device=vectors.device)
    cohort = Cohort.from_histories(histories, np.arange(len(histories)), length).check_rows(len(vectors))
    for users, block in cohort.blocks(EVENTS_PER_BLOCK, len(histories)):
        items, mask = (torch.from_numpy(column[:, 0]).to(vectors.device) for column in (block.items, block.mask))
        encoded[users] = encode(vectors[items], mask) * mask[:, -1:]  # (b, L) → (b, E)
    return encoded
