"""What the clients of a peer train on: their own items, and for each of these some drawn that are not theirs.

Shapes: S batches of W examples each; M = S·W rows of the table at most, that a client's examples are of.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from pydantic import ConfigDict
from torch import Tensor

from fedrec.data.randomness import Stream, random_stream
from fedrec.data.shard import HELD_OUT, Shard, check_rows

ROWS = 2**15
"""Of tables that a block holds at most, all clients together; but always one client."""

WIDTH_STEP = 32
"""A client with less than one batch of examples is padded to the next multiple of it."""


@dataclass(frozen=True)
class PeerConfig:
    """How the peers learn; with their authors' settings."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    baseline_dim: Annotated[int, Ge(1)] = 32
    """Of a peer: width of an item's vector."""
    baseline_negatives: Annotated[int, Ge(1)] = 4
    """Of a peer: items drawn for each of a client's own items, each round anew."""
    baseline_batch: Annotated[int, Ge(1)] = 256
    """Of a peer: examples of a local step."""
    baseline_rate: Annotated[float, Gt(0)] = 0.1
    """Of a peer: length of a step of the private part."""
    baseline_item_rate: Annotated[float, Gt(0)] = 8.0
    """Of a peer: length of a step of the shared table, times the number of items."""
    baseline_leak: bool = False
    """Of a peer: draw no held-out item as a negative, as the authors' code does. It tells which item is held out."""


@dataclass(frozen=True, eq=False)
class Examples:
    """A round's examples of some clients, all of one shape, which depends on each client alone."""

    users: list[int]  # C
    salts: np.ndarray  # (C,)
    rows: Tensor  # (C, M) the items that a client's examples are of, each once; 0 where there are fewer
    places: Tensor  # (C, S, W) where among these an example's item stands
    labels: Tensor  # (C, S, W) 1 for the client's own items, 0 for drawn ones
    mask: Tensor  # (C, S, W) True where there is an example


def blocks(
    config: PeerConfig, shard: Shard, users: np.ndarray, items: int, stream: tuple[int, int]
) -> Iterator[Examples]:
    """The users' examples in blocks of one shape each; `stream` is the run's seed and the round.

    With arithmetic on padded numbers of a length that depends on a client alone, a client gets the same in any company.
    """
    counts = (shard.ends[users] - shard.starts[users] - HELD_OUT["train"]) * (1 + config.baseline_negatives)
    steps = np.maximum(1, -(-counts // config.baseline_batch))
    widths = np.clip(-(-counts // WIDTH_STEP) * WIDTH_STEP, 1, config.baseline_batch)
    shapes = np.stack([steps, widths], axis=1)
    for shape in np.unique(shapes, axis=0)[::-1]:
        alike = users[(shapes == shape).all(axis=1)]
        size = max(1, ROWS // int(shape.prod()))
        for part in np.array_split(alike, -(-len(alike) // size)):
            drawn = [sample_examples(config, shard, user, items, stream) for user in part.tolist()]
            yield Examples(part.tolist(), shard.salts[part], *_padded(drawn, int(shape[0]), int(shape[1])))


def sample_examples(
    config: PeerConfig, shard: Shard, user: int, items: int, stream: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A user's examples of a round, shuffled: items and whether they are its own, (n,) both.

    The draw belongs to the user (its salt), the round and the seed. Without the leak nothing of it depends on what
    is held out.
    """
    rng = random_stream(Stream.BASELINE_EXAMPLES, *stream, shard.salts[user])
    own = np.asarray(shard.history(user, "train"), dtype=np.int64)
    known = [own]
    if config.baseline_leak:
        known += [shard.history(user, "test"), shard.held_out(shard.ranked([user]), "test")]
    check_rows(np.concatenate(known), items)
    others = np.delete(np.arange(items), np.concatenate(known))
    drawn = others[rng.integers(len(others), size=len(own) * config.baseline_negatives)] if len(others) else others
    order = rng.permutation(len(own) + len(drawn))
    return np.concatenate([own, drawn])[order], order < len(own)


def _padded(drawn: list[tuple[np.ndarray, np.ndarray]], steps: int, width: int) -> list[Tensor]:
    """Rows, places, labels and mask of clients' examples."""
    shape = (len(drawn), steps * width)
    rows, places = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    labels, mask = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool)
    for client, (items, own) in enumerate(drawn):
        distinct, inverse = np.unique(items, return_inverse=True)
        rows[client, : len(distinct)] = distinct
        places[client, : len(items)], labels[client, : len(items)] = inverse, own
        mask[client, : len(items)] = True
    batched = [torch.from_numpy(column).unflatten(1, (steps, width)) for column in (places, labels, mask)]
    return [torch.from_numpy(rows), *batched]
