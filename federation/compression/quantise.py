"""The mathematics of coding a vector in few bits: a rotation that float32 computes exactly, and the best quantiser of
the normal distribution that its numbers then nearly have.

Shapes: D numbers of a row; … any axes before it.
"""

import math
from functools import cache

import torch
from torch import Tensor

SIDE = 32
WIDTH = SIDE**2
"""D: a longer row takes longer to rotate; a shorter one is less normal, and has more scales to send."""

EXACT = 2**23
"""Whole numbers whose sizes add up to this, or a little more, are rotated without rounding: float32 has 24 bits."""

_FINE = 2**11
"""Levels are multiples of 1/2048, so that any 1,024 of them are rotated without rounding."""

_CELLS, _REACH = 2**10, 5
"""Nearest levels are looked up by cells of 1/1024 from −5 to 5; no level is beyond."""


def hadamard(x: Tensor) -> Tensor:
    """Compute H x for each row: (…, D) → (…, D). H holds ±1, H = Hᵀ and H H = D: a rotation but for the factor √D.

    As H is a Kronecker product of two smaller ones, it is two small products with the row as a matrix.
    """
    side = _side().to(x.device)
    return ((side @ x.view(-1, SIDE, SIDE)) @ side).view(x.shape)


@cache
def _side() -> Tensor:
    h = torch.ones(1, 1)
    for _ in range(int(math.log2(SIDE))):
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h  # (√D, √D)


@cache
def quantiser(bits: int) -> Tensor:
    """Compute the levels of the best quantiser of a standard normal distribution, in rising order: (2^bits,).

    Lloyd 1982, doi:10.1109/TIT.1982.1056489, and Max 1960, doi:10.1109/TIT.1960.1057548: a level is the mean of what is
    nearest to it, and a bound the middle of two levels; in turns. They begin where many levels end.
    """
    half = 2 ** (bits - 1)
    zero, infinity = torch.zeros(1, dtype=torch.float64), torch.full((1,), math.inf, dtype=torch.float64)
    levels = math.sqrt(3) * torch.special.ndtri(0.5 + (torch.arange(half, dtype=torch.float64) + 0.5) / (2 * half))
    for _ in range(1000):
        bounds = torch.cat([zero, (levels[1:] + levels[:-1]) / 2, infinity])
        density = torch.exp(-bounds.square() / 2) / math.sqrt(2 * math.pi)
        levels = -density.diff() / torch.special.ndtr(bounds).diff()
    return torch.cat([-levels.flip(0), levels]).mul(_FINE).round().div(_FINE).float()


@cache
def _nearest(bits: int) -> tuple[Tensor, Tensor]:
    """Look up the level nearest to each cell's middle: its index, and its value."""
    levels = quantiser(bits)
    middles = (torch.arange(2 * _REACH * _CELLS) + 0.5) / _CELLS - _REACH
    which = torch.bucketize(middles, (levels[1:] + levels[:-1]) / 2)
    return which.to(torch.uint8), levels[which]


def cells_of(z: Tensor) -> Tensor:
    """Return the cell of each number, by which its nearest level is looked up: int32."""
    return (z * _CELLS).add_(_CELLS * _REACH).clamp_(0, 2 * _REACH * _CELLS - 1).int()


def nearest_levels(cells: Tensor, bits: int) -> Tensor:
    """Look up the index of the level nearest to each number, give or take half a cell: uint8."""
    return _look_up(_nearest(bits)[0], cells)


def nearest_values(cells: Tensor, bits: int) -> Tensor:
    """Look up the value of the level nearest to each number, give or take half a cell."""
    return _look_up(_nearest(bits)[1], cells)


def dequantise(which: Tensor, bits: int) -> Tensor:
    """Look up the values of levels by their indices."""
    return _look_up(quantiser(bits), which.int())


def _look_up(table: Tensor, places: Tensor) -> Tensor:
    return table.to(places.device).index_select(0, places.flatten()).view(places.shape)
