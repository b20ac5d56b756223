"""SASRec (Kang and McAuley 2018, arXiv:1808.09781): a causal transformer over item ids, the sequential baseline.

The loss is the softmax over the whole catalogue, which makes it strong (Klenitskiy and Vasilev 2023,
arXiv:2309.07602), or over a sample of it that a batch shares if the catalogue is large. Each epoch samples a window of
each user's history; every position predicts the next event.

Shapes: B users, L events, D width, H heads, N items, K sampled items, T events of a batch.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from fedrec.data.errors import InputError
from fedrec.data.shard import HELD_OUT, Shard
from fedrec.recsys.evaluation.ranking import metric_means, metric_sums, rank, sample_users
from fedrec.recsys.hardware import device
from fedrec.recsys.model.scoring import Scorer
from fedrec.recsys.training.loss import sampled_softmax

VALIDATION_USERS = 2000
"""Maximum users that are ranked in a validation."""


@dataclass(frozen=True)
class SASRecConfig:
    """The architecture and the training of the model."""

    width: Annotated[int, Ge(1)] = 64
    layers: Annotated[int, Ge(1)] = 2
    heads: Annotated[int, Ge(1)] = 2
    length: Annotated[int, Ge(1)] = 50  # most recent events that the model reads
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.2
    batch: Annotated[int, Ge(1)] = 128  # users
    rate: Annotated[float, Gt(0)] = 1e-3  # Adam's learning rate
    candidates: Annotated[int, Ge(1)] = 8192  # items in the softmax; a smaller catalogue is used whole
    epochs: Annotated[int, Ge(1)] = 200  # at most; each reads a window of each user
    validate_every: Annotated[int, Ge(1)] = 1  # epochs
    patience: Annotated[int, Ge(1)] = 10  # validations without an improvement before training stops


@dataclass(frozen=True)
class Epoch:
    """The result of one epoch of training."""

    epoch: int  # from 1
    loss: float  # mean over its events, in nats
    ndcg: float | None  # NDCG@10 on the validation users; None if the epoch was not validated


class SASRec(nn.Module):
    """The model: left-aligned histories → after each event, a vector whose product with an item's scores the next."""

    def __init__(self, items: int, config: SASRecConfig) -> None:
        super().__init__()
        if config.width % config.heads:
            raise InputError(f"`heads` = {config.heads} does not divide `width` = {config.width}; choose others")
        self.config = config
        self.items = nn.Embedding(items, config.width)
        self.positions = nn.Embedding(config.length, config.width)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.layers)))
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        for weights in (parameter for parameter in self.parameters() if parameter.dim() == 2):
            nn.init.normal_(weights, std=0.02)

    def forward(self, items: Tensor) -> Tensor:  # (B, L) → (B, L, D)
        position_ids = torch.arange(items.shape[1], device=items.device)
        return self.norm(self.blocks(self.dropout(self.items(items) + self.positions(position_ids))))


