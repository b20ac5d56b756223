"""The federated peers that fedrec is compared with: a shared table of item vectors, and a private vector per user.

* FedMF, federated matrix factorisation: the score is user vector · item vector; users keep their vectors, and the
  server averages what they make of the table (federated collaborative filtering, Ammad-ud-din et al. 2019,
  arXiv:1901.09888; Chai et al. 2020, arXiv:1906.05108; with gradient steps on both sides).
* PFedRec, dual personalisation: every user has a score function of its own, one linear layer, and ranks by its own
  fine-tuned copy of the table (Zhang et al. 2023, arXiv:2301.08143). Each batch is used twice: for a step of the
  score function, then for a step of the item vectors.

Both minimise the binary cross-entropy of own against drawn items (recsys/training/negative_sampling.py). A private
part is v (D+1,): the vector, and the score function's bias, which in FedMF stays zero. Beware of what the shared
part tells: the change that a lone client sends is zero but for its own and the drawn items, and points apart for the
two.
Shapes: C clients, M rows, W examples, D width, N items.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedrec.data.randomness import Stream, random_stream
from fedrec.data.shard import Shard
from fedrec.recsys.evaluation.ranking import UserScorer
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.training.local_training import ClientUpdates
from fedrec.recsys.training.method import UserStates
from fedrec.recsys.training.negative_sampling import Examples, PeerConfig, blocks

TABLE = "items"
"""The shared part's only name."""


class UserState(NamedTuple):
    """What a user keeps."""

    v: Tensor  # (D+1,)
    own: "PersonalTable | None" = None  # None: the user ranks by the table that is shared


class PersonalTable(NamedTuple):
    """A user's own copy of the table, after its last round."""

    given: Tensor  # (N, D) from which it started: one tensor for all who trained with it
    rows: Tensor  # (M,) items that the user's own steps moved
    gains: Tensor  # (M,) what that adds to their scores


@dataclass(frozen=True, eq=False)
class Peer:
    """Either of them, as a learner: `dual` for PFedRec."""

    config: PeerConfig
    items: int  # N
    seed: int
    dual: bool

    def adapter(self) -> Adapter:
        generator = torch.Generator().manual_seed(self.seed)
        return {TABLE: torch.randn(self.items, self.config.baseline_dim, generator=generator)}

    def start(self, salt: int) -> UserState:
        """A user's private part before its first round: the same score function for all, or a vector of its own."""
        rng = random_stream(Stream.BASELINE_STARTS, self.seed, *([] if self.dual else [salt]))
        bound = 1 / math.sqrt(self.config.baseline_dim)
        v = rng.uniform(-bound, bound, self.config.baseline_dim + 1).astype(np.float32)
        return UserState(torch.from_numpy(v) * self._moves)

    @property
    def _moves(self) -> Tensor:
        """Which numbers of v there are: all, or all but the bias."""
        moves = torch.ones(self.config.baseline_dim + 1)
        moves[-1] = float(self.dual)
        return moves

    def blocks(self, shard: Shard, users: np.ndarray, round: int) -> Iterator[Examples]:
        return blocks(self.config, shard, users, self.items, (self.seed, round))

    def train_clients(self, adapter: Adapter, block: Examples, parts: UserStates) -> ClientUpdates:
        """One epoch of every client's own examples, from the given table and the client's private part."""
        users = zip(block.users, block.salts, strict=True)
        v = torch.stack([(parts.get(user) or self.start(salt)).v for user, salt in users])
        given = adapter[TABLE][block.rows]  # (C, M, D)
        own, losses = given.clone(), torch.zeros(len(v))
        for step in range(block.places.shape[1]):
            batch = Batch.of(block, step, own)
            losses += batch.losses(v)
            v = self._step(own, v, batch)
        change = own - given
        self._remember(block, v, change, adapter[TABLE], parts)
        counts = block.mask.flatten(1).sum(-1)
        return ClientUpdates({TABLE: change}, losses / counts.clamp(min=1), block.rows, self.items, counts > 0)

    def _step(self, own: Tensor, v: Tensor, batch: "Batch") -> Tensor:
        """One step on a batch; moves the rows in place, and returns the new private part."""
        errors = batch.errors(v)
        slope = torch.cat([(errors.unsqueeze(-1) * batch.vectors).sum(1), errors.sum(1, keepdim=True)], dim=1)
        moved = v - self.config.baseline_rate * slope * self._moves  # (C, D+1)
        along, errors = (moved, batch.errors(moved)) if self.dual else (v, errors)
        pulls = torch.zeros(own.shape[:2]).scatter_add_(1, batch.places, errors)  # (C, M) each row's, of its examples
        rate = self.config.baseline_item_rate * self.items
        own.addcmul_(pulls.unsqueeze(-1), along[:, None, :-1], value=-rate)  # a score's gradient by its item is v
        return moved

    def _remember(self, examples: Examples, v: Tensor, change: Tensor, table: Tensor, parts: UserStates) -> None:
        gains = (change * v[:, None, :-1]).sum(-1)  # (C, M)
        for client, user in enumerate(examples.users):
            own = PersonalTable(table, examples.rows[client].clone(), gains[client].clone()) if self.dual else None
            parts[user] = UserState(
                v[client].clone(), own
            )  # not a view: it is kept, and the others of its block are not

    def scorer(self, adapter: Adapter, shard: Shard, split: str, parts: UserStates) -> UserScorer:
        def scores(user: int) -> Tensor:
            v, own = parts.get(user) or self.start(shard.salts[user])
            table = own.given if own else adapter[TABLE]
            found = table @ v[:-1] + v[-1]  # (N,)
            return found.index_add_(0, own.rows, own.gains) if own else found

        def score(users: Iterable[int]) -> Tensor:
            return torch.stack([scores(user) for user in users])

        return score


class Batch(NamedTuple):
    """Some examples of each client."""

    vectors: Tensor  # (C, W, D) of their items, before the step
    places: Tensor  # (C, W) among the client's rows
    labels: Tensor  # (C, W)
    mask: Tensor  # (C, W)

    @classmethod
    def of(cls, examples: Examples, step: int, own: Tensor) -> "Batch":
        clients, rows, width = own.shape
        places, labels, mask = (c[:, step] for c in (examples.places, examples.labels, examples.mask))
        first = torch.arange(0, clients * rows, rows).unsqueeze(1)
        return cls(own.view(-1, width)[places + first], places, labels, mask)

    def scores(self, v: Tensor) -> Tensor:
        return (self.vectors * v[:, None, :-1]).sum(-1) + v[:, -1:]  # (C, W)

    def losses(self, v: Tensor) -> Tensor:
        """Each client's sum: (C,)."""
        losses = F.binary_cross_entropy_with_logits(self.scores(v), self.labels, reduction="none")
        return (losses * self.mask).sum(-1)

    def errors(self, v: Tensor) -> Tensor:
        """The gradient of the batch's mean loss by each score: (C, W)."""
        counts = self.mask.sum(-1, keepdim=True).clamp(min=1)
        return (self.scores(v).sigmoid() - self.labels) * self.mask / counts
