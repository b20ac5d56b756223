"""What crosses between server and node: orders one way, sums the other."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.federation.compression.eden import CompressedUpdate, Eden, encode
from fedrec.federation.config import RunConfig
from fedrec.recsys.exact_sum import exact_scatter, exact_sum
from fedrec.recsys.model.lora import Adapter, Stack
from fedrec.recsys.training.local_training import ClientUpdates


@dataclass(frozen=True, eq=False)
class Order:
    """What the server asks of one node: these users, this round. The adapter travels beside it."""

    round: int
    users: np.ndarray  # (u,) numbers local to the node's shard
    clip: float = 0.0  # bound on a user's change; training only
    split: str = "train"  # train, or the split to rank
    protocol: str = "full"  # against what to rank
    best: int = 0  # training only: the best validated round so far, which may be asked for again
    run: str = ""  # which run this is, to nodes that keep something from round to round


class OrderRefused(InputError):
    """An order that a node does not follow. Its text is for the server: it names fields of the order and limits of the
    run, and nothing of the node's data."""


@dataclass(frozen=True, eq=False)
class Update:
    """A node's answer: sums over the users it was asked for, which add. Asked for one user, it is that user's.

    After training the sums are of `loss`, and of 1 over the `learners`, who have at least one example, over the
    `clipped` among them, and over the `diverged`, whose loss and change are in no sum. All add, so that they can be
    summed under encryption or with noise. A node of one user tells by `learners` whether that user has an example (its
    change, zero or not, tells the same), and never how many.
    """

    round: int
    users: int
    deltas: Adapter  # Σ clip(Δ_u), float64; empty after ranking
    sums: dict[str, float]  # Σ of each metric
    codes: CompressedUpdate | None = None  # of a single user's deltas, where they are sent in few bits

    def __add__(self, other: "Update") -> "Update":
        """Raises `ValueError` where the two are not of one kind and round."""
        if (
            self.round != other.round
            or self.deltas.keys() != other.deltas.keys()
            or self.sums.keys() != other.sums.keys()
        ):
            raise ValueError(f"an update of round {other.round} does not add to one of round {self.round}")
        return Update(
            self.round,
            self.users + other.users,
            {name: tensor + other.deltas[name] for name, tensor in self.deltas.items()},
            {name: value + other.sums[name] for name, value in self.sums.items()},
        )


ITEMS = 2**32
"""More than any catalogue holds."""

BASELINE_LOSS = 1e6
"""A bound for the federated baselines, whose scores have none: a client with a larger loss has diverged."""


def worst_loss(config: RunConfig) -> float:
    """The largest loss of a client; more is a lie, or divergence.

    A score is a cosine over the temperature T. So the loss, log Σ exp(score) - score of the next item, with all N items
    at 1/T and the next one at -1/T, is at most log N + 2/T (recsys/training/loss.py: the drawn items stand for
    N - 1). A twentieth is added for products in bfloat16.
    """
    return BASELINE_LOSS if config.keeps else 1.05 * (math.log(ITEMS) + 2 / config.model.temperature)


def norms(deltas: Adapter) -> Tensor:
    """Each client's L2 norm over all of its change: name → (C, …) to (C,)."""
    lengths = [torch.linalg.vector_norm(tensor.flatten(1), dim=1) for tensor in deltas.values()]
    return torch.linalg.vector_norm(torch.stack(lengths).double(), dim=0)


def clip_and_sum(
    fitted: ClientUpdates, round: int, clip: float, coding: Eden | None = None, worst: float = math.inf
) -> Update:
    """Clip each client's change to L2 norm `clip` and add them up. One that diverged, or whose loss is above `worst`,
    adds nothing, and is counted; so is one with no example.

    With a coding, what is clipped and added is each change as the server would decode it.
    """
    lengths = norms(fitted.deltas)  # (C,)
    finite = lengths.isfinite() & fitted.losses.isfinite() & (fitted.losses <= worst)
    learners = torch.ones_like(finite) if fitted.learners is None else fitted.learners
    sound = finite & learners
    changes = fitted.deltas if sound.all() else _drop_diverged(fitted.deltas, ~sound)
    codes, lengths = encode(changes, coding) if coding else (None, lengths)
    factors = (clip / lengths.clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=1).float().where(sound, 0)
    sums = {
        "loss": float(fitted.losses[sound].double().sum()),
        "learners": float(learners.sum()),
        "clipped": float((lengths[sound] > clip).sum()),
        "diverged": float((learners & ~finite).sum()),
    }
    if codes:
        codes = codes.scaled(factors)
        deltas = codes.total({name: tensor.shape[1:] for name, tensor in changes.items()})
    else:
        deltas = {name: _sum_clipped(tensor, fitted, factors).cpu() for name, tensor in changes.items()}
    return Update(round, len(sound), deltas, sums, codes if len(sound) == 1 else None)


def _sum_clipped(terms: Tensor, fitted: ClientUpdates, factors: Tensor) -> Tensor:
    if fitted.rows is None:
        return exact_sum(terms, factors)
    return exact_scatter(terms, fitted.rows, fitted.items, factors)


def _drop_diverged(deltas: Stack, lost: Tensor) -> Stack:
    return {name: tensor.masked_fill(lost.view(-1, *[1] * (tensor.ndim - 1)), 0) for name, tensor in deltas.items()}
