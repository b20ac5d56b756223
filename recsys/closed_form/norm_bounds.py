"""The bounds of sums to which each user adds at most some L2 norm: clipped statistics, and counts of pairs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedrec.recsys.closed_form.bounds import SumBounds
from fedrec.recsys.closed_form.statistics import Statistics

ROUNDING = 1e-9
"""Relative rounding of a norm in float64."""
FRACTION_BITS = 30
"""The bits by which the unit of clipped statistics is smaller than the clip."""


@dataclass(frozen=True)
class NormBounds:
    """The shapes of some sums, the unit of which they are whole multiples, and the L2 norm that a user adds at most."""

    shapes: Mapping[str, torch.Size]
    unit: float
    longest: float

    @classmethod
    def clipped(cls, shapes: Mapping[str, torch.Size], clip: float) -> "NormBounds":
        """Build the bounds of statistics that are clipped."""
        return cls(shapes, 2.0 ** (math.floor(math.log2(clip)) - FRACTION_BITS), clip)

    @property
    def template(self) -> dict[str, Tensor]:
        """The names and shapes of the sums, without numbers."""
        return {name: torch.empty(shape, dtype=torch.float64, device="meta") for name, shape in self.shapes.items()}

    @property
    def entry_units(self) -> dict[str, Tensor]:
        """The unit of each of the sums, as a scalar."""
        return {name: torch.tensor(self.unit, dtype=torch.float64) for name in self.shapes}

    @property
    def largest_count(self) -> float:
        """The largest number of units that a user adds to an entry."""
        return self.longest / self.unit

    def check_size(self, sums: Mapping[str, Tensor], learners: int, slack: float = 1.0) -> None:
        """Raise `ValueError` if the sums are longer than `learners` users can make them, times a slack."""
        length, bound = norm(sums), slack * learners * self.longest
        if length > bound * (1 + ROUNDING):
            raise ValueError(f"sums of length {length:.6g}, and {learners} users have at most {bound:.6g}")

    def check(self, sums: Mapping[str, Tensor], learners: int) -> None:
        """Raise `ValueError` if no `learners` users can have such sums, of the template's shapes and finite."""
        self.check_size(sums, learners)
        for name, tensor in sums.items():
            multiples = tensor / self.unit
            if not torch.equal(multiples, multiples.round()):
                raise ValueError(f"{name} holds numbers that are not whole multiples of {self.unit:g}")

    def clip(self, statistics: Statistics) -> Statistics:
        """Scale the statistics of one user down to the largest norm, and round them towards zero, to the unit.

        Numbers that are rounded towards zero are not longer, so that the norm is within the bound without slack.
        """
        factor = float(self.factors(np.array([norm(statistics)]))[0])
        return {name: (tensor * (factor / self.unit)).trunc_().mul_(self.unit) for name, tensor in statistics.items()}

    def factors(self, lengths: np.ndarray) -> np.ndarray:
        """Compute the factors, at most 1, that scale statistics of some lengths down to the largest norm."""
        return np.minimum(1.0, self.longest * (1 - ROUNDING) / np.maximum(lengths, np.finfo(float).tiny))


Bounds = SumBounds | NormBounds
"""The bounds of a run's sums as they travel."""


def norm(sums: Mapping[str, Tensor]) -> float:
    """Compute the L2 norm over all numbers of some sums."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in sums.values()))
