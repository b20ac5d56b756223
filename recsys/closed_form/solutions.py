"""The solutions of the closed form for all hyperparameters, as the tensors of an adapter."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedrec.recsys.closed_form.model import CutSolution
from fedrec.recsys.closed_form.pairs import PairWeights
from fedrec.recsys.closed_form.search import Hyperparameters
from fedrec.recsys.closed_form.solve import RidgePath, decoding
from fedrec.recsys.model.lora import Adapter

WEIGHTS, SHARE = "closed.weights", "closed.share"
"""The names of the closed form's tensors in an adapter: the weights (KM, M'), and the share of a blend (1,)."""


@dataclass(frozen=True, eq=False)
class Solver:
    """The solutions of some sums, for all hyperparameters.

    Over ids, an item that no sum tells of as a target is scored by a regression of the others' scores on their texts.
    """

    path: RidgePath
    target_gram: Tensor | None  # (M', M'); None for one-hot targets, which need no decoding
    scale: float  # the unit of the penalties
    floor: float = 0.0  # the least penalty: below it, noise in the sums would be taken for signal
    popularity: Tensor | None = None  # (N,) of the items; None for features of texts, whose sums do not tell it
    new_targets: Tensor | None = None  # (n, N) float64, over ids: of the items that were never a target
    new_rows: Tensor | None = None  # (n,) their rows

    def solve(self, chosen: Hyperparameters) -> Adapter:
        """Solve for one choice: `closed.weights` and `closed.share`, float32."""
        weights = self.path.weights(max(chosen.ridge * self.scale, self.floor), chosen.prior * self.scale)
        if self.target_gram is not None:
            weights = weights @ decoding(self.target_gram, chosen.decode * self.scale)
        if chosen.discount:
            assert self.popularity is not None, "sums over texts do not tell the popularity of an item"
            weights = weights / self.popularity**chosen.discount
        if self.new_rows is not None and self.new_targets is not None:
            weights = weights.index_copy(1, self.new_rows, weights @ self.new_targets.T)
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