class Block(nn.Module):
    """A pre-norm transformer block: causal self-attention, then a feed-forward layer, each with a residual."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, D) → (B, L, D)
        x = x + self.dropout(self.proj(self._attend(self.qkv(self.norm1(x)))))
        return x + self.dropout(self.fc2(F.gelu(self.fc1(self.norm2(x)))))

    def _attend(self, x: Tensor) -> Tensor:  # (B, L, 3·D) → (B, L, D)
        query, key, value = x.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, L, D/H) each
        return F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2)


def fit_sasrec(
    shard: Shard, items: int, config: SASRecConfig, generator: np.random.Generator, observe: Callable[[Epoch], None]
) -> SASRec:
    """Train on the events before the validation items, and return the weights of the epoch that ranks these best.

    `observe` is called after each epoch. At most 2,000 users are ranked in a validation, sampled once. All random
    numbers derive from `generator`; the state of torch's generators is restored.
    """
    on = device()
    with torch.random.fork_rng([on] if on.type == "cuda" else []):
        torch.manual_seed(int(generator.integers(2**63)))
        model = SASRec(items, config).to(on)
        _train(model, shard, generator, observe)
    return model.eval()


def sasrec_scorer(model: SASRec) -> Scorer:
    """Return a scorer of a trained model. An empty history scores zeros."""
    table = model.items.weight

    @torch.no_grad()
    def score(histories: Sequence[np.ndarray]) -> Tensor:
        items, mask = pad_histories([history[-model.config.length :] for history in histories], table.device)
        last = mask.sum(1, keepdim=True).sub(1).clamp(min=0).unsqueeze(-1)  # (B, 1, 1)
        users = model(items).take_along_dim(last, 1)[:, 0]  # (B, L, D) → (B, D)
        return (users * mask.any(1, keepdim=True)) @ table.T  # (B, N)

    return score


def pad_histories(histories: Sequence[np.ndarray], on: torch.device) -> tuple[Tensor, Tensor]:
    """Pad histories at the right. Return their items and the mask of their events: (B, L) both."""
    lengths = np.fromiter(map(len, histories), dtype=np.int64, count=len(histories))
    mask = np.arange(max(1, lengths.max(initial=1))) < lengths[:, None]
    items = np.zeros(mask.shape, dtype=np.int64)
    items[mask] = np.concatenate(histories)
    return torch.from_numpy(items).to(on), torch.from_numpy(mask).to(on)


def _train(model: SASRec, shard: Shard, generator: np.random.Generator, observe: Callable[[Epoch], None]) -> None:
    """Train until the last epoch, or until validation stops improving; keep the best weights."""
    config, users = model.config, sample_users(shard, VALIDATION_USERS, generator)
    adam = torch.optim.Adam(model.parameters(), lr=config.rate)
    best, weights, stale = -math.inf, model.state_dict(), 0
    for epoch in range(1, config.epochs + 1):
        loss, ndcg = _train_epoch(model, adam, _sample_windows(shard, config, generator)), None
        if epoch % config.validate_every == 0 or epoch == config.epochs:
            ranks = rank(sasrec_scorer(model.eval()), shard, users, "validation").ranks
            ndcg = metric_means(metric_sums(ranks))["ndcg@10"]
            stale += 1
            if ndcg > best:
                best, weights, stale = ndcg, copy.deepcopy(model.state_dict()), 0
        observe(Epoch(epoch, loss, ndcg))
        if stale >= config.patience:
            break
    model.load_state_dict(weights)


def _sample_windows(shard: Shard, config: SASRecConfig, generator: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """Iterate over the batches of an epoch: a window of the training events of each user who has two or more."""
    users = generator.permutation(np.flatnonzero(shard.lengths(HELD_OUT["train"]) > 1))
    for start in range(0, len(users), config.batch):
        histories = [shard.history(user, "train") for user in users[start : start + config.batch]]
        spare = np.array([max(0, len(history) - config.length - 1) for history in histories])
        begins = generator.integers(spare + 1)
        yield [history[begin : begin + config.length + 1] for history, begin in zip(histories, begins, strict=True)]


def _train_epoch(model: SASRec, adam: torch.optim.Adam, batches: Iterator[list[np.ndarray]]) -> float:
    """Train for one epoch. Return the mean loss of its events, in nats."""
    model.train()
    total, events = 0.0, 0
    for batch in batches:
        losses = _event_losses(model, *pad_histories(batch, model.items.weight.device))
        adam.zero_grad()
        losses.mean().backward()
        adam.step()
        total, events = total + losses.sum().item(), events + len(losses)
    return total / max(events, 1)


def _event_losses(model: SASRec, items: Tensor, mask: Tensor) -> Tensor:
    """Compute the cross-entropy of each event that follows another: (B, L+1) → (T,)."""
    table, valid = model.items.weight, mask[:, 1:]
    users, following = model(items[:, :-1])[valid], items[:, 1:][valid]  # (T, D), (T,)
    if len(table) <= model.config.candidates:
        return F.cross_entropy(users @ table.T, following, reduction="none")
    rows = torch.randperm(len(table), device=table.device)[: model.config.candidates]  # (K,)
    hits = following.unsqueeze(-1) == rows  # (T, K)
    return sampled_softmax((users * table[following]).sum(-1), users @ table[rows].T, hits, len(table))
