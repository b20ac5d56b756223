"""Exact search that reads half of every vector, and the whole of few.

Filter and refine, as in the VA-file (Weber, Schek and Blott, VLDB 1998): FAISS scores all vectors as bfloat16, and the
best of them, a few more than were asked for, anew by their own numbers. How far rounding can have moved a score tells
whether a row left out might be among the best after all; where it might, more of them are looked at.
"""

from dataclasses import dataclass

import faiss
import numpy as np

from fedrec.recsys.nearest import Found, best, contenders, doubt, exact_scores

SPARE, MORE = 8, 4
"""Rows that are refined besides a quarter more than were asked for, and how many times as many where they are not
enough."""

MOST = 1 / 16
"""The share of all rows beyond which it takes less time to score all by their own numbers."""


@dataclass(frozen=True, eq=False)
class Exact:
    """Vectors (N, E) as they are and as FAISS keeps them."""

    matrix: np.ndarray  # (N, E) float32
    index: faiss.IndexRefineFlat
    error: float  # length of the longest difference between a vector and what is kept of it

    @classmethod
    def over(cls, matrix: np.ndarray) -> "Exact":
        kind = faiss.ScalarQuantizer.QT_bf16
        halves = faiss.IndexScalarQuantizer(matrix.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        index = faiss.IndexRefineFlat(halves)
        index.add(matrix)
        lost = halves.reconstruct_n(0, len(matrix)) - matrix
        return cls(matrix, index, float(np.linalg.norm(lost, axis=1).max()))

    def search(self, vector: np.ndarray, k: int, mask: np.ndarray | None) -> Found:
        """The k rows with the highest inner product with a unit vector (E,), among those of the mask (N,) where there
        is one; fewer where it has fewer. Among equals the lower row comes first."""
        wrong = doubt(vector)
        apart = 2 * self.error + 4 * wrong  # by Cauchy and Schwarz; and all four sums round
        parameters = None if mask is None else _only(mask)
        many = k + k // 4 + SPARE
        while many < MOST * len(self.matrix):
            scores, rows = self._refined(vector, many, parameters)
            there = int(np.count_nonzero(rows >= 0))
            if there < many or scores[k - 1] > scores[-1] + apart:
                return self._settled(vector, rows[:there], scores[:there], k)
            many *= MORE
        rows = np.arange(len(self.matrix)) if mask is None else np.flatnonzero(mask)
        return self._settled(vector, rows, (self.matrix @ vector)[rows], k)

    def _settled(self, vector: np.ndarray, rows: np.ndarray, scores: np.ndarray, k: int) -> Found:
        """The k best of the rows by their exact scores, given rough ones."""
        rows = rows[contenders(scores, k, doubt(vector))]
        return best(rows, exact_scores(self.matrix[rows], vector), k)

    def _refined(
        self, vector: np.ndarray, many: int, parameters: faiss.SearchParameters | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """FAISS would wake a team of threads, even for one question: see `fedrec.serving.threads`."""
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            scores, rows = self.index.search(vector[None], many, params=parameters)
        finally:
            faiss.omp_set_num_threads(threads)
        return scores[0], rows[0]


def _only(mask: np.ndarray) -> faiss.SearchParameters:
    base = faiss.SearchParameters(sel=chosen(mask))  # type: ignore[call-arg]
    return faiss.IndexRefineSearchParameters(k_factor=1, base_index_params=base)  # type: ignore[call-arg]


def chosen(mask: np.ndarray) -> faiss.IDSelector:
    """For FAISS: the rows of the mask."""
    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))  # type: ignore[call-arg]
