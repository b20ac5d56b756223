"""FedMF and PFedRec, each as a `FederatedMethod`: a shared table of item vectors, and a private vector per user.

Both minimise the binary cross-entropy of a client's own items against sampled negatives (examples.py). A user vector is
(D+1,): the weights, then the bias of the score function, which stays zero in FedMF.

The shared table leaks: the update of a lone client is zero except for its own items and its negatives, and the sign of
an item's update separates the two.

Shapes: C clients, M rows of the table, D width, N items.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedrec.data.randomness import Stream, random_stream
from fedrec.data.shard import Shard
from fedrec.recsys.federated_baselines.examples import Batch, Examples, example_blocks
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.scoring import UserScorer
from fedrec.recsys.training.baseline_config import FederatedBaselineConfig
from fedrec.recsys.training.local_training import ClientUpdates
from fedrec.recsys.training.method import UserStates

TABLE = "items"
"""The name of the only shared parameter: the item vectors (N, D)."""


class UserState(NamedTuple):
    """A user's private parameters."""

    user_vector: Tensor  # (D+1,)
    personal: "PersonalTable | None" = None  # None: the user ranks by the shared table


class PersonalTable(NamedTuple):
    """A user's own copy of the table after its last round, as the difference from the shared one."""

    table: Tensor  # (N, D) the shared table of that round: one tensor for all users who trained with it
    rows: Tensor  # (M,) the items whose vectors the user's own steps changed
    score_delta: Tensor  # (M,) what these changes add to the items' scores


@dataclass(frozen=True, eq=False)
class MatrixFactorisation:
    """FedMF, federated matrix factorisation: the score is user vector · item vector.

    Users keep their vectors; the server averages their updates of the table. Ammad-ud-din et al. 2019,
    arXiv:1901.09888, and Chai et al. 2020, arXiv:1906.05108, with gradient steps on both sides.
    """

    config: FederatedBaselineConfig
    items: int  # N
    seed: int

    def adapter(self) -> Adapter:
        """Return the table as it starts."""
        return initial_table(self.config, self.items, self.seed)

    def initial_state(self, salt: int) -> UserState:
        """Sample a vector of the user's own; the bias is zero."""
        user_vector = sample_user_vector(self.config, self.seed, salt)
        user_vector[-1] = 0
        return UserState(user_vector)

    def blocks(self, shard: Shard, users: np.ndarray, round: int) -> Iterator[Examples]:
        """Sample the users' examples of a round, in blocks of one shape."""
        return example_blocks(self.config, shard, users, self.items, (self.seed, round))

    def train_clients(self, adapter: Adapter, block: Examples, states: UserStates) -> ClientUpdates:
        """Train every client for one epoch of its examples, and replace its state in `states`."""
        start = stack_user_vectors(block, states, self.initial_state)
        epoch = train_epoch(adapter[TABLE], start, block, self._step)
        for client, user in enumerate(block.users):
            states[user] = UserState(epoch.user_vectors[client].clone())  # a view would keep the whole block in memory
        return epoch.updates(block, self.items)

    def _step(self, tables: Tensor, user_vectors: Tensor, batch: Batch) -> Tensor:
        """Take one step of the tables (in place) and of the user vectors, with the gradients before the step."""
        errors = batch.score_gradients(user_vectors)
        gradients = batch.user_gradients(errors)
        gradients[:, -1] = 0  # there is no bias
        step_tables(tables, batch, errors, user_vectors, self.config.baseline_item_rate * self.items)
        return user_vectors - self.config.baseline_rate * gradients

    def scorer(self, adapter: Adapter, shard: Shard, split: str, states: UserStates) -> UserScorer:
        """Return a scorer by the shared table and each user's vector."""

        def score_user(user: int) -> Tensor:
            state = states.get(user) or self.initial_state(shard.salts[user])
            return score_table(adapter[TABLE], state.user_vector)

        return lambda users: torch.stack([score_user(user) for user in users])


