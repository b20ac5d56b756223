"""Vectors by row: those that a model came with, then those of items that were added since."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class VectorTable:
    """Rows 0 to N-1 are the first matrix's; rows from N on were added later. It is immutable."""

    matrix: np.ndarray  # (N, W) float32
    extra: np.ndarray  # (M, W)

    @classmethod
    def of(cls, matrix: np.ndarray) -> "VectorTable":
        """Make a table of vectors (N, W) with nothing added."""
        return cls(matrix, np.zeros((0, matrix.shape[1]), dtype=np.float32))

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Look up the vectors of rows: (n,) → (n, W)."""
        first = len(self.matrix)
        if not len(self.extra):
            return self.matrix[rows]
        vectors = np.empty((len(rows), self.matrix.shape[1]), dtype=np.float32)
        late = rows >= first
        vectors[~late], vectors[late] = self.matrix[rows[~late]], self.extra[rows[late] - first]
        return vectors

    def part_with(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors (n, W) that include the rows' (R,), and the rows' places among them (R,).

        They are the first matrix itself if nothing was added, else a copy of the distinct rows.
        """
        if not len(self.extra) or not len(rows):
            return self.matrix, rows
        distinct, places = np.unique(rows, return_inverse=True)
        return self.vectors(distinct), places

    def with_vectors(self, vectors: np.ndarray) -> "VectorTable":
        """Add vectors (n, W); their rows continue the numbering."""
        return replace(self, extra=np.concatenate([self.extra, np.asarray(vectors, dtype=np.float32)]))

    def with_extra_only(self, places: np.ndarray) -> "VectorTable":
        """Keep, of the added vectors, those at some places (n,)."""
        return replace(self, extra=self.extra[places])
