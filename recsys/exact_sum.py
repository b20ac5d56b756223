"""Sums that do not depend on the order of their terms, or on which node added which."""

import torch
from torch import Tensor

GRID = 2.0**32
"""Terms are rounded to multiples of 1/GRID first. Such numbers add without rounding in float64, up to 2²¹ in size."""

_NUMBERS = 2**15
"""Rounded at a time, so that they are still in a core's cache when they are added."""


def exact_sum(terms: Tensor, factors: Tensor | None = None) -> Tensor:
    """Sum over the first axis of factor · term, each rounded to the grid: (C, …), (C,) → (…), float64."""
    flat = terms.flatten(1)  # (C, P)
    scale = torch.full((len(flat), 1), GRID) if factors is None else factors.unsqueeze(1) * GRID
    total = torch.empty(flat.shape[1], dtype=torch.float64, device=flat.device)
    columns = max(1, _NUMBERS // max(1, len(flat)))
    for part, out in zip(flat.split(columns, 1), total.split(columns), strict=True):
        torch.sum((part * scale.to(part)).round_().double(), 0, out=out)
    return total.div_(GRID).view(terms.shape[1:])


def exact_scatter(terms: Tensor, rows: Tensor, items: int, factors: Tensor) -> Tensor:
    """The same where each client has terms for some rows of a table only: (C, M, D), (C, M), (C,) → (N, D), float64."""
    rounded = (terms * (factors * GRID).to(terms)[:, None, None]).round_().double()
    total = torch.zeros(items, terms.shape[-1], dtype=torch.float64, device=terms.device)
    return total.index_add_(0, rows.flatten(), rounded.flatten(0, 1)).div_(GRID)