@dataclass(frozen=True, eq=False)
class DualPersonalisation:
    """PFedRec, dual personalisation: every user has a score function, one linear layer, and a copy of the table.

    Each batch is used twice: for a step of the score function, then for a step of the item vectors. A user ranks by
    its own fine-tuned table. Zhang et al. 2023, arXiv:2301.08143.
    """

    config: FederatedBaselineConfig
    items: int  # N
    seed: int

    def adapter(self) -> Adapter:
        """Return the table as it starts."""
        return initial_table(self.config, self.items, self.seed)

    def initial_state(self, salt: int) -> UserState:
        """Sample the initial score function; it is the same for all users."""
        return UserState(sample_user_vector(self.config, self.seed))

    def blocks(self, shard: Shard, users: np.ndarray, round: int) -> Iterator[Examples]:
        """Sample the users' examples of a round, in blocks of one shape."""
        return example_blocks(self.config, shard, users, self.items, (self.seed, round))

    def train_clients(self, adapter: Adapter, block: Examples, states: UserStates) -> ClientUpdates:
        """Train every client for one epoch of its examples, and replace its state in `states`."""
        start = stack_user_vectors(block, states, self.initial_state)
        epoch = train_epoch(adapter[TABLE], start, block, self._step)
        score_deltas = (epoch.table_deltas * epoch.user_vectors[:, None, :-1]).sum(-1)  # (C, M)
        for client, user in enumerate(block.users):  # copies: a view would keep the whole block in memory
            personal = PersonalTable(adapter[TABLE], block.rows[client].clone(), score_deltas[client].clone())
            states[user] = UserState(epoch.user_vectors[client].clone(), personal)
        return epoch.updates(block, self.items)

    def _step(self, tables: Tensor, user_vectors: Tensor, batch: Batch) -> Tensor:
        """Take one step of the user vectors, then one of the tables (in place) with the new user vectors."""
        gradients = batch.user_gradients(batch.score_gradients(user_vectors))
        moved = user_vectors - self.config.baseline_rate * gradients
        step_tables(tables, batch, batch.score_gradients(moved), moved, self.config.baseline_item_rate * self.items)
        return moved

    def scorer(self, adapter: Adapter, shard: Shard, split: str, states: UserStates) -> UserScorer:
        """Return a scorer by each user's own table and score function."""

        def score_user(user: int) -> Tensor:
            user_vector, personal = states.get(user) or self.initial_state(shard.salts[user])
            if personal is None:
                return score_table(adapter[TABLE], user_vector)
            scores = score_table(personal.table, user_vector)
            return scores.index_add_(0, personal.rows, personal.score_delta)

        return lambda users: torch.stack([score_user(user) for user in users])


class Epoch(NamedTuple):
    """What one epoch made of a block of clients."""

    user_vectors: Tensor  # (C, D+1)
    table_deltas: Tensor  # (C, M, D) of each client's rows
    losses: Tensor  # (C,) summed over examples, each before its step

    def updates(self, block: Examples, items: int) -> ClientUpdates:
        """Return the clients' updates of a table of `items` rows."""
        counts = block.mask.flatten(1).sum(-1)
        losses = self.losses / counts.clamp(min=1)
        return ClientUpdates({TABLE: self.table_deltas}, losses, block.rows, items, counts > 0)


def train_epoch(
    table: Tensor, user_vectors: Tensor, block: Examples, step: Callable[[Tensor, Tensor, Batch], Tensor]
) -> Epoch:
    """Run one epoch of every client's examples, from copies of the table (N, D).

    `step` changes the clients' tables in place and returns their new user vectors.
    """
    start = table[block.rows]  # (C, M, D)
    tables, losses = start.clone(), torch.zeros(len(user_vectors))
    for number in range(block.places.shape[1]):
        batch = Batch.gather(block, number, tables)
        losses += batch.losses(user_vectors)
        user_vectors = step(tables, user_vectors, batch)
    return Epoch(user_vectors, tables - start, losses)


def step_tables(tables: Tensor, batch: Batch, errors: Tensor, user_vectors: Tensor, rate: float) -> None:
    """Take one gradient step of the clients' tables (C, M, D), in place: a score's gradient by its item is the user
    vector. `errors` (C, W) are the gradients by the scores.
    """
    sums = torch.zeros(tables.shape[:2]).scatter_add_(1, batch.places, errors)  # (C, M) over an item's examples
    tables.addcmul_(sums.unsqueeze(-1), user_vectors[:, None, :-1], value=-rate)


def initial_table(config: FederatedBaselineConfig, items: int, seed: int) -> Adapter:
    """Sample the initial item vectors (N, D)."""
    generator = torch.Generator().manual_seed(seed)
    return {TABLE: torch.randn(items, config.baseline_dim, generator=generator)}


def sample_user_vector(config: FederatedBaselineConfig, *key: int) -> Tensor:
    """Sample an initial user vector (D+1,), uniform in ±1/√D."""
    rng, bound = random_stream(Stream.BASELINE_STARTS, *key), 1 / math.sqrt(config.baseline_dim)
    return torch.from_numpy(rng.uniform(-bound, bound, config.baseline_dim + 1).astype(np.float32))


def stack_user_vectors(block: Examples, states: UserStates, initial_state: Callable[[int], UserState]) -> Tensor:
    """Stack the clients' user vectors (C, D+1); a client that has no state yet starts with `initial_state(salt)`."""
    users = zip(block.users, block.salts, strict=True)
    return torch.stack([(states.get(user) or initial_state(salt)).user_vector for user, salt in users])


def score_table(table: Tensor, user_vector: Tensor) -> Tensor:
    """Score every item of a table (N, D): (N,)."""
    return table @ user_vector[:-1] + user_vector[-1]
