"""What crosses between server and node: orders one way, sums the other."""

from dataclasses import dataclass

import numpy as np

from fedrec.data.errors import InputError
from fedrec.federation.compression.eden import CompressedUpdate
from fedrec.recsys.model.lora import Adapter


@dataclass(frozen=True, eq=False)
class Order:
    """A request of the server to one node: train or rank these users in this round. The adapter travels beside it."""

    round: int
    users: np.ndarray  # (u,) numbers local to the node's shard
    clip: float = 0.0  # bound on a user's change; training only
    split: str = "train"  # train, or the split to rank
    protocol: str = "full"  # against what to rank
    best: int = 0  # training only: the best validated round so far, which may be asked for again
    run: str = ""  # the run's id, for nodes that keep client state
    noise: float = 0.0  # that nodes add, over what a user adds at most; 0: none


class OrderRefused(InputError):
    """An order that a node does not follow. Its text is for the server: it names fields of the order and limits of the
    run, and nothing of the node's data."""


@dataclass(frozen=True, eq=False)
class Update:
    """A node's answer: sums over the users it was asked for, which add. For one user, it is that user's.

    Of the statistics of the closed form, `deltas` are the packed sums and the only metric is `learners`.

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
        """Add two updates. Raises `ValueError` if they differ in kind or round."""
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
