"""Exact search that reads half of every vector, and the whole of a few.

Filter and refine, as in the VA-file (Weber, Schek and Blott, VLDB 1998): FAISS scores all vectors as bfloat16, then
rescores the best of them, a few more than requested, at full precision. A bound on the rounding error shows if a row
that was left out could still be among the best; if so, the search is repeated with more candidates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import faiss
import numpy as np

from fedrec.recsys.nearest import Found, SearchVector
from fedrec.serving.process_tuning import single_openmp_thread

SPARE_CANDIDATES, CANDIDATE_GROWTH = 8, 4
"""Candidates are a quarter more than requested, and `SPARE_CANDIDATES`; if these are too few, `CANDIDATE_GROWTH` times
as many."""

MAX_CANDIDATE_SHARE = 1 / 16
"""The share of all rows beyond which it is faster to score every row at full precision."""


SIMD_WIDTH = 16
"""FAISS reads bfloat16 vectors of a multiple of this width by SIMD instructions, and others number by number: 2,065
numbers take fourteen times as long as 2,080."""


def candidate_count(k: int) -> int:
    """Return how many candidates a search for the k best begins with."""
    return k + k // 4 + SPARE_CANDIDATES


def rank_certainly(
    target: SearchVector,
    k: int,
    search: Callable[[int], tuple[np.ndarray, np.ndarray]],
    vectors_of: Callable[[np.ndarray], np.ndarray],
) -> Found:
    """Return the k best rows of a search at float32's precision: of more candidates, if an equal score may be left out.

    `search` returns the rows and the scores of a number of candidates, best first, or of fewer if there are fewer.
    """
    candidates = candidate_count(k)
    while True:
        rows, scores = search(candidates)
        if len(rows) < candidates or scores[k - 1] > scores[-1] + 2 * target.error:
            return target.rank(rows, scores, k, vectors_of)
        candidates *= CANDIDATE_GROWTH


def row_selector(mask: np.ndarray) -> faiss.IDSelector:
    """Translate a mask of rows (N,) into FAISS's selector."""
    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))  # type: ignore[call-arg]


@dataclass(frozen=True, eq=False)
class ExactSearch:
    """Unit vectors (N, E) in float32, and FAISS's bfloat16 copy of them."""

    matrix: np.ndarray  # (N, E) float32
    index: faiss.IndexRefineFlat
    error: float  # largest distance between a vector and its bfloat16 copy

    @classmethod
    def build(cls, matrix: np.ndarray) -> "ExactSearch":
        padded = _pad_width(matrix)
        kind = faiss.ScalarQuantizer.QT_bf16
        halves = faiss.IndexScalarQuantizer(padded.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        index = faiss.IndexRefineFlat(halves)
        index.add(padded)
        lost = halves.reconstruct_n(0, len(matrix)) - padded
        return cls(matrix, index, float(np.linalg.norm(lost, axis=1).max()))

    def search(self, target: SearchVector, k: int, mask: np.ndarray | None) -> Found:
        """Return the k rows of `mask` (N,) with the highest inner product, or fewer if the mask has fewer.

        Ties go to the lower row.
        """
        margin = 2 * self.error + 4 * target.error  # by Cauchy and Schwarz; and all four sums round
        parameters = None if mask is None else _search_parameters(mask)
        count = candidate_count(k)
        while count < MAX_CANDIDATE_SHARE * len(self.matrix):
            scores, rows = self._refine(target.vector, count, parameters)
            found = int(np.count_nonzero(rows >= 0))
            if found < count or scores[k - 1] > scores[-1] + margin:
                return target.rank(rows[:found], scores[:found], k, self._vectors)
            count *= CANDIDATE_GROWTH
        rows = np.arange(len(self.matrix)) if mask is None else np.flatnonzero(mask)
        return target.rank(rows, (self.matrix @ target.vector)[rows], k, self._vectors)

    def _vectors(self, rows: np.ndarray) -> np.ndarray:
        return self.matrix[rows]

    def _refine(
        self, vector: np.ndarray, count: int, parameters: faiss.SearchParameters | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the full-precision scores and the rows of `count` candidates; rows are -1 if there are fewer."""
        with single_openmp_thread():
            scores, rows = self.index.search(_pad_width(vector[None]), count, params=parameters)
        return scores[0], rows[0]


def _pad_width(vectors: np.ndarray) -> np.ndarray:
    """Append zeros up to a whole number of SIMD registers: (n, E) → (n, E or a little more)."""
    rows, width = vectors.shape
    if not (missing := -width % SIMD_WIDTH):
        return vectors
    padded = np.zeros((rows, width + missing), dtype=vectors.dtype)  # a tenth of the time of np.pad
    padded[:, :width] = vectors
    return padded


def _search_parameters(mask: np.ndarray) -> faiss.SearchParameters:
    base = faiss.SearchParameters(sel=row_selector(mask))  # type: ignore[call-arg]
    return faiss.IndexRefineSearchParameters(k_factor=1, base_index_params=base)  # type: ignore[call-arg]
