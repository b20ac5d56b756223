"""The closed form as a recommender: two vectors of each item, one as an event and one as a candidate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import torch
from torch import Tensor

from fedrec.data.shard import check_rows
from fedrec.recsys.closed_form.config import ClosedFormConfig
from fedrec.recsys.closed_form.contexts import DecayKernel, KernelStack
from fedrec.recsys.closed_form.features import FourierFeatures, Whitening
from fedrec.recsys.closed_form.fusion import Encoder, Fusion
from fedrec.recsys.closed_form.low_rank import low_rank
from fedrec.recsys.closed_form.new_items import TargetRegression

BLOCK = 4096
"""Items whose features are multiplied at a time."""


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A user vector is the decayed sum of the event vectors of a history, over all decays; its dot product with a
    candidate vector is the candidate's score."""

    stack: KernelStack
    events: Tensor  # (N, Kr): the event vectors of each decay, one after the other
    candidates: Tensor  # (N, r)

    def user_vectors(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Compute the user vectors of histories of rows, oldest first: (B, r); zeros for an empty history."""
        return decayed_sums(self.stack.kernels, self.events.tensor_split(len(self.stack), dim=1), histories)

    def score(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Score all items for each history: (B, N)."""
        return self.user_vectors(histories) @ self.candidates.T


def decayed_sums(kernels: Sequence[DecayKernel], tables: Sequence[Tensor], histories: Sequence[np.ndarray]) -> Tensor:
    """Sum the vectors of histories of rows, oldest first, by the weights of K kernels: (B, r), from K tables (N, r).

    Each history is summed alone, in float64, so that it gets the same vector in any batch.
    """
    vectors = torch.zeros(len(histories), tables[0].shape[1])
    for vector, history in zip(vectors, histories, strict=True):
        check_rows(history, len(tables[0]))
        parts = (_decayed_sum(kernel, table, history) for kernel, table in zip(kernels, tables, strict=True))
        vector += reduce(add, parts)
    return vectors


def _decayed_sum(kernel: DecayKernel, table: Tensor, history: np.ndarray) -> Tensor:
    """Sum the vectors of one history by the weights of one decay: (r,) float64."""
    weights = kernel.weigh_history(len(history))[-kernel.reach :]
    rows = table[torch.from_numpy(history[-kernel.reach :].astype(np.int64))]
    return torch.from_numpy(weights) @ rows.double()


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """The features of a catalogue's items by their texts, and the map that gives them to any other text."""

    map: FourierFeatures
    table: Tensor  # (N, M), of events in a context
    targets: Tensor  # (N, M'), of candidates: other vectors for items without events


@dataclass(frozen=True, eq=False)
class ItemTexts:
    """What the texts of a catalogue's items tell a closed form."""

    whitening: Whitening
    new_targets: TargetRegression  # of items without events
    features: TextFeatures | None  # in which the statistics were summed; None: ids, or pairs


@dataclass(frozen=True, eq=False)
class Solution:
    """What validation chose: weights of a context, decoded, and the share of the closed form in a score."""

    weights: Tensor  # (KM, M'): W(λ) D(μ)
    gram: Tensor | None  # (KM, KM): the sum over all users, from which the weights were solved; None: of pairs
    share: float  # β, in [0, 1]

    def cut(self, table: Tensor | None, rank: int) -> "CutSolution":
        """Cut the weights to a rank, for the features `table` (N, M) of the items; None: one-hot. Weights of pairs have
        no smaller rank that scores alike, and are not cut."""
        weights = self.weights.double()
        if self.gram is None:
            return CutSolution(weights, torch.eye(len(weights), dtype=weights.dtype), self.share)
        return CutSolution(*low_rank(weights, self.gram, table, rank), self.share)


@dataclass(frozen=True, eq=False)
class CutSolution:
    """A solution at the rank that is served, in two factors. An artifact of it scores by exactly these weights: measure
    them, to measure what is served."""

    left: Tensor  # (KM, r) float64
    right: Tensor  # (M', r) float64
    share: float  # β, in [0, 1]

    @property
    def weights(self) -> Tensor:
        """The weights of a context, decoded: (KM, M') float64."""
        return self.left @ self.right.T


@dataclass(frozen=True, eq=False)
class EventMap:
    """The map from a text embedding to the vector of an item as an event."""

    features: FourierFeatures
    to_events: Tensor  # (M, Kr)

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Compute the event vectors of items: (n, E) → (n, Kr)."""
        return self.features(embeddings) @ self.to_events


@dataclass(frozen=True, eq=False)
class NewItemMap:
    """The map from a text embedding to the two vectors of a new item."""

    whitening: Whitening
    to_candidates: Tensor  # (E, r)
    mean: Tensor  # (r,) of predicted candidate vectors
    events: EventMap | None  # None: ids and pairs say nothing of an event with a new item

    def candidates(self, embeddings: Tensor) -> Tensor:
        """Compute the candidate vectors of new items: (n, E) → (n, r).

        A vector that is longer than every one in the catalogue is cut to length 1, that of the longest.
        """
        candidates = self.whitening(embeddings) @ self.to_candidates + self.mean
        return candidates / candidates.norm(dim=-1, keepdim=True).clamp(min=1)


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """The closed form of an artifact, and how it scores together with the towers.

    The longest event vector and the longest candidate vector have length 1, and candidate vectors are centred: neither
    changes an order of items, since a user's scores are standardised.
    """

    model: LinearModel
    fusion: Fusion
    new_items: NewItemMap | None  # None: of an earlier version, over ids or pairs

    @classmethod
    def build(
        cls, config: ClosedFormConfig, solution: CutSolution, texts: ItemTexts, tower_vectors: Tensor
    ) -> "ClosedForm":
        """Build the closed form of an artifact at the end of training.

        `tower_vectors` (N, E) are the item vectors of the towers beside it.
        """
        features, right = texts.features, solution.right
        left = torch.cat(solution.left.tensor_split(len(config.decays)), dim=1)  # (M, Kr)
        if features is None:
            mean = target_mean(right)
            events, candidates = left.float(), centre_targets(right).float()
        else:
            mean = features.targets.mean(0, dtype=torch.float64) @ right  # (r,)
            events, candidates = _map_items(features.table, left), _map_items(features.targets, right, mean)
        longest_event, longest = _longest(events), _longest(candidates)
        model = LinearModel(config.stack, events / longest_event, candidates / longest)
        fusion = Fusion.over(solution.share, tower_vectors, model.candidates)
        event_map = None if features is None else EventMap(features.map, (left / longest_event).float())
        new = texts.new_targets.through(right / longest)
        new_mean = (new.mean - mean / longest).float()
        return cls(model, fusion, NewItemMap(texts.whitening, new.slope.float(), new_mean, event_map))

    @property
    def rank(self) -> int:
        """The width of candidate vectors, and of an event vector of one decay."""
        return self.model.candidates.shape[1]

    def item_vectors(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the event vectors (n, Kr) and the candidate vectors (n, r) of new items by their embeddings (n, E).

        Over ids and pairs, the event vectors are zeros: as an event, the towers alone read a new item.
        """
        new, count = self.new_items, len(embeddings)
        candidates = torch.zeros(count, self.rank) if new is None else new.candidates(embeddings)
        if new is None or new.events is None:
            return torch.zeros(count, self.model.events.shape[1]), candidates
        return new.events(embeddings), candidates

    def blend_users(self, encode: Encoder, histories: Sequence[np.ndarray], events: Tensor) -> Tensor:
        """Join the towers' user vectors of histories, by `encode`, with those of the closed form: (B, E + r).

        Histories are rows of the event vectors `events` (n, Kr). A vector scores in z-scores, and is zeros for an empty
        history.
        """
        ours = replace(self.model, events=events).user_vectors(histories)
        return self.fusion.join_users(encode, histories, ours)


def centre_targets(vectors: Tensor) -> Tensor:
    """Centre the vectors (N, r) of one-hot targets. An item of which nothing is known has zeros, and keeps them.

    So it scores the mean of the others in z-scores, and the towers alone tell it apart.
    """
    return (vectors - target_mean(vectors)) * vectors.any(-1, keepdim=True)


def target_mean(vectors: Tensor) -> Tensor:
    """Compute the mean of the vectors (N, r) of one-hot targets that are not zeros: (r,)."""
    return vectors.sum(0) / vectors.any(-1).sum().clamp(min=1)


def _map_items(table: Tensor, factor: Tensor, mean: Tensor | float = 0.0) -> Tensor:
    """Multiply features (N, M) by a factor (M, r) in float64, by blocks, less a mean: (N, r) float32."""
    return torch.cat([(part.double() @ factor - mean).float() for part in table.split(BLOCK)])


def _longest(vectors: Tensor) -> float:
    """Return the length of the longest vector of (n, r); 1 if all are zeros."""
    return vectors.norm(dim=-1).max().item() or 1.0
