"""The two towers and the closed form in one run, with their scores blended."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from fedrec.data.shard import Shard
from fedrec.recsys.closed_form.features import FourierFeatures
from fedrec.recsys.closed_form.fusion import Fusion, covariance
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.scoring import Scorer, UserScorer
from fedrec.recsys.training.closed_form import SHARE, ClosedFormMethod
from fedrec.recsys.training.local_training import ClientUpdates
from fedrec.recsys.training.method import Histories, TwoTowerMethod, UserStates


@dataclass(frozen=True, eq=False)
class HybridMethod:
    """The towers, trained in rounds, and the closed form of the same users.

    An adapter without the closed form's tensors is ranked by the towers alone. With a share of 1, towers rank for the
    users alone of whose history the closed form knows nothing: even untrained ones, by text neighbours.
    """

    towers: TwoTowerMethod
    closed_form: ClosedFormMethod

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
        encode, vectors = self.towers.encoder(adapter)
        vectors, candidates = vectors.cpu(), self.closed_form.candidates
        contexts = self.closed_form.user_vectors(closed_form)
        fusion = Fusion(float(closed_form[SHARE]), covariance(vectors), self.closed_form.candidate_covariance)

        def score(histories: Sequence[np.ndarray]) -> Tensor:
            joined = fusion.join_users(encode, histories, contexts(histories))  # (B, E + M')
            halves = joined.split([vectors.shape[1], candidates.shape[1]], dim=-1)
            return halves[0] @ vectors.T + halves[1] @ candidates.T

        return score


def split_adapter(adapter: Adapter) -> tuple[Adapter, Adapter]:
    """Split an adapter into the towers' tensors and the closed form's."""
    towers = {name: tensor for name, tensor in adapter.items() if not name.startswith("closed.")}
    return towers, {name: tensor for name, tensor in adapter.items() if name not in towers}
