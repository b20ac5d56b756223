"""What crosses between server and node: orders one way, sums the other."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.exact import exact_scatter, exact_sum
from recsys.fit import Fitted
from recsys.lora import Adapter


@dataclass(frozen=True, eq=False)
class Order:
    """What the server asks of one node: these users, this round. The adapter travels beside it."""

    round: int
    users: np.ndarray  # (u,) numbers local to the node's shard
    clip: float = 0.0  # bound on a user's change; training only
    split: str = "train"  # train, or the split to rank
    protocol: str = "full"  # against what to rank
    best: int = 0  # training only: the best validated round so far, which may be asked for again


@dataclass(frozen=True, eq=False)
class Update:
    """A node's answer: sums over the users it was asked for, which add. Asked for one user, it is that user's."""

    round: int
    users: int
    deltas: Adapter  # Σ clip(Δ_u), float64; empty after ranking
    sums: dict[str, float]  # Σ of each metric

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


def norms(deltas: Adapter) -> Tensor:
    """Each client's L2 norm over all of its change: name → (C, …) to (C,)."""
    lengths = [torch.linalg.vector_norm(tensor.flatten(1), dim=1) for tensor in deltas.values()]
    return torch.linalg.vector_norm(torch.stack(lengths).double(), dim=0)


def summed(fitted: Fitted, round: int, clip: float) -> Update:
    """Clip each client's change to L2 norm `clip` and add them up. One that diverged adds nothing, and is counted."""
    lengths = norms(fitted.deltas)  # (C,)
    sound = lengths.isfinite() & fitted.losses.isfinite()
    factors = (clip / lengths.clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=1).float()
    sums = {
        "loss": float(fitted.losses[sound].double().sum()),
        "clipped": float((lengths[sound] > clip).sum()),
        "diverged": float((~sound).sum()),
    }
    added = fitted.deltas if sound.all() else {name: tensor[sound] for name, tensor in fitted.deltas.items()}
    deltas = {name: _added(tensor, fitted, sound, factors).cpu() for name, tensor in added.items()}
    return Update(round, len(fitted.losses), deltas, sums)


def _added(terms: Tensor, fitted: Fitted, sound: Tensor, factors: Tensor) -> Tensor:
    if fitted.rows is None:
        return exact_sum(terms, factors[sound])
    return exact_scatter(terms, fitted.rows[sound], fitted.items, factors[sound])
