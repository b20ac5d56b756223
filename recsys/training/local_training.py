"""The only training loop we own: a cohort's clients fine-tune their copies of the adapter, all in one pass."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from pydantic import ConfigDict
from torch import Tensor

from fedrec.data.randomness import Stream, random_stream
from fedrec.data.shard import Cohort
from fedrec.recsys.hardware import fast_bfloat16, free_memory, workers
from fedrec.recsys.model.lora import Adapter, Stack, with_changes
from fedrec.recsys.model.two_tower import Model
from fedrec.recsys.training.loss import client_means, event_means, sampled_softmax


@dataclass(frozen=True)
class FitConfig:
    """What a client does with the adapter it gets."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    local_steps: Annotated[int, Ge(1)] = 1
    """Steps of plain gradient descent on the client's own loss, each round."""
    local_rate: Annotated[float, Gt(0)] = 1.0
    """Length of a local step."""
    event_dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of the events that a client does not read in a step."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of the input of the user tower's head that is left out in a step."""
    negatives: Annotated[int, Ge(1)] = 512
    """Items that each client draws in each step, to compare its own with."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of matrix products; auto: bfloat16 if the processor is fast at it."""


@dataclass(frozen=True, eq=False)
class ClientUpdates:
    """What training did to each client of a block."""

    deltas: Stack  # name → (C, …): the client's adapter minus the one it was given
    losses: Tensor  # (C,) before the first step, or the last one of a walk
    rows: Tensor | None = None  # (C, M) those rows of a table of `items` that the deltas (C, M, …) are of; None: all
    items: int = 0
    learners: Tensor | None = None  # (C,) True for a client with an example to learn from; None: all have one


def draw_negatives(config: FitConfig, items: int, salts: np.ndarray, seed: int, round: int, step: int) -> Tensor:
    """The rows of each client's negatives in one step: (C,) → (C, K), drawn without looking at anyone's history.

    A draw belongs to the client (its salt): the same on any node, and another than its neighbours'. Where all clients
    draw the same, what their losses miss of the catalogue is missing from their mean too, and that is what is learned.
    """
    if config.negatives >= items:
        return torch.arange(items).expand(len(salts), -1)
    rngs = (random_stream(Stream.NEGATIVES, seed, round, step, salt) for salt in salts.tolist())
    return torch.from_numpy(np.stack([rng.choice(items, config.negatives, replace=False) for rng in rngs]))


def train_clients(
    model: Model, adapter: Adapter, block: Cohort, embeddings: Tensor, config: FitConfig, stream: tuple[int, int]
) -> ClientUpdates:
    """Train every client of a block alone, all in one pass. `stream` is the run's seed and the round."""
    path = list(local_sgd(model, adapter, repeat(block, config.local_steps), embeddings, config, stream))
    return replace(path[-1], losses=path[0].losses)


def local_sgd(
    model: Model,
    adapter: Adapter,
    steps: Iterable[Cohort],
    embeddings: Tensor,
    config: FitConfig,
    stream: tuple[int, int],
    parts: tuple[str, ...] = ("item", "user"),
) -> Iterator[ClientUpdates]:
    """Walk downhill with some of the same clients' events in each step: C adapters over one frozen model, of which
    `parts` move.

    The loss is the sum over clients of each client's mean loss. The adapters are disjoint, so its gradient holds
    every client's own gradient, and a client gets exactly what it would get in a cohort of one.
    Yields after each step what the clients have become so far, and their losses before it; the next step writes on
    in the same tensors. Parts are beginnings of parameters' names. All tensors live on one device.
    """
    changes: Stack = {}
    for step, block in enumerate(steps):
        company, own = pad_single_client(block), slice(len(block))
        stack = with_changes(adapter, changes, len(company))
        learned = {name: tensor.requires_grad_() for name, tensor in stack.items() if name.startswith(parts)}
        losses = client_losses(model, stack, company, embeddings, config, (*stream, step))
        downhill = torch.autograd.grad(-config.local_rate * losses.sum(), list(learned.values()))
        for name, change in zip(learned, downhill, strict=True):
            changes[name] = changes[name].add_(change) if name in changes else change
        deltas = {name: change[own] for name, change in changes.items()}
        yield ClientUpdates(deltas, losses.detach()[own], learners=learners(block).to(losses.device))


