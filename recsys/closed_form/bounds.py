"""The bounds of the closed form's sums over some users: what no histories can exceed.

Every entry of `gram` is a sum of products of two entries of a context, so that its diagonal is at least zero, and
|G_ij|² ≤ G_ii G_jj. Every entry is a whole multiple of a unit, and each event adds at most a bounded amount; the
contexts of each decay have a unit and a bound of their own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedrec.recsys.closed_form.config import ClosedFormConfig
from fedrec.recsys.closed_form.contexts import UNIT
from fedrec.recsys.closed_form.packing import SCALE, packed_shapes, upper_rows
from fedrec.recsys.closed_form.statistics import CROSS, GRAM, LEVELS, per_feature, unit_of

ROUNDING = 1e-9
"""Relative rounding of a comparison of two products in float64."""

BLOCK = 512
"""Rows of `cross` that are checked at a time."""


@dataclass(frozen=True, eq=False)
class SumBounds:
    """The bounds of packed sums (closed_form/packing.py), by the entries of a stacked context. A target's largest entry
    is 1."""

    events: int  # of a user that count, at most
    units: Tensor  # (KM,) float64: entry i of a context is a whole multiple of units[i]
    most: Tensor  # (KM,) float64: the largest that entry i can be
    targets: int  # M'
    target_unit: float

    @classmethod
    def of(cls, config: ClosedFormConfig, items: int) -> "SumBounds":
        """Build the bounds for a catalogue of N = `items` items."""
        largest = [kernel.largest_sum for kernel in config.stack.kernels]
        if config.features == "ids":
            units, most, width, target_unit = [1 / UNIT] * len(largest), largest, items, 1.0
        else:
            units, width, target_unit = [unit_of(each) for each in largest], config.feature_width, unit_of(1.0)
            most = [LEVELS * unit for unit in units]
        return cls(config.statistic_events, per_feature(units, width), per_feature(most, width), width, target_unit)

    @property
    def width(self) -> int:
        """The entries of a stacked context: KM."""
        return len(self.units)

    @property
    def template(self) -> dict[str, Tensor]:
        """The names and shapes of the sums, without numbers."""
        shapes = packed_shapes(self.width, self.targets)
        return {name: torch.empty(shape, dtype=torch.float64, device="meta") for name, shape in shapes.items()}

    @property
    def entry_units(self) -> dict[str, Tensor]:
        """The units of the entries of packed sums: `gram` (KM(KM+1)/2,), and `cross` (KM, 1), for whole rows."""
        gram = torch.cat([self.units[place:] * (unit / SCALE) for place, unit in enumerate(self.units)])
        return {GRAM: gram, CROSS: (self.units * (self.target_unit / SCALE)).unsqueeze(1)}

    @property
    def largest_count(self) -> float:
        """The largest number of units that a user adds to an entry."""
        context = float((self.most / self.units).max())
        return self.events * context * max(context, 1 / self.target_unit)

    def check_size(self, sums: Mapping[str, Tensor], learners: int, slack: float = 1.0) -> None:
        """Raise `ValueError` if an entry is larger than `learners` users can make it, times a slack."""
        for name, part, largest in _parts(sums, self.most, 1.0):
            bounds = slack * learners * self.events * largest
            if (excess := part.abs() - bounds).max() > 0:
                place = int(excess.argmax())
                found, bound = (float(each.flatten()[place]) for each in (part, bounds.expand_as(part)))
                raise ValueError(f"{name} holds {found:.6g}, and {learners} users have at most {bound:.6g}")

    def check(self, sums: Mapping[str, Tensor], learners: int) -> None:
        """Raise `ValueError` if no `learners` users can have such sums, of the template's shapes and finite."""
        self.check_size(sums, learners)
        for name, part, units in _parts(sums, self.units, self.target_unit):
            multiples = part / units
            if not torch.equal(multiples, multiples.round()):
                raise ValueError(f"{name} holds numbers that are not whole multiples of {float(units.min()):g}")
        _check_gram(sums[GRAM])


def _parts(sums: Mapping[str, Tensor], of_context: Tensor, of_target: float) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Iterate over the rows of `gram` and blocks of `cross`, with the products of a value (KM,) of a context's entries
    and one of a target's, in the scale of the sums."""
    for place, row in enumerate(upper_rows(sums[GRAM])):
        yield GRAM, row, of_context[place:] * (of_context[place] / SCALE)
    for rows, values in zip(sums[CROSS].split(BLOCK), of_context.split(BLOCK), strict=True):
        yield CROSS, rows, values.unsqueeze(1) * (of_target / SCALE)


def _check_gram(triangle: Tensor) -> None:
    rows = upper_rows(triangle)
    diagonal = torch.stack([row[0] for row in rows])
    if (diagonal < 0).any():
        raise ValueError(f"gram holds {float(diagonal.min()):.6g} on its diagonal, which is a sum of squares")
    for place, row in enumerate(rows):
        if (row.square() > diagonal[place] * diagonal[place:] * (1 + ROUNDING)).any():
            raise ValueError("gram holds an entry above the root of the product of its two diagonal entries")
