"""The training examples of a federated baseline: a client's own items, and negatives sampled from the others.

Shapes: C clients; S batches of W examples each; M = S·W rows of the item table, an upper bound of those that a client's
examples refer to; D width of an item vector.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedrec.data.randomness import Stream, random_stream
from fedrec.data.shard import HELD_OUT, Shard, check_rows
from fedrec.recsys.training.baseline_config import FederatedBaselineConfig

MAX_ROWS = 2**15
"""An upper bound of the item vectors in a block, over all its clients. A block always holds one client."""

WIDTH_STEP = 32
"""A client with less than one batch of examples is padded to the next multiple of it."""


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of some clients in one round, all of one shape, which depends on each client alone."""

    users: list[int]  # C
    salts: np.ndarray  # (C,)
    rows: Tensor  # (C, M) the items of a client's examples, each once; padded with 0
    places: Tensor  # (C, S, W) the index of an example's item in `rows`
    labels: Tensor  # (C, S, W) 1 for the client's own items, 0 for negatives
    mask: Tensor  # (C, S, W) False for padding


class Batch(NamedTuple):
    """One batch of each client, with the vectors of its items before the step.

    `user_vectors` are (C, D+1): D weights, then the bias.
    """

    vectors: Tensor  # (C, W, D)
    places: Tensor  # (C, W) the index of an example's item among the client's rows
    labels: Tensor  # (C, W)
    mask: Tensor  # (C, W)

    @classmethod
    def gather(cls, examples: Examples, step: int, tables: Tensor) -> "Batch":
        """Take batch number `step` of every client, and its items' vectors from the clients' tables (C, M, D)."""
        clients, rows, width = tables.shape
        places, labels, mask = (c[:, step] for c in (examples.places, examples.labels, examples.mask))
        first = torch.arange(0, clients * rows, rows).unsqueeze(1)
        return cls(tables.view(-1, width)[places + first], places, labels, mask)

    def scores(self, user_vectors: Tensor) -> Tensor:
        """Score every example, as a logit: (C, W)."""
        return (self.vectors * user_vectors[:, None, :-1]).sum(-1) + user_vectors[:, -1:]

    def losses(self, user_vectors: Tensor) -> Tensor:
        """Compute each client's summed binary cross-entropy: (C,)."""
        losses = F.binary_cross_entropy_with_logits(self.scores(user_vectors), self.labels, reduction="none")
        return (losses * self.mask).sum(-1)

    def score_gradients(self, user_vectors: Tensor) -> Tensor:
        """Compute the gradient of each client's mean loss by each of its scores: (C, W)."""
        counts = self.mask.sum(-1, keepdim=True).clamp(min=1)
        return (self.scores(user_vectors).sigmoid() - self.labels) * self.mask / counts

    def user_gradients(self, errors: Tensor) -> Tensor:
        """Compute the gradient of each client's mean loss by its user vector, from those by its scores: (C, D+1)."""
        return torch.cat([(errors.unsqueeze(-1) * self.vectors).sum(1), errors.sum(1, keepdim=True)], dim=1)


def example_blocks(
    config: FederatedBaselineConfig, shard: Shard, users: np.ndarray, items: int, stream: tuple[int, int]
) -> Iterator[Examples]:
    """Sample the users' examples, in blocks of one shape each. `stream` is the run's seed and the round.

    The length to which a client is padded depends on that client alone, so its arithmetic is the same in any cohort.
    """
    counts = shard.lengths(HELD_OUT["train"])[users] * (1 + config.baseline_negatives)
    steps = np.maximum(1, -(-counts // config.baseline_batch))
    widths = np.clip(-(-counts // WIDTH_STEP) * WIDTH_STEP, 1, config.baseline_batch)
    shapes = np.stack([steps, widths], axis=1)
    for shape in np.unique(shapes, axis=0)[::-1]:
        alike = users[(shapes == shape).all(axis=1)]
        size = max(1, MAX_ROWS // int(shape.prod()))
        for part in np.array_split(alike, -(-len(alike) // size)):
            samples = [sample_examples(config, shard, user, items, stream) for user in part.tolist()]
            yield Examples(part.tolist(), shard.salts[part], *_pad_examples(samples, int(shape[0]), int(shape[1])))


def sample_examples(
    config: FederatedBaselineConfig, shard: Shard, user: int, items: int, stream: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Sample a user's examples of a round, shuffled. Return the items, and whether they are the user's own: (n,) both.

    The sample depends on the user (its salt), the round and the seed. Without the leak it does not depend on the
    held-out items.
    """
    rng = random_stream(Stream.BASELINE_EXAMPLES, *stream, shard.salts[user])
    own = np.asarray(shard.history(user, "train"), dtype=np.int64)
    excluded = [own]
    if config.baseline_leak:
        excluded += [shard.history(user, "test"), shard.held_out(shard.ranked([user]), "test")]
    check_rows(np.concatenate(excluded), items)
    others = np.delete(np.arange(items), np.concatenate(excluded))
    negatives = others[rng.integers(len(others), size=len(own) * config.baseline_negatives)] if len(others) else others
    order = rng.permutation(len(own) + len(negatives))
    return np.concatenate([own, negatives])[order], order < len(own)


def _pad_examples(samples: list[tuple[np.ndarray, np.ndarray]], steps: int, width: int) -> list[Tensor]:
    """Pad clients' examples to one shape. Return the rows, places, labels and mask of `Examples`."""
    shape = (len(samples), steps * width)
    rows, places = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    labels, mask = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool)
    for client, (items, own) in enumerate(samples):
        distinct, inverse = np.unique(items, return_inverse=True)
        rows[client, : len(distinct)] = distinct
        places[client, : len(items)], labels[client, : len(items)] = inverse, own
        mask[client, : len(items)] = True
    batched = [torch.from_numpy(column).unflatten(1, (steps, width)) for column in (places, labels, mask)]
    return [torch.from_numpy(rows), *batched]
