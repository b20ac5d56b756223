"""Sums as integers modulo 2⁶⁴, on which masks cancel exactly.

Sums of changes are whole multiples of 2⁻³² (recsys/exact_sum.py), and those of statistics of a power of two of their
own (recsys/closed_form/bounds.py), so that nothing is lost. Metrics are rounded to multiples of 2⁻³²: of these only
the loss is not one already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.federation.messages import Update
from fedrec.recsys.exact_sum import GRID

UNIT = 1 / GRID
"""The unit of changes and metrics."""
_UNIT = torch.tensor(UNIT, dtype=torch.float64)
LARGEST = 2.0**63
"""The size from which a sum modulo 2⁶⁴ has lost its sign."""


@dataclass(frozen=True)
class Layout:
    """The place of each number of an update in one vector: the tensors by name, then the metrics by name."""

    shapes: Mapping[str, torch.Size]
    metrics: Sequence[str]
    units: Mapping[str, Tensor]  # of tensors whose unit is not `UNIT`, in shapes that broadcast to theirs

    @property
    def size(self) -> int:
        """The numbers of an update: P."""
        return sum(shape.numel() for shape in self.shapes.values()) + len(self.metrics)

    def to_integers(self, update: Update) -> np.ndarray:
        """Convert the sums of an update to integers modulo 2⁶⁴: (P,) uint64.

        Raises `ValueError` for a number that is not a whole multiple of its unit, or beyond 2⁶³ of them.
        """
        parts = [_multiples(name, update.deltas[name], self._unit(name)) for name in sorted(self.shapes)]
        metrics = torch.tensor([update.sums[name] for name in sorted(self.metrics)], dtype=torch.float64)
        parts.append(_multiples("metrics", (metrics / UNIT).round_() * UNIT, _UNIT))
        return np.concatenate(parts).view(np.uint64)

    def from_integers(self, numbers: np.ndarray, round: int, users: int) -> Update:
        """Convert integers modulo 2⁶⁴ (P,) to the sums over `users` users."""
        values = torch.from_numpy(numbers.view(np.int64)).double()
        names = sorted(self.shapes)
        *tensors, metrics = values.split([*(self.shapes[name].numel() for name in names), len(self.metrics)])
        deltas = {
            name: tensor.view(self.shapes[name]) * self._unit(name) for name, tensor in zip(names, tensors, strict=True)
        }
        return Update(round, users, deltas, dict(zip(sorted(self.metrics), (metrics * UNIT).tolist(), strict=True)))

    def _unit(self, name: str) -> Tensor:
        return self.units.get(name, _UNIT)


def _multiples(name: str, sums: Tensor, units: Tensor) -> np.ndarray:
    """Return sums in whole units, flat: (…) float64 to (p,) int64.

    On one core, by numpy: torch's threads would wait for more work while the masks are added, and take their time.
    """
    multiples = (sums.double().numpy() / units.numpy()).ravel()
    if not np.array_equal(multiples, np.rint(multiples)) or (np.abs(multiples) >= LARGEST).any():
        raise ValueError(
            f"{name} holds numbers that are not whole multiples of {float(units.min()):g}, or are too large"
        )
    return multiples.astype(np.int64)


def check_room(clients: int, most: float) -> None:
    """Raise `InputError` unless the sums of so many clients, each at most `most` units, stay below 2⁶³, with a factor
    of two for rounding."""
    if 2 * clients * most >= LARGEST:
        raise InputError(
            f"sums of {clients:,} clients of up to {most:.3g} units each exceed 2^63; ask for fewer clients"
        )
