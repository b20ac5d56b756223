"""An inverted file (Jégou, Douze and Schmid 2011, doi:10.1109/TPAMI.2010.57): a search looks at the nearest cells only.

The number of cells is the smallest that reaches a recall, measured when the index is built. The order is the best
`RECALL_AT` of these cells, then the next ones from more cells, and so on, so that a longer page begins as a shorter.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from fedrec.recsys.nearest import Found, SearchVector
from fedrec.serving.index.exact_search import rank_certainly

RECALL_AT, RECALL_TARGET = 100, 0.985
"""An inverted file must find this share of the nearest `RECALL_AT` rows: slightly more than the 0.98 that is promised,
since later questions differ from the measured ones."""

PROBE_GROWTH = 4
"""A search unlike those measured, such as a page beyond `RECALL_AT`, multiplies its cells by this until further cells
contain nothing better."""

MAX_EXCLUDED = RECALL_AT // 2
"""Excluded rows, at most, for a search to count as like those measured: usually a history's."""

TASTE_NEIGHBOURS = (20, 100, 500)
"""Recall is measured on tastes: items drawn from this many nearest neighbours of an item."""

SAMPLED_QUESTIONS, ITEMS_PER_TASTE = 200, 10
"""Questions of each kind that recall is measured on; and items in each taste."""

AskAbout = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""A function from groups of rows, (Q, n) each, to vectors of questions about them, (Q, W) for each kind of question."""


@dataclass(frozen=True, eq=False)
class InvertedSearch:
    """One search of an inverted file for the rows that FAISS's `selector` admits."""

    base: faiss.IndexIVFFlat
    matrix: np.ndarray  # (N, E) float32: the vectors in it
    target: SearchVector
    selector: Any  # None: all rows
    allowed: int  # rows that it admits

    def rank(self, k: int) -> Found:
        """Return the k best allowed rows, or all of them; the first rows are the same for every larger k.

        Therefore each step's row count and cell count do not depend on k.
        """
        ranking: Found = []
        cells, count = self.base.nprobe, RECALL_AT
        is_measured = len(self.matrix) - self.allowed <= MAX_EXCLUDED
        while len(ranking) < min(k, self.allowed):
            if is_measured:
                more = self.search_cells(min(k, count), cells)
            else:
                more, cells = self.search_until_stable(min(count, self.allowed), cells)
            before = {row for row, _ in ranking}
            ranking += [each for each in more if each[0] not in before]
            count, is_measured = PROBE_GROWTH * count, False
        return ranking[:k]

    def search_until_stable(self, count: int, cells: int) -> tuple[Found, int]:
        """Search more and more cells until they contain nothing better; return the ranking and the cells searched."""
        ranking, before = self.search_cells(count, cells), None
        while cells < self.base.nlist and not (ranking == before and len(ranking) == count):
            cells = min(PROBE_GROWTH * cells, self.base.nlist)
            before, ranking = ranking, self.search_cells(count, cells)
        return ranking, cells

    def search_cells(self, count: int, cells: int) -> Found:
        """Return the `count` best rows of the nearest `cells` cells."""
        parameters = faiss.SearchParametersIVF(sel=self.selector, nprobe=cells)  # type: ignore[call-arg]

        def search(candidates: int) -> tuple[np.ndarray, np.ndarray]:
            scores, rows = self.base.search(self.target.vector[None], candidates, params=parameters)
            return rows[rows >= 0], scores[rows >= 0]

        return rank_certainly(self.target, count, search, lambda rows: self.matrix[rows])


def build_inverted_file(matrix: np.ndarray) -> faiss.IndexIVFFlat:
    """Build about 4 √N cells, as FAISS advises, trained on at most 64 vectors a cell."""
    cells = int(4 * len(matrix) ** 0.5)
    base = faiss.IndexIVFFlat(faiss.IndexFlatIP(matrix.shape[1]), matrix.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
    base.cp.max_points_per_centroid, base.cp.seed = 64, 0
    base.train(matrix)
    base.add(matrix)
    return base


def tune_probes(base: faiss.IndexIVFFlat, matrix: np.ndarray, ask_about: AskAbout) -> float:
    """Set the fewest cells, in steps of a quarter, that reach `RECALL_TARGET` for every kind of question.

    Return the recall of the worst kind.
    """
    test, recall = RecallTest.of(matrix, ask_about), 0.0
    for probes in _probe_counts(base.nlist):
        base.nprobe = probes
        _, rows = base.search(test.vectors, RECALL_AT)
        recall = test.recall(rows)
        if recall >= RECALL_TARGET:
            break
    return recall


@dataclass(frozen=True, eq=False)
class RecallTest:
    """Sampled questions of several kinds, equally many of each, and their exact answers."""

    vectors: np.ndarray  # (Q, W)
    nearest: np.ndarray  # (Q, RECALL_AT)
    kinds: int

    @classmethod
    def of(cls, matrix: np.ndarray, ask_about: AskAbout) -> "RecallTest":
        """Ask about tastes that are sampled from vectors (N, W)."""
        kinds = ask_about(_sample_tastes(matrix, SAMPLED_QUESTIONS))
        vectors = np.concatenate(kinds)
        nearest = np.argsort(-(vectors @ matrix.T), axis=1)[:, :RECALL_AT]
        return cls(vectors, nearest, len(kinds))

    def recall(self, found: Sequence[Sequence[int] | np.ndarray] | np.ndarray) -> float:
        """Compute the mean recall of the worst kind, of the rows that were found for each question."""
        return float(recall_per_question(found, self.nearest).reshape(self.kinds, -1).mean(axis=1).min())


def recall_per_question(found: Sequence[Sequence[int] | np.ndarray] | np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Compute the share of each question's nearest rows (Q, n) that was found: (Q,)."""
    return np.array([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, nearest, strict=True)])


def _probe_counts(most: int) -> Iterator[int]:
    probes = 1
    while probes < most:
        yield probes
        probes = max(probes + 1, probes * 5 // 4)
    yield most


def _sample_tastes(matrix: np.ndarray, count: int) -> list[np.ndarray]:
    """Sample groups of rows of each kind: (count, 1) of one item, and (count, n) of more or less similar ones."""
    rng = np.random.default_rng(0)
    items = rng.choice(len(matrix), count, replace=False)
    neighbours = np.argsort(-(matrix[items] @ matrix.T), axis=1)
    tastes = [
        np.stack([rng.choice(rows, ITEMS_PER_TASTE, replace=False) for rows in neighbours[:, :among]])
        for among in TASTE_NEIGHBOURS
    ]
    return [items[:, None], *tastes]


def mean_questions(matrix: np.ndarray) -> AskAbout:
    """Return a function that asks about groups of rows by the direction of their mean vector, as two towers do."""

    def ask_about(groups: Sequence[np.ndarray]) -> list[np.ndarray]:
        means = [matrix[rows].mean(1) for rows in groups]  # (Q, W) each
        return [mean / np.linalg.norm(mean, axis=1, keepdims=True) for mean in means]

    return ask_about
