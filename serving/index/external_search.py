"""Search in a service outside of the process, whose scores select candidates, as FAISS's do.

What was added or removed since the index was built is in `Index`, as for every other base: so an index is never
changed, and processes that serve the same model share it.
"""

from dataclasses import dataclass

import numpy as np

from fedrec.recsys.nearest import Found, SearchVector
from fedrec.serving.index.exact_search import rank_certainly
from fedrec.serving.index.inverted_file import PROBE_GROWTH, RECALL_AT, RECALL_TARGET, AskAbout, RecallTest
from fedrec.serving.index.vector_index import MAX_EXACT_ITEMS
from fedrec.serving.index.vector_service import Ask, IndexKey, Rows, Tune, Tuning, VectorService

MAX_LISTED = 20_000
"""Rows, at most, that a request names, either as the only ones or as excluded; between, what was found is filtered."""

EFFORTS = (200, 400, 1_000)
"""Candidates that a graph is searched with: the fewest that reach `RECALL_TARGET`. pgvector takes at most 1,000."""


@dataclass(frozen=True, eq=False)
class ExternalSearch:
    """An index in a service, beside the vectors (N, W) that it was built of."""

    service: VectorService
    key: IndexKey
    matrix: np.ndarray  # (N, W) float32
    effort: int

    def search(self, target: SearchVector, k: int, mask: np.ndarray | None) -> Found:
        """Return the k best rows of `mask` (N,), or fewer if the mask has fewer; ties go to the lower row.

        The order is the best `RECALL_AT`, then the next ones of a larger search, and so on: it does not depend on k.
        """
        named = named_rows(mask)
        allowed = len(self.matrix) if mask is None else int(mask.sum())
        ranking: Found = []
        count, searched = RECALL_AT, 0
        while len(ranking) < min(k, allowed) and searched < len(self.matrix):
            more = rank_certainly(target, count, lambda n: self._hits(target.vector, n, named), self._vectors)
            before = {row for row, _ in ranking}
            ranking += [each for each in more if each[0] not in before and (mask is None or mask[each[0]])]
            count, searched = PROBE_GROWTH * count, count
        return ranking[:k]

    def _hits(self, vector: np.ndarray, count: int, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        return self.service.search(self.key, vector, min(count, len(self.matrix)), rows, self.effort)

    def _vectors(self, rows: np.ndarray) -> np.ndarray:
        return self.matrix[rows]


def named_rows(mask: np.ndarray | None) -> Rows:
    """Translate a mask (N,) to the rows that a request names; to none if either list would be too long."""
    if mask is None:
        return Rows()
    allowed = int(mask.sum())
    if len(mask) - allowed <= MAX_LISTED:
        return Rows(never=np.flatnonzero(~mask))
    return Rows(only=np.flatnonzero(mask)) if allowed <= MAX_LISTED else Rows()


def tuner(matrix: np.ndarray, ask_about: AskAbout) -> Tune:
    """Return a function that chooses the effort of an index of vectors (N, W), and measures its recall.

    Up to `MAX_EXACT_ITEMS` items every vector is compared.
    """

    def tune(ask: Ask) -> Tuning:
        if len(matrix) <= MAX_EXACT_ITEMS:
            return Tuning(0, 1.0)
        test, tuning = RecallTest.of(matrix, ask_about), Tuning(0, 0.0)
        for effort in EFFORTS:
            found = [ask(vector, RECALL_AT, effort)[0] for vector in test.vectors]
            tuning = Tuning(effort, test.recall(found))
            if tuning.recall >= RECALL_TARGET:
                break
        return tuning

    return tune
