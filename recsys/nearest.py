"""The items nearest to a vector in one order: by score falling, then by row rising.

Libraries add up a product in an order that depends on its shape, on its neighbours and on the number of threads, so
equal vectors get scores that differ in the last bits, from call to call. Here such scores only select candidates; the
final scores are computed without rounding, so each depends on its two vectors alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

GRID = 2.0**26
"""The grid: vectors are rounded to multiples of 1/GRID first. The products of such numbers, and all their sums up to 2
in size, are exact in float64, in any order of addition. An item's vector is at most √3 long (a unit vector of the
towers, one of at most 1 of the closed form, and a bias of at most 1), a question's has unit length. The rounding is
finer than float32's in a unit vector."""

ROWS = 4_096
"""The vectors that are rounded at a time: this bounds the memory that many candidates with equal scores take."""

Found = list[tuple[int, float]]
"""A list of rows and their scores, best first."""


def on_grid(vectors: np.ndarray) -> np.ndarray:
    """Round vectors to the grid, in float64: their inner products are then exact in any library."""
    rounded = np.multiply(vectors, GRID, dtype=np.float64)
    np.rint(rounded, out=rounded)
    return np.divide(rounded, GRID, out=rounded)


def exact_scores(vectors: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Compute the exact inner products of items' vectors (n, E) with a question's (E,), or with several (E, m)."""
    query, parts = on_grid(vector), range(0, max(1, len(vectors)), ROWS)
    return np.concatenate([on_grid(vectors[start : start + ROWS]) @ query for start in parts])


def doubt(vector: np.ndarray) -> float:
    """Bound the error of a float32 inner product of this vector (E,) with an item's, against `exact_scores`.

    Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1: E · 2⁻²⁴ times both lengths, for sums in
    any order; doubled for an item's vector that is √3 long and for the rounding to the grid.
    """
    return len(vector) * 2.0**-23 * max(1.0, math.sqrt(vector @ vector))


def contenders(scores: np.ndarray, k: int, doubt: float) -> np.ndarray:
    """Select the places (m,) of the scores (n,) that may be among the k highest, given an error of at most `doubt`."""
    if k >= len(scores):
        return np.arange(len(scores))
    return np.flatnonzero(scores >= np.partition(scores, -k)[-k] - 2 * doubt) if k else np.zeros(0, dtype=np.int64)


def best(rows: np.ndarray, scores: np.ndarray, k: int) -> Found:
    """Return the k rows with the highest scores, best first; among equal scores the lower row is first."""
    order = np.lexsort((rows, -scores))[:k]
    return list(zip(rows[order].tolist(), scores[order].tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class SearchVector:
    """A vector (E,) whose nearest items are searched for, and the error bound of its rough scores (`doubt`)."""

    vector: np.ndarray
    error: float

    @classmethod
    def of(cls, vector: np.ndarray) -> "SearchVector":
        return cls(vector, doubt(vector))

    def rank(
        self, rows: np.ndarray, rough: np.ndarray, k: int, vectors_of: Callable[[np.ndarray], np.ndarray]
    ) -> Found:
        """Return the k best of the rows (n,) by exact scores, given their rough scores (n,).

        `vectors_of` returns the vectors of rows.
        """
        rows = rows[contenders(rough, k, self.error)]
        return best(rows, exact_scores(vectors_of(rows), self.vector), k)
