"""The project's only training loop: the clients of a cohort fine-tune their copies of the adapter, all in one pass.

Shapes: C clients, B examples of a client (b after trimming), L events, K negatives, N items, E embedding, D hidden
states of the user tower.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from pydantic import ConfigDict
from torch import Tensor

from fedrec.data.randomness import DrawKey, Stream, random_stream
from fedrec.data.shard import Cohort
from fedrec.recsys.hardware import fast_bfloat16, free_memory, keep_freed_memory, workers
from fedrec.recsys.model.item_tower import Candidates, SharedTables
from fedrec.recsys.model.lora import Adapter, Stack, with_changes
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.training.loss import client_means, event_means, sampled_softmax


@dataclass(frozen=True)
class FitConfig:
    """The hyperparameters of local training on a client."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    local_steps: Annotated[int, Ge(1)] = 1
    """Steps of plain gradient descent on the client's own loss, each round."""
    local_rate: Annotated[float, Gt(0)] = 1.0
    """Learning rate of a local step."""
    event_dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of the events that the user tower does not read in a step; they are still predicted."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Dropout rate at the input of the user tower's head."""
    negatives: Annotated[int, Ge(1)] = 512
    """Negatives of each client in each step."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products; auto: bfloat16 if the processor is fast at it."""


@dataclass(frozen=True, eq=False)
class ClientUpdates:
    """The result of local training, for each client of a block."""

    deltas: Stack  # name → (C, …): the client's adapter minus the one it started from
    losses: Tensor  # (C,) mean loss before the first step; in the steps of `local_sgd`, before that step
    rows: Tensor | None = None  # (C, M) if the deltas (C, M, …) are of these rows of a table only; None: of all
    items: int = 0  # rows of that table
    learners: Tensor | None = None  # (C,) True for a client that has an example; None: all have one


@dataclass(frozen=True, eq=False)
class LocalTrainer:
    """The model, the trainable items and the hyperparameters that local training uses. All tensors are on one device.

    `parts` are the beginnings of the names of the parameters that are trained.
    """

    model: TwoTowerModel
    embeddings: Tensor  # (N, E) of the items that training may use; items of a cohort are its rows
    config: FitConfig
    parts: tuple[str, ...] = ("item", "user")

    def __post_init__(self) -> None:
        keep_freed_memory()

    def train_clients(
        self, adapter: Adapter, block: Cohort, key: DrawKey, tables: SharedTables | None = None
    ) -> ClientUpdates:
        """Train every client of a block by itself, all in one pass. `key` holds the run's seed and the round.

        `tables` are of the first step's negatives, and shared by the blocks of a round.
        """
        path = list(self.local_sgd(adapter, repeat(block, self.config.local_steps), key, tables))
        return replace(path[-1], losses=path[0].losses)

    def local_sgd(
        self, adapter: Adapter, steps: Iterable[Cohort], key: DrawKey, tables: SharedTables | None = None
    ) -> Iterator[ClientUpdates]:
        """Run local SGD for C clients at once, on one block of the same clients' events per step.

        The loss is the sum over clients of each client's mean loss. The adapters are disjoint, so its gradient holds
        every client's own gradient, and a client gets exactly what it would get in a cohort of one.
        Yields the updates so far after each step; the next step writes to the same tensors.
        """
        changes: Stack = {}
        for step, block in enumerate(steps):
            padded, own = pad_single_client(block), slice(len(block))
            stack = with_changes(adapter, changes, len(padded))
            trained = {name: tensor.requires_grad_() for name, tensor in stack.items() if name.startswith(self.parts)}
            losses = self.client_losses(stack, padded, replace(key, step=step), tables)
            descent = torch.autograd.grad(-self.config.local_rate * losses.sum(), list(trained.values()))
            for name, change in zip(trained, descent, strict=True):
                changes[name] = changes[name].add_(change) if name in changes else change
            deltas = {name: change[own] for name, change in changes.items()}
            yield ClientUpdates(deltas, losses.detach()[own], learners=have_examples(block).to(losses.device))

    def client_losses(self, stack: Stack, cohort: Cohort, key: DrawKey, tables: SharedTables | None = None) -> Tensor:
        """Compute each client's mean loss of predicting its next events with its own adapter: (C,)."""
        # What the clients sample for this step
        device, config = self.embeddings.device, self.config
        cohort = cohort.with_event_dropout(config.event_dropout, key)
        negatives = sample_negatives(config, len(self.embeddings), cohort.salts, key, device)._replace(tables=tables)
        rows = negatives.per_client()

        # Losses of examples of one length after the other
        means, counted = [], []
        for part in cohort.split_by_length():
            columns = (part.items, part.mask, part.read)
            items, mask, read = (torch.from_numpy(column).to(device) for column in columns)  # (C, b, L+1)
            dropped = dropout_mask(config, part, self.model.user.width, key)
            inputs = (
                self.embeddings[items],
                read,
                self.embeddings,
                negatives,
                None if dropped is None else dropped.to(device),
            )
            with torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(config, device)):
                following, others = self.model.functional_forward(stack, "", *inputs)
            hits = items[..., 1:, None] == rows[:, None, None]  # (C, b, L, K)
            losses = sampled_softmax(following, others, hits, len(self.embeddings))  # (C, b, L)
            means.append(event_means(losses, mask[..., :-1]))
            counted.append(mask[..., :-1].any(-1))
        return client_means(torch.cat(means, 1), torch.cat(counted, 1))


