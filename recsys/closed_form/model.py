"""The closed form as a recommender: two vectors of each item, one as an event and one as a candidate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedrec.data.shard import check_rows
from fedrec.recsys.closed_form.config import ClosedFormConfig
from fedrec.recsys.closed_form.contexts import DecayKernel
from fedrec.recsys.closed_form.features import FourierFeatures
from fedrec.recsys.closed_form.fusion import Fusion
from fedrec.recsys.closed_form.low_rank import low_rank

BLOCK = 4096
"""Items whose features are multiplied at a time."""


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A user vector is the decayed sum of the event vectors of a history; its dot product with a candidate vector is
    the candidate's score."""

    kernel: DecayKernel
    events: Tensor  # (N, r)
    candidates: Tensor  # (N, r)

    def user_vectors(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Compute the user vectors of histories of rows, oldest first: (B, r); zeros for an empty history.

        Each history is summed alone, in float64, so that it gets the same vector in any batch.
        """
        vectors = torch.zeros(len(histories), self.events.shape[1])
        for vector, history in zip(vectors, histories, strict=True):
            check_rows(history, len(self.events))
            weights = self.kernel.weigh_history(len(history))[-self.kernel.reach :]
            rows = self.events[torch.from_numpy(history[-self.kernel.reach :].astype(np.int64))]
            vector += torch.from_numpy(weights) @ rows.double()
        return vectors

    def score(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Score all items for each history: (B, N)."""
        return self.user_vectors(histories) @ self.candidates.T


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """The features of a catalogue's items by their texts, and the map that gives them to any other text."""

    map: FourierFeatures
    table: Tensor  # (N, M)


@dataclass(frozen=True, eq=False)
class Solution:
    """What validation chose: weights of a context, decoded, and the share of the closed form in a score."""

    weights: Tensor  # (M, M'): W(λ) D(μ)
    gram: Tensor | None  # (M, M): the sum over all users, from which the weights were solved; None: of pairs
    share: float  # β, in [0, 1]

    def cut(self, table: Tensor | None, rank: int) -> "Solution":
        """Cut the weights to a rank, for the features `table` (N, M) of the items; None: one-hot.

        An artifact of that rank scores by exactly these weights: measure them, to measure what is served.
        """
        left, right = self.factors(table, rank)
        return replace(self, weights=left @ right.T)

    def factors(self, table: Tensor | None, rank: int) -> tuple[Tensor, Tensor]:
        """Factor the weights into A (M, r) and B (M', r), cut to a rank; those of pairs have no smaller one that scores
        alike, and are not cut."""
        weights = self.weights.double()
        if self.gram is None:
            return weights, torch.eye(len(weights), dtype=weights.dtype)
        return low_rank(weights, self.gram, table, rank)


@dataclass(frozen=True, eq=False)
class TextMap:
    """The map from a text embedding to the two vectors of an item."""

    features: FourierFeatures
    to_events: Tensor  # (M, r)
    to_candidates: Tensor  # (M, r)
    mean: Tensor  # (r,) of the catalogue's candidate vectors, which are centred

    def item_vectors(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the event vectors and the candidate vectors of items: (n, E) → (n, r) twice.

        A candidate vector that is longer than every one in the catalogue is cut to length 1, that of the longest.
        """
        features = self.features(embeddings)
        candidates = features @ self.to_candidates - self.mean
        return features @ self.to_events, candidates / candidates.norm(dim=-1, keepdim=True).clamp(min=1)


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """The closed form of an artifact, and how it scores together with the towers.

    The longest event vector and the longest candidate vector have length 1, and candidate vectors are centred: neither
    changes an order of items, since a user's scores are standardised.
    """

    model: LinearModel
    fusion: Fusion
    text_map: TextMap | None  # None: features are ids, and say nothing of a new item

    @classmethod
    def build(
        cls,
        config: ClosedFormConfig,
        solution: Solution,
        features: TextFeatures | None,
        tower_vectors: Tensor,
        rank: int,
    ) -> "ClosedForm":
        """Build the closed form of an artifact at the end of training.

        `features` are those in which the statistics were summed, None for ids; `tower_vectors` (N, E) are the item
        vectors of the towers beside it. Weights of a higher rank than `rank` are cut to it, as by `Solution.cut`.
        """
        table = None if features is None else features.table
        left, right = solution.factors(table, rank)  # (M, r) twice
        mean = right.mean(0) if table is None else table.mean(0, dtype=torch.float64) @ right  # (r,)
        events, candidates = _map_items(table, left), _map_items(table, right, mean)
        longest_event, longest = _longest(events), _longest(candidates)
        model = LinearModel(config.kernel, events / longest_event, candidates / longest)
        fusion = Fusion.over(solution.share, tower_vectors, model.candidates)
        if features is None:
            return cls(model, fusion, None)
        left, right, mean = (left / longest_event).float(), (right / longest).float(), (mean / longest).float()
        return cls(model, fusion, TextMap(features.map, left, right, mean))

    @property
    def rank(self) -> int:
        """The width of event and candidate vectors."""
        return self.model.events.shape[1]

    def item_vectors(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the event vectors and the candidate vectors of new items by their text embeddings: (n, E) → (n, r).

        They are zeros if features are ids: then the towers alone tell new items apart.
        """
        if self.text_map is None:
            nothing = torch.zeros(len(embeddings), self.rank)
            return nothing, nothing
        return self.text_map.item_vectors(embeddings)

    def join_users(self, towers: Tensor, histories: Sequence[np.ndarray], events: Tensor) -> Tensor:
        """Join the towers' user vectors of histories with those of the closed form: (B, E) → (B, E + r).

        Histories are rows of the event vectors `events` (n, r). A vector has unit length, or is zeros for an empty
        history.
        """
        ours = replace(self.model, events=events).user_vectors(histories)
        return F.normalize(self.fusion.user_vectors(towers, ours), dim=-1)


def _map_items(table: Tensor | None, factor: Tensor, mean: Tensor | float = 0.0) -> Tensor:
    """Multiply features (N, M) by a factor (M, r) in float64, by blocks, less a mean: (N, r) float32.

    Features of None are one-hot.
    """
    blocks = factor.split(BLOCK) if table is None else (part.double() @ factor for part in table.split(BLOCK))
    return torch.cat([(block - mean).float() for block in blocks])


def _longest(vectors: Tensor) -> float:
    """Return the length of the longest vector of (n, r); 1 if all are zeros."""
    return vectors.norm(dim=-1).max().item() or 1.0
