"""The bounds of the closed form's sums over some users: what no histories can exceed.

Every entry of `gram` is a sum of products of two entries of a context, so that its diagonal is at least zero, and
|G_ij|² ≤ G_ii G_jj. Every entry is a whole multiple of a unit, and each event adds at most a bounded amount.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedrec.recsys.closed_form.config import ClosedFormConfig
from fedrec.recsys.closed_form.contexts import UNIT
from fedrec.recsys.closed_form.packing import SCALE, packed_shapes, upper_rows
from fedrec.recsys.closed_form.statistics import CROSS, GRAM, LEVELS, unit_of

ROUNDING = 1e-9
"""Relative rounding of a comparison of two products in float64."""


@dataclass(frozen=True)
class SumBounds:
    """The bounds of packed sums (closed_form/packing.py)."""

    width: int  # M = M'
    events: int  # of a user that count, at most
    units: Mapping[str, float]
    most: Mapping[str, float]  # that an event adds to an entry

    @classmethod
    def of(cls, config: ClosedFormConfig, items: int) -> "SumBounds":
        """Build the bounds for a catalogue of N = `items` items."""
        largest, events = config.kernel.largest_sum, config.statistic_events
        if config.features == "ids":
            units = {GRAM: UNIT**-2 / SCALE, CROSS: 1 / UNIT / SCALE}
            return cls(items, events, units, {GRAM: largest**2 / SCALE, CROSS: largest / SCALE})
        context, target = unit_of(largest), unit_of(1.0)
        units = {GRAM: context**2 / SCALE, CROSS: context * target / SCALE}
        return cls(config.feature_width, events, units, {name: LEVELS**2 * unit for name, unit in units.items()})

    @property
    def template(self) -> dict[str, Tensor]:
        """The names and shapes of the sums, without numbers."""
        shapes = packed_shapes(self.width, self.width)
        return {name: torch.empty(shape, dtype=torch.float64, device="meta") for name, shape in shapes.items()}

    def check_size(self, sums: Mapping[str, Tensor], learners: int, slack: float = 1.0) -> None:
        """Raise `ValueError` if an entry is larger than `learners` users can make it, times a slack."""
        for name, tensor in sums.items():
            largest, bound = float(tensor.abs().max()), slack * learners * self.events * self.most[name]
            if largest > bound:
                raise ValueError(f"{name} holds {largest:.6g}, and {learners} users have at most {bound:.6g}")

    def check(self, sums: Mapping[str, Tensor], learners: int) -> None:
        """Raise `ValueError` if no `learners` users can have such sums, of the template's shapes and finite."""
        self.check_size(sums, learners)
        for name, tensor in sums.items():
            multiples = tensor / self.units[name]
            if not torch.equal(multiples, multiples.round()):
                raise ValueError(f"{name} holds numbers that are not whole multiples of {self.units[name]:g}")
        _check_gram(sums[GRAM])


def _check_gram(triangle: Tensor) -> None:
    rows = upper_rows(triangle)
    diagonal = torch.stack([row[0] for row in rows])
    if (diagonal < 0).any():
        raise ValueError(f"gram holds {float(diagonal.min()):.6g} on its diagonal, which is a sum of squares")
    for place, row in enumerate(rows):
        if (row.square() > diagonal[place] * diagonal[place:] * (1 + ROUNDING)).any():
            raise ValueError("gram holds an entry above the root of the product of its two diagonal entries")