NEGATIVE_GROUPS = 16
"""Groups of clients in a round, each with a sample of negatives: many enough that the errors of the samples average
out, and few enough that the clients of a block share them. A power of two."""


def negative_groups(salts: np.ndarray, key: DrawKey) -> np.ndarray:
    """Return the group of each client in a round, by a hash of its salt: (C,) → (C,).

    It is multiply-shift hashing: Dietzfelbinger et al. 1997, doi:10.1006/jagm.1997.0873.
    """
    rng = random_stream(Stream.NEGATIVE_GROUPS, key.seed, key.round)
    odd = rng.integers(2**63, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return ((salts * odd) >> np.uint64(65 - NEGATIVE_GROUPS.bit_length())).astype(np.int64)


def sample_negatives(
    config: FitConfig, items: int, salts: np.ndarray, key: DrawKey, device: torch.device
) -> Candidates:
    """Sample the rows of each client's negatives in one step, independent of its history.

    The items are dealt to the groups like cards, and a client has its group's: the same on any node, in any cohort. If
    all clients sampled the same items, the error of the sample would not average out over clients, and would be
    learned. The fewer clients next to each other are of one group, the longer it takes.
    """
    count = config.negatives
    if count >= items:
        return Candidates(torch.arange(items, device=device).unsqueeze(0), (len(salts),), (key,))
    groups = negative_groups(salts, key)
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    dealt = random_stream(Stream.NEGATIVES, key.seed, key.round, key.step).choice(
        items, min(items, count * NEGATIVE_GROUPS), replace=False
    )
    rows = dealt[(groups[starts, None] * count + np.arange(count)) % len(dealt)]
    sizes, names = np.diff(starts, append=len(salts)).tolist(), [(key, group) for group in groups[starts].tolist()]
    return Candidates(torch.from_numpy(rows).to(device), tuple(sizes), tuple(names))


def dropout_mask(config: FitConfig, part: Cohort, width: int, key: DrawKey) -> Tensor | None:
    """Sample the inverted-dropout mask for the input of the user tower's head: (C, b, L, D), each client's own.

    Its numbers are 0 or 1 / (1 - dropout). None if nothing is dropped. Srivastava et al. 2014, JMLR 15(56).
    """
    if not config.dropout:
        return None
    shape = (part.items.shape[1], part.items.shape[2] - 1, width)
    rngs = key.client_streams(Stream.HEAD_DROPOUT, part.salts)
    kept = np.stack([rng.random(shape, dtype=np.float32) >= config.dropout for rng in rngs])
    return torch.from_numpy(kept) / (1 - config.dropout)


def uses_bfloat16(config: FitConfig, device: torch.device) -> bool:
    """Tell whether matrix products on a device are computed in bfloat16."""
    return config.precision == "bfloat16" or (config.precision == "auto" and fast_bfloat16(device))


def have_examples(block: Cohort) -> Tensor:
    """Tell which clients have an event to predict, and one before it to predict it from: (C,)."""
    return torch.from_numpy(block.mask[..., :-1].any(axis=(1, 2)))


def pad_single_client(block: Cohort) -> Cohort:
    """Append a copy of a single history to itself, so that it is not trained alone.

    A batched matrix product of one takes another path through the BLAS than one of two or more, and rounds
    differently; so do products of very few rows. From two on, a client's arithmetic is the same in any cohort.
    """
    if block.items.shape[:2] != (1, 1):
        return block
    return Cohort(*(np.concatenate([column, column]) for column in (block.items, block.mask, block.read, block.salts)))


MAX_EVENTS = {"cpu": 4096, "cuda": 2**20}
"""Maximum events of a block, padding included, by device; larger blocks were not faster (docs/performance.md)."""
MIN_EVENTS = 1024
"""Events below which a block is not split further among workers: the time of smaller blocks is mostly Python's, which
runs on one core at a time."""
MAX_CLIENTS = 128
"""Maximum clients of a block on a CPU."""
BYTES_PER_EVENT = 300_000
"""Memory that an event of a block takes, measured with the default model and histories of eight events, of which each
client's candidates take most; with histories of fifty, it is 120 kB."""


def training_blocks(cohort: Cohort, on: torch.device) -> Iterator[Cohort]:
    """Split a cohort into blocks that fit into memory: about one per worker, if they are large enough to pay."""
    memory_limit = free_memory(on) // (2 * workers() * BYTES_PER_EVENT)
    share = max(MIN_EVENTS, -(-int(cohort.mask.sum()) // workers()))
    events = min(MAX_EVENTS[on.type], memory_limit, share)
    for _, block in cohort.blocks(events, MAX_CLIENTS if on.type == "cpu" else len(cohort)):
        yield block
