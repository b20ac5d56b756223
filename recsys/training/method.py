"""What a node's clients learn with: our own model, or a peer that it is compared with."""

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from fedrec.data.shard import Cohort, Shard
from fedrec.recsys.evaluation.ranking import UserScorer, model_scorer
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.two_tower import Model
from fedrec.recsys.training.local_training import ClientUpdates, FitConfig, blocks, train_clients

UserStates = MutableMapping[int, Any]
"""The private parts of a node's users, by their numbers there. A learner reads and writes them; nobody sends them."""


class Block(Protocol):
    """What some clients train on in a round, side by side."""

    @property
    def salts(self) -> np.ndarray:
        """Each client's own number: (C,)."""
        ...


class FederatedMethod(Protocol):
    """All that a node asks of a method. A method without private parts leaves `parts` alone."""

    def adapter(self) -> Adapter:
        """What is shared, as it starts."""
        ...

    def blocks(self, shard: Shard, users: np.ndarray, round: int) -> Iterator[Block]:
        """What these users train on in this round."""
        ...

    def train_clients(self, adapter: Adapter, block: Any, parts: UserStates) -> ClientUpdates:
        """Train every client of a block: changes of the shared part, and, in `parts`, its new private part."""
        ...

    def scorer(self, adapter: Adapter, shard: Shard, split: str, parts: UserStates) -> UserScorer:
        """Scores of every item by what is shared and by each user's private part."""
        ...


class Histories(NamedTuple):
    """Windows of some clients' histories, drawn for one round."""

    cohort: Cohort
    round: int

    @property
    def salts(self) -> np.ndarray:
        return self.cohort.salts


@dataclass(frozen=True, eq=False)
class TwoTowerMethod:
    """Our own model: all that is learned is shared."""

    model: Model
    embeddings: Tensor  # (N, E)
    warm: np.ndarray  # rows of the items that training knows of; the others are not even drawn as negatives
    config: FitConfig
    seed: int
    pooled: bool  # a round's users are one client, as in central training
    held_out: int  # events at each history's end that are not trained on

    def adapter(self) -> Adapter:
        return self.model.adapter()

    def blocks(self, shard: Shard, users: np.ndarray, round: int) -> Iterator[Histories]:
        cohort = shard.training_windows(users, self.model.config.history + 1, self.seed, round, self.held_out)
        cohort = cohort.check_rows(len(self.embeddings))
        if len(self.warm) < len(self.embeddings):
            places = np.full(len(self.embeddings), -1)
            places[self.warm] = np.arange(len(self.warm))
            cohort = replace(cohort, items=places[cohort.items] * cohort.mask).check_rows(len(self.warm))
        for block in [cohort.pooled] if self.pooled else blocks(cohort, self.embeddings.device):
            yield Histories(block, round)

    def train_clients(self, adapter: Adapter, block: Histories, parts: UserStates) -> ClientUpdates:
        stream = (self.seed, block.round)
        return train_clients(self.model, self._near(adapter), block.cohort, self._known, self.config, stream)

    def scorer(self, adapter: Adapter, shard: Shard, split: str, parts: UserStates) -> UserScorer:
        adapter = self._near(adapter)
        score = model_scorer(self.model, adapter, self.model.item_vectors(adapter, self.embeddings))
        return lambda users: score([shard.history(user, split) for user in users])

    @cached_property
    def _known(self) -> Tensor:
        """Of the items that training knows of; a block's rows are places in here."""
        return self.embeddings if len(self.warm) == len(self.embeddings) else self.embeddings[self.warm]

    def _near(self, adapter: Adapter) -> Adapter:
        return {name: tensor.to(self.embeddings.device) for name, tensor in adapter.items()}
