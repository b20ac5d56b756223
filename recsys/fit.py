"""The only training loop we own: a cohort's clients fine-tune their copies of the adapter, all in one pass."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.func import functional_call

from data.shard import NEGATIVES, Cohort
from recsys.lora import Adapter, Stack, stacked
from recsys.loss import client_means, sampled_softmax
from recsys.model import Model


@dataclass(frozen=True)
class FitConfig:
    """What a client does with the adapter it gets."""

    local_steps: Annotated[int, Ge(1)] = 1  # steps of plain gradient descent on the client's own loss
    local_rate: Annotated[float, Gt(0)] = 1.0  # their length
    negatives: Annotated[int, Ge(1)] = 512  # items drawn each step, the same for all clients
    precision: Literal["float32", "bfloat16"] = "float32"  # of the layers' products; sums stay float32
    block: Annotated[int, Ge(1)] = 64  # clients at a time: memory grows with it, results do not depend on it


@dataclass(frozen=True, eq=False)
class Fitted:
    """What training did to each client of a block."""

    clients: np.ndarray  # (C,) their numbers in the cohort
    deltas: Stack  # name → (C, …): the client's adapter minus the one it was given
    losses: Tensor  # (C,) before the first step


def negatives(config: FitConfig, items: int, seed: int, round: int, step: int) -> Tensor:
    """The rows of this step's negatives: the same on every node, drawn without looking at anyone's history."""
    generator = np.random.default_rng([NEGATIVES, seed, round, step])
    return torch.from_numpy(generator.choice(items, size=min(config.negatives, items), replace=False))  # (K,)


def fit(
    model: Model, adapter: Adapter, cohort: Cohort, embeddings: Tensor, config: FitConfig, draws: list[Tensor]
) -> Iterator[Fitted]:
    """Train every client of a cohort alone, a block of them together: C adapters over one frozen model.

    The loss is the sum over clients of each client's mean loss. The adapters are disjoint, so its gradient holds
    every client's own gradient, and a client gets exactly what it would get in a cohort of one: a block is padded
    to a length that depends on each client alone. `draws` holds the negatives' rows of each local step.
    """
    for clients, block in cohort.blocks(config.block):
        company = in_company(block)
        stack, losses = _train(model, stacked(adapter, len(company)), company, embeddings, config, draws)
        own = slice(len(block))
        yield Fitted(
            clients, {name: tensor.detach()[own] - adapter[name] for name, tensor in stack.items()}, losses[own]
        )


def in_company(block: Cohort) -> Cohort:
    """A lone history is trained beside a copy of itself.

    A batched matrix product of one takes another path through the BLAS than one of two or more, and rounds
    differently; so do products of very few rows. From two on, every client's arithmetic is the same in any company.
    """
    if block.items.shape[:2] != (1, 1):
        return block
    return Cohort(*(np.concatenate([column, column]) for column in (block.items, block.mask, block.salts)))


def _train(
    model: Model, stack: Stack, cohort: Cohort, embeddings: Tensor, config: FitConfig, draws: list[Tensor]
) -> tuple[Stack, Tensor]:
    """Gradient descent on a block: each client's adapter after its local steps, and the losses at the start."""
    first = torch.zeros(len(cohort))
    for step, rows in enumerate(draws):
        losses = client_losses(model, stack, cohort, embeddings, config, rows)
        gradients = torch.autograd.grad(losses.sum(), list(stack.values()))
        first = losses.detach() if step == 0 else first
        stack = {
            name: (tensor.detach() - config.local_rate * gradient).requires_grad_()
            for (name, tensor), gradient in zip(stack.items(), gradients, strict=True)
        }
    return stack, first


def client_losses(
    model: Model, stack: Stack, cohort: Cohort, embeddings: Tensor, config: FitConfig, rows: Tensor
) -> Tensor:
    """Each client's mean loss of predicting its next events with its own adapter: (C,)."""
    items, mask = torch.from_numpy(cohort.items), torch.from_numpy(cohort.mask)  # (C, B, L+1)
    with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
        following, others = functional_call(model, stack, (embeddings[items], mask, embeddings[rows]))
    hits = items[..., 1:, None] == rows  # (C, B, L, K)
    losses = sampled_softmax(following.float(), others.float(), hits, len(embeddings))
    return client_means(losses, mask[..., :-1])
