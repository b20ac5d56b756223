"""The sums as they travel: of the symmetric `gram` its upper triangle alone, row after row, and all
in units of `SCALE`.

In that unit the sums of many users are small: if they were coded in few bits, the grid of `exact_sum` holds them.
"""

from math import isqrt

import torch
from torch import Tensor

from fedrec.recsys.closed_form.statistics import CROSS, GRAM, Statistics

SCALE = 2.0**20


def packed_shapes(width: int, targets: int) -> dict[str, torch.Size]:
    """Return the shapes of packed sums of contexts of M = `width` entries and M' = `targets` of targets."""
    return {GRAM: torch.Size([width * (width + 1) // 2]), CROSS: torch.Size([width, targets])}


def pack(statistics: Statistics) -> Statistics:
    """Pack sums: `gram` (M, M) becomes (M(M+1)/2,)."""
    triangle = torch.cat([row[place:] for place, row in enumerate(statistics[GRAM])])
    return {GRAM: triangle.div_(SCALE), CROSS: statistics[CROSS] / SCALE}


def unpack(statistics: Statistics) -> Statistics:
    """Undo `pack`."""
    rows = upper_rows(statistics[GRAM])
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for place, row in enumerate(rows):
        gram[place, place:] = row
        gram[place:, place] = row
    return {GRAM: gram.mul_(SCALE), CROSS: statistics[CROSS] * SCALE}


def place_items(statistics: Statistics, rows: Tensor, items: int) -> Statistics:
    """Move packed sums over the ids of n items to N = `items` items, of which `rows` (n,) are the same.

    The other items have no events: their sums are zeros. Each decay has a block of items, one after the other.
    """
    there = unpack(statistics)
    blocks = len(there[CROSS]) // len(rows)
    places = torch.cat([rows + block * items for block in range(blocks)])  # (Kn,)
    gram = torch.zeros(blocks * items, blocks * items, dtype=torch.float64)
    cross = torch.zeros(blocks * items, items, dtype=torch.float64)
    gram[places.unsqueeze(1), places] = there[GRAM]
    cross[places.unsqueeze(1), rows] = there[CROSS]
    return pack({GRAM: gram, CROSS: cross})


def upper_rows(triangle: Tensor) -> tuple[Tensor, ...]:
    """Split a packed triangle into its rows, each from the diagonal on: M views of M, M - 1, …, 1 numbers."""
    width = isqrt(8 * len(triangle) + 1) // 2
    return triangle.split(list(range(width, 0, -1)))
