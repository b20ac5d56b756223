"""The solutions of the closed form for all hyperparameters, as the tensors of an adapter."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedrec.recsys.closed_form.model import CutSolution
from fedrec.recsys.closed_form.new_items import TargetRegression, scale_scores
from fedrec.recsys.closed_form.pairs import PairWeights
from fedrec.recsys.closed_form.search import Hyperparameters
from fedrec.recsys.closed_form.solve import RidgePath, decoding
from fedrec.recsys.model.lora import Adapter

WEIGHTS, SHARE = "closed.weights", "closed.share"
"""The names of the closed form's tensors in an adapter: the weights (KM, M'), and the share of a blend (1,)."""


@dataclass(frozen=True, eq=False)
class NewItems:
    """The items that no sum over ids tells of as a target, which are scored by their texts."""

    rows: Tensor  # (n,)
    known: Tensor  # the rows of all others that training may use
    texts: Tensor  # (n, E), whitened
    targets: TargetRegression
    scale: float  # the spread of their scores relative to that of others

    def fill(self, weights: Tensor, roots: Tensor) -> Tensor:
        """Fill in the columns of these items in weights (KM, N) of all; `roots` (KM, N) tell how scores spread."""
        scaled = scale_scores(self.targets, roots.T, self.known, self.scale)
        return weights.index_copy(1, self.rows, scaled.through(weights.T)(self.texts).T)


@dataclass(frozen=True, eq=False)
class Solver:
    """The solutions of some sums, for all hyperparameters."""

    path: RidgePath
    target_gram: Tensor | None  # (M', M'); None for one-hot targets, which need no decoding
    scale: float  # the unit of the penalties
    floor: float = 0.0  # the least penalty: below it, noise in the sums would be taken for signal
    popularity: Tensor | None = None  # (N,) of the items; None for features of texts, whose sums do not tell it
    new_items: NewItems | None = None  # over ids; None: all items were a target

    def solve(self, chosen: Hyperparameters) -> Adapter:
        """Solve for one choice: `closed.weights` and `closed.share`, float32."""
        penalties = max(chosen.ridge * self.scale, self.floor), chosen.prior * self.scale
        weights = self.path.weights(*penalties)
        if self.target_gram is not None:
            weights = weights @ decoding(self.target_gram, chosen.decode * self.scale)
        divisor = 1.0
        if chosen.discount:
            assert self.popularity is not None, "sums over texts do not tell the popularity of an item"
            divisor = self.popularity**chosen.discount
        weights /= divisor
        if self.new_items:
            weights = self.new_items.fill(weights, self.path.roots(*penalties) / divisor)
        return {WEIGHTS: weights.float(), SHARE: torch.tensor([chosen.share])}


def as_adapter(solution: CutSolution) -> Adapter:
    """Return a solution at the served rank as it travels: `closed.weights` and `closed.share`, float32."""
    return {WEIGHTS: solution.weights.float(), SHARE: torch.tensor([solution.share])}


@dataclass(frozen=True, eq=False)
class PairSolver:
    """The solutions of some counts of pairs, for all weights of the texts and discounts of popularity."""

    weights: PairWeights

    def solve(self, chosen: Hyperparameters) -> Adapter:
        """Solve for one choice: `closed.weights` and `closed.share`, float32."""
        table = self.weights.table(chosen.ridge, chosen.discount)
        return {WEIGHTS: table.float(), SHARE: torch.tensor([chosen.share])}
