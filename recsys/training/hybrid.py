"""The two towers and the closed form in one run, with their scores blended."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedrec.data.shard import Shard
from fedrec.recsys.closed_form.features import FourierFeatures
from fedrec.recsys.closed_form.fusion import Encoder, Fusion, covariance
from fedrec.recsys.closed_form.solutions import SHARE
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.scoring import Scorer, UserScorer
from fedrec.recsys.training.closed_form import ClosedFormMethod
from fedrec.recsys.training.local_training import ClientUpdates
from fedrec.recsys.training.method import Histories, TwoTowerMethod, UserStates

REMEMBERED = 10_000
"""User vectors of the towers that are kept while candidates of the closed form are ranked beside them: 15 MB."""


class EncodedTowers(NamedTuple):
    """The towers of one adapter, with what ranking by them has computed."""

    adapter: Adapter
    encode: Encoder
    vectors: Tensor  # (N, E) item vectors, on the processor
    spread: Tensor  # (E, E) their covariance
    users: dict[bytes, Tensor]  # by history: (E,)

    @classmethod
    def of(cls, towers: TwoTowerMethod, adapter: Adapter) -> "EncodedTowers":
        """Compute the item vectors of an adapter."""
        encode, vectors = towers.encoder(adapter)
        vectors = vectors.cpu()
        return cls(adapter, encode, vectors, covariance(vectors), {})

    def has(self, adapter: Adapter) -> bool:
        """Tell whether an adapter is this one, to the bit."""
        return adapter.keys() == self.adapter.keys() and all(
            torch.equal(tensor, self.adapter[name]) for name, tensor in adapter.items()
        )

    def user_vectors(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Compute the user vectors of histories, or remember them: (B, E)."""
        keys = [history.tobytes() for history in histories]
        known = {key: self.users[key] for key in keys if key in self.users}
        fresh = {key: history for key, history in zip(keys, histories, strict=True) if key not in known}
        if fresh:
            known |= zip(fresh, self.encode(list(fresh.values())).cpu(), strict=True)
        if len(self.users) < REMEMBERED:
            self.users.update((key, known[key].clone()) for key in fresh)
        return torch.stack([known[key] for key in keys])


@dataclass(frozen=True, eq=False)
class HybridMethod:
    """The towers, trained in rounds, and the closed form of the same users.

    An adapter without the closed form's tensors is ranked by the towers alone. With a share of 1, towers rank for the
    users alone of whose history the closed form knows nothing: even untrained ones, by text neighbours.
    """

    towers: TwoTowerMethod
    closed_form: ClosedFormMethod
    _last: list[EncodedTowers] = field(default_factory=list, repr=False)  # at most one: a search ranks by the same

    def with_feature_map(self, fitted: FourierFeatures) -> "HybridMethod":
        """Return the method with features that were fitted before, to another catalogue."""
        return replace(self, closed_form=replace(self.closed_form, fitted=fitted))

    def adapter(self) -> Adapter:
        """Return the towers' initial adapter."""
        return self.towers.adapter()

    def blocks(self, shard: Shard, users: np.ndarray, round: int) -> Iterator[Histories]:
        """Iterate over blocks of what the towers train on."""
        return self.towers.blocks(shard, users, round)

    def train_clients(self, adapter: Adapter, block: Histories, states: UserStates) -> ClientUpdates:
        """Train the towers of every client of a block."""
        return self.towers.train_clients(adapter, block, states)

    def scorer(self, adapter: Adapter, shard: Shard, split: str, states: UserStates) -> UserScorer:
        """Return a scorer by each user's history."""
        towers, closed_form = split_adapter(adapter)
        if not closed_form:
            return self.towers.scorer(towers, shard, split, states)
        score = self._blend(towers, closed_form)
        return lambda users: score([shard.history(user, split) for user in users])

    def _blend(self, adapter: Adapter, closed_form: Adapter) -> Scorer:
        """Return a scorer by the weighted sum of both parts' z-scores."""
        towers, candidates = self._encoded(adapter), self.closed_form.candidates
        vectors, contexts = towers.vectors, self.closed_form.user_vectors(closed_form)
        fusion = Fusion(float(closed_form[SHARE]), towers.spread, self.closed_form.candidate_covariance)

        def score(histories: Sequence[np.ndarray]) -> Tensor:
            joined = fusion.join_users(towers.user_vectors, histories, contexts(histories))  # (B, E + M')
            halves = joined.split([vectors.shape[1], candidates.shape[1]], dim=-1)
            return halves[0] @ vectors.T + halves[1] @ candidates.T

        return score

    def _encoded(self, adapter: Adapter) -> EncodedTowers:
        """Return the towers of an adapter: those of the last ranking, if they are the same."""
        last = self._last[:]
        if not (last and last[0].has(adapter)):
            self._last[:] = last = [EncodedTowers.of(self.towers, adapter)]
        return last[0]


def split_adapter(adapter: Adapter) -> tuple[Adapter, Adapter]:
    """Split an adapter into the towers' tensors and the closed form's."""
    towers = {name: tensor for name, tensor in adapter.items() if not name.startswith("closed.")}
    return towers, {name: tensor for name, tensor in adapter.items() if name not in towers}
