"""Sums that depend neither on the order of their terms nor on how the terms are spread over nodes."""

import torch
from torch import Tensor

GRID = 2.0**32
"""The grid: terms are rounded to multiples of 1/GRID first. Sums of such numbers are exact in float64, up to 2²¹."""

_CHUNK = 2**15
"""The numbers that are rounded at a time, so that they are still in a core's cache when they are added."""


def exact_sum(terms: Tensor, factors: Tensor | None = None) -> Tensor:
    """Sum factor · term over the first axis, each product rounded to the grid: (C, …), (C,) → (…), float64."""
    flat = terms.flatten(1)  # (C, P)
    scale = torch.full((len(flat), 1), GRID) if factors is None else factors.unsqueeze(1) * GRID
    total = torch.empty(flat.shape[1], dtype=torch.float64, device=flat.device)
    columns = max(1, _CHUNK // max(1, len(flat)))
    for part, out in zip(flat.split(columns, 1), total.split(columns), strict=True):
        torch.sum((part * scale.to(part)).round_().double(), 0, out=out)
    return total.div_(GRID).view(terms.shape[1:])


class ExactTotal:
    """A running sum of P numbers, to which terms are added that are rounded to the grid."""

    def __init__(self, numbers: int, device: torch.device) -> None:
        self._steps = torch.zeros(numbers, dtype=torch.float64, device=device)  # in steps of the grid

    def add(self, terms: Tensor) -> None:
        """Add some clients' terms, (c, P), which are overwritten."""
        steps = terms.mul_(GRID).round_()
        self._steps += steps[0] if len(steps) == 1 else steps.sum(0, dtype=torch.float64)

    @property
    def value(self) -> Tensor:
        """The sum so far: (P,), float64."""
        return self._steps / GRID


def exact_scatter(terms: Tensor, rows: Tensor, items: int, factors: Tensor) -> Tensor:
    """Sum factor · term per row of a table of N = `items` rows, each product rounded to the grid.

    Each client has terms for M rows only: (C, M, D), `rows` (C, M), (C,) → (N, D), float64.
    """
    rounded = (terms * (factors * GRID).to(terms)[:, None, None]).round_().double()
    total = torch.zeros(items, terms.shape[-1], dtype=torch.float64, device=terms.device)
    return total.index_add_(0, rows.flatten(), rounded.flatten(0, 1)).div_(GRID)
