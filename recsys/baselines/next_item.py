"""Next-item ridge: a linear regression of the next item on the decayed history before it, in closed form.

A history i₁ … i_T gives an example for each event t from the second: the context x_t = Σ_{s<t} γ^(t−1−s) onehot(i_s),
and the answer onehot(i_t). Over all users' examples, W = (G + λI)⁻¹ R with G = Σ x_t x_tᵀ and R = Σ x_t onehot(i_t)ᵀ
minimises Σ ‖Wᵀx_t − onehot(i_t)‖² + λ‖W‖². Related: SLIST (Choi et al. 2021, arXiv:2103.16104), which weighs the items
of a session by their distance.

G and R are added up user by user, from the products of decays of each two events of the history, never from the
contexts, which are as many as the events and as wide as the catalogue.

Shapes: N items, T events of a history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt
from scipy.linalg import toeplitz

from fedrec.data.shard import check_rows
from fedrec.recsys.baselines.linear import Decay, all_events, check_memory, cholesky, linear_scorer
from fedrec.recsys.baselines.tuning import TrainingData
from fedrec.recsys.model.scoring import Scorer

MATRICES = 6
"""Matrices (N, N) of float64 that are held at once: G, R, G + λI, its factor, W and a copy."""

SQUARES = 6
"""Matrices (T, T) of float64 of the longest history: both products of its decays, its pairs, and copies."""


@dataclass(frozen=True)
class NextItemConfig:
    """Next-item ridge."""

    decay: Decay = 0.8  # γ
    ridge: Annotated[float, Gt(0)] = 100.0  # λ, in examples


def next_item_ridge(data: TrainingData, split: str, config: NextItemConfig) -> Scorer:
    """Fit W, and score a history by the product of its context and W. Raises `InputError` if memory cannot hold G."""
    longest = max(data.shard.lengths(), default=0)
    check_memory("next-item ridge", data.items, MATRICES * data.items**2 + SQUARES * int(longest) ** 2)

    def add_up() -> tuple[np.ndarray, np.ndarray]:
        histories = [data.shard.history(user, split) for user in range(len(data.shard))]
        return next_item_statistics(histories, data.items, config.decay)

    gram, cross = data.keep("next-item statistics", (split, config.decay), add_up)
    weights = solve_ridge(gram, cross, config.ridge).astype(np.float32)
    return linear_scorer(weights, data.items, all_events, config.decay)


def next_item_statistics(histories: Sequence[np.ndarray], items: int, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Add up G and R over all examples of the histories: (N, N) both, in float64."""
    gram, cross = np.zeros(items**2), np.zeros(items**2)
    longest = max(map(len, histories), default=0)
    products, successors = context_products(longest, decay), successor_weights(longest, decay)
    for history in histories:
        check_rows(history, items)
        events, rows = len(history), history.astype(np.int64)
        pairs = np.add.outer(rows * items, rows).ravel()  # flat, which adds up three times as fast as rows and columns
        # both depend on the distances between events and to the end alone: a corner holds those of a shorter history
        np.add.at(gram, pairs, products[longest - events :, longest - events :].ravel())
        np.add.at(cross, pairs, successors[:events, :events].ravel())
    return gram.reshape(items, items), cross.reshape(items, items)


def context_products(events: int, decay: float) -> np.ndarray:
    """Compute Σ_t γ^(t−1−s) γ^(t−1−r) over the examples t that follow both events s and r: (T, T).

    It is γ^|s−r| times the sum of γ^(2k) for k below the number of events after the later of the two.
    """
    powers = decay ** np.arange(events)
    sums = np.append(0, np.cumsum(powers**2))  # of no terms, of one, …
    later = np.maximum.outer(np.arange(events), np.arange(events))
    return toeplitz(powers) * sums[events - 1 - later]


def successor_weights(events: int, decay: float) -> np.ndarray:
    """Compute γ^(t−1−s), the weight of event s in the context before event t, for s < t, and 0 for others: (T, T)."""
    if not events:
        return np.zeros((0, 0))
    return toeplitz(np.zeros(events), np.append(0, decay ** np.arange(events - 1)))


def solve_ridge(gram: np.ndarray, cross: np.ndarray, ridge: float) -> np.ndarray:
    """Solve (G + λI) W = R: (N, N), (N, N) → (N, N)."""
    return torch.cholesky_solve(torch.from_numpy(cross), cholesky(gram, ridge)).numpy()
