"""The interface of everything that a federation can train, and the two-tower model behind it."""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from fedrec.data.randomness import DrawKey
from fedrec.data.shard import Cohort, Shard
from fedrec.recsys.model.item_tower import SharedTables
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.scoring import UserScorer, model_scorer, user_vectors
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.training.local_training import (
    ClientUpdates,
    FitConfig,
    LocalTrainer,
    negative_groups,
    training_blocks,
)

UserStates = MutableMapping[int, Any]
"""The client state of a node's users, by their numbers in its shard. A method reads and replaces it; it is never
sent."""


class Block(Protocol):
    """The training data of some clients in one round, trained side by side."""

    @property
    def salts(self) -> np.ndarray:
        """The clients' salts: (C,)."""
        ...


class FederatedMethod(Protocol):
    """The four operations that a node needs of a method. A method without client state ignores `states`."""

    def adapter(self) -> Adapter:
        """Return the shared parameters as they start."""
        ...

    def blocks(self, shard: Shard, users: np.ndarray, round: int) -> Iterator[Block]:
        """Iterate over blocks of what these users (U,) train on in this round."""
        ...

    def train_clients(self, adapter: Adapter, block: Any, states: UserStates) -> ClientUpdates:
        """Train every client of a block: return updates of the shared parameters, and replace states in `states`."""
        ...

    def scorer(self, adapter: Adapter, shard: Shard, split: str, states: UserStates) -> UserScorer:
        """Return a scorer by the shared parameters and each user's state."""
        ...


class Histories(NamedTuple):
    """Windows of some clients' histories, sampled for one round."""

    cohort: Cohort
    round: int
    tables: SharedTables  # of the negatives: all blocks of a round have the same

    @property
    def salts(self) -> np.ndarray:
        return self.cohort.salts


@dataclass(frozen=True, eq=False)
class TwoTowerMethod:
    """The two-tower model as a federated method. All its parameters are shared: it has no client state."""

    model: TwoTowerModel
    embeddings: Tensor  # (N, E)
    trainable_rows: np.ndarray  # rows of the items that training may use; others are not even sampled as negatives
    config: FitConfig
    seed: int
    pooled: bool  # a round's users are one client, as in central training
    held_out: int  # events at each history's end that are not trained on

    def adapter(self) -> Adapter:
        """Return the model's initial adapter."""
        return self.model.adapter()

    def blocks(self, shard: Shard, users: np.ndarray, round: int) -> Iterator[Histories]:
        """Iterate over blocks of windows of the users' histories, with items as rows of the trainable embeddings."""
        cohort = shard.training_windows(users, self.model.config.history + 1, self.seed, round, self.held_out)
        cohort = cohort.check_rows(len(self.embeddings))
        if len(self.trainable_rows) < len(self.embeddings):
            places = np.full(len(self.embeddings), -1)
            places[self.trainable_rows] = np.arange(len(self.trainable_rows))
            cohort = replace(cohort, items=places[cohort.items] * cohort.mask).check_rows(len(self.trainable_rows))
        groups = negative_groups(cohort.salts, DrawKey(self.seed, round))
        cohort = cohort.select(np.argsort(groups, kind="stable"))  # clients of a group next to each other
        tables = SharedTables()
        for block in [cohort.pooled] if self.pooled else training_blocks(cohort, self.embeddings.device):
            yield Histories(block, round, tables)

    def train_clients(self, adapter: Adapter, block: Histories, states: UserStates) -> ClientUpdates:
        """Train every client of a block from the adapter, by local SGD."""
        key = DrawKey(self.seed, block.round)
        return self._trainer.train_clients(self._on_device(adapter), block.cohort, key, block.tables)

    def scorer(self, adapter: Adapter, shard: Shard, split: str, states: UserStates) -> UserScorer:
        """Return a scorer by each user's history."""
        adapter = self._on_device(adapter)
        score = model_scorer(self.model, adapter, self.model.item_vectors(adapter, self.embeddings))
        return lambda users: score([shard.history(user, split) for user in users])

    def encoder(self, adapter: Adapter) -> tuple[Callable[[Sequence[np.ndarray]], Tensor], Tensor]:
        """Return a function from B histories to user vectors (B, E), and the item vectors (N, E)."""
        adapter = self._on_device(adapter)
        vectors = self.model.item_vectors(adapter, self.embeddings)
        encode = partial(self.model.user_vectors, adapter)
        return partial(user_vectors, encode, self.model.config.history, vectors), vectors

    @cached_property
    def _trainer(self) -> LocalTrainer:
        everything = len(self.trainable_rows) == len(self.embeddings)
        trainable = self.embeddings if everything else self.embeddings[self.trainable_rows]
        return LocalTrainer(self.model, trainable, self.config)

    def _on_device(self, adapter: Adapter) -> Adapter:
        return {name: tensor.to(self.embeddings.device) for name, tensor in adapter.items()}