def learners(block: Cohort) -> Tensor:
    """Tell which clients have an event to predict, and one before it to predict it from: (C,)."""
    return torch.from_numpy(block.mask[..., :-1].any(axis=(1, 2)))


EVENTS = {"cpu": 4096, "cuda": 2**20}
"""Of a block at most, padding included: larger ones were no faster (docs/performance.md)."""
LEAST = 1024
"""Of a block where there are cores for more blocks: a smaller one is mostly Python, which runs on one core at a time,
and more of them keep each other waiting."""
CLIENTS = 128
BYTES = 300_000
"""Memory that an event of a block takes, measured with the default model and histories of eight events, where each
client's candidates weigh most; of fifty, it is 120 kB."""


def blocks(cohort: Cohort, on: torch.device) -> Iterator[Cohort]:
    """A cohort in blocks: none larger than pays or than memory allows, and, where that pays, one for each worker."""
    room = free_memory(on) // (2 * workers() * BYTES)
    share = max(LEAST, -(-int(cohort.mask.sum()) // workers()))
    for _, block in cohort.blocks(min(EVENTS[on.type], room, share), CLIENTS if on.type == "cpu" else len(cohort)):
        yield block


def pad_single_client(block: Cohort) -> Cohort:
    """A lone history is trained beside a copy of itself.

    A batched matrix product of one takes another path through the BLAS than one of two or more, and rounds
    differently; so do products of very few rows. From two on, every client's arithmetic is the same in any company.
    """
    if block.items.shape[:2] != (1, 1):
        return block
    return Cohort(*(np.concatenate([column, column]) for column in (block.items, block.mask, block.read, block.salts)))


def client_losses(
    model: Model, stack: Stack, cohort: Cohort, embeddings: Tensor, config: FitConfig, stream: tuple[int, int, int]
) -> Tensor:
    """Each client's mean loss of predicting its next events with its own adapter: (C,).

    `stream` is the run's seed, the round and the step, from which, with its salt, each client draws.
    """
    on, cohort = embeddings.device, cohort.with_event_dropout(config.event_dropout, *stream)
    rows = draw_negatives(config, len(embeddings), cohort.salts, *stream).to(on)
    lower = config.precision == "bfloat16" or (config.precision == "auto" and fast_bfloat16(on))
    means, counted = [], []
    for part in cohort.split_by_length():
        columns = (part.items, part.mask, part.read)
        items, mask, read = (torch.from_numpy(column).to(on) for column in columns)  # (C, b, L+1)
        kept = dropout_mask(config, part, model.user.width, stream)
        with torch.autocast(on.type, torch.bfloat16, enabled=lower):
            inputs = (embeddings[items], read, embeddings, rows, None if kept is None else kept.to(on))
            following, others = model.under(stack, "", *inputs)
        hits = items[..., 1:, None] == rows[:, None, None]  # (C, b, L, K)
        means.append(event_means(sampled_softmax(following, others, hits, len(embeddings)), mask[..., :-1]))
        counted.append(mask[..., :-1].any(-1))
    return client_means(torch.cat(means, 1), torch.cat(counted, 1))


def dropout_mask(config: FitConfig, part: Cohort, width: int, stream: tuple[int, int, int]) -> Tensor | None:
    """What of the user tower's states its head reads: 0, or what makes up for the zeros; (C, b, L, D), each client's
    own draw. None, where all is read. Srivastava et al. 2014, JMLR 15(56).
    """
    if not config.dropout:
        return None
    shape = (part.items.shape[1], part.items.shape[2] - 1, width)
    rngs = (random_stream(Stream.HEAD_DROPOUT, *stream, salt) for salt in part.salts.tolist())
    kept = np.stack([rng.random(shape, dtype=np.float32) >= config.dropout for rng in rngs])
    return torch.from_numpy(kept) / (1 - config.dropout)
