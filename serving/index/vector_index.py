"""FAISS over item vectors: the nearest to a vector, with filters and exclusions inside the search.

Up to `MAX_EXACT_ITEMS` items every search is exact; beyond, it uses an inverted file. Items added later are few: they
are in a matrix of their own, which every search scans.

The order is by score falling, then by row rising, and every page is a part of that one order: scores of libraries,
whose rounding depends on the batch, only select candidates (`fedrec.recsys.nearest`).

An index is immutable: one with an item more or less is another index, which shares the large arrays. So searches need
no lock, and none sees half of a change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import faiss
import numpy as np
import torch

from fedrec.recsys.nearest import Found, SearchVector
from fedrec.serving.index.exact_search import ExactSearch, row_selector
from fedrec.serving.index.inverted_file import InvertedSearch, build_inverted_file, tune_probes

MAX_EXACT_ITEMS = 50_000
"""Items up to which every search is exact."""

MAX_GATHERED, MAX_GATHERED_SHARE = 4_096, 0.25
"""Allowed rows up to which scoring them one by one is faster than a search: a number, and a share of all rows."""

MAX_INLINE_ITEMS = 10_000
"""Items up to which a search takes less than half a millisecond."""


class SearchRequest(NamedTuple):
    """The arguments of `Index.search`."""

    vector: np.ndarray  # (E,)
    k: int
    allowed: np.ndarray | None  # mask of rows (N+M,); None: all


@dataclass(frozen=True, eq=False)
class Index:
    """Rows 0 to N-1 are the base's; rows from N on were added later."""

    matrix: np.ndarray  # (N, E) float32, unit length
    base: ExactSearch | faiss.IndexIVFFlat
    extra: np.ndarray  # (M, E)
    living: np.ndarray  # (N+M,) bool: False for a removed row
    recall: float = 1.0  # of the base, measured when it was built

    @classmethod
    def build(cls, matrix: np.ndarray) -> "Index":
        """Build an index over unit vectors (N, E); an inverted file takes seconds to minutes."""
        matrix = np.ascontiguousarray(matrix, dtype=np.float32)
        if len(matrix) <= MAX_EXACT_ITEMS:
            return cls.from_base(matrix, ExactSearch.build(matrix), 1.0)
        base = build_inverted_file(matrix)
        return cls.from_base(matrix, base, tune_probes(base, matrix))

    @classmethod
    def from_base(cls, matrix: np.ndarray, base: ExactSearch | faiss.IndexIVFFlat, recall: float) -> "Index":
        """Wrap a built base, with nothing added or removed."""
        no_rows = np.zeros((0, matrix.shape[1]), dtype=np.float32)
        return cls(matrix, base, no_rows, np.ones(len(matrix), dtype=bool), recall)

    def __len__(self) -> int:
        """Count the items that can be found."""
        return int(self.living.sum())

    @property
    def width(self) -> int:
        return int(self.matrix.shape[1])

    @property
    def probes(self) -> int | None:
        """Cells that a search looks at; None if every search is exact."""
        return None if isinstance(self.base, ExactSearch) else int(self.base.nprobe)

    @property
    def is_small(self) -> bool:
        """Whether a search takes less time than handing it to a thread."""
        return len(self.matrix) <= MAX_INLINE_ITEMS

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Look up the vectors of rows: (n,) → (n, E)."""
        first = len(self.matrix)
        if not len(self.extra):
            return self.matrix[rows]
        vectors = np.empty((len(rows), self.width), dtype=np.float32)
        late = rows >= first
        vectors[~late], vectors[late] = self.matrix[rows[~late]], self.extra[rows[late] - first]
        return vectors

    def vector_table(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a table of vectors (n, E) that includes the rows' (R,), and the rows' places in it (R,).

        The base matrix itself if nothing was added, else a copy of the distinct rows.
        """
        if not len(self.extra) or not len(rows):
            return self.matrix, rows
        distinct, places = np.unique(rows, return_inverse=True)
        return self.vectors(distinct), places

    def with_vectors(self, vectors: np.ndarray) -> "Index":
        """Add vectors (n, E); their rows continue the numbering."""
        return replace(
            self,
            extra=np.concatenate([self.extra, np.asarray(vectors, dtype=np.float32)]),
            living=np.append(self.living, np.ones(len(vectors), dtype=bool)),
        )

    def without_rows(self, rows: Sequence[int]) -> "Index":
        """Remove rows; the numbering stays."""
        living = self.living.copy()
        living[list(rows)] = False
        return replace(self, living=living)

    @property
    def dead_rows(self) -> int:
        """The number of rows that were added and removed again."""
        return int((~self.living[len(self.matrix) :]).sum())

    def compacted(self) -> tuple["Index", np.ndarray]:
        """Drop the dead rows; return the new index and, for each of its rows, the row it had before."""
        first = len(self.matrix)
        late = np.flatnonzero(self.living[first:])
        rows = np.concatenate([np.arange(first), first + late])
        return replace(self, extra=self.extra[late], living=self.living[rows]), rows

    def search(self, vector: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Found:
        """Return the k best living rows of the mask `allowed` (N+M,), or fewer if there are fewer.

        The result is exact if the base is, if few rows are allowed, and among added rows. A longer result begins with
        the same rows.
        """
        target = SearchVector.of(np.ascontiguousarray(vector, dtype=np.float32))
        if allowed is None and self._is_unchanged:
            return self._search_base(target, k, None)
        mask, first = self._living_mask(allowed), len(self.matrix)
        if allowed is not None and int(mask.sum()) <= min(MAX_GATHERED, MAX_GATHERED_SHARE * len(mask)):
            rows = np.flatnonzero(mask)
            return target.rank(rows, self.vectors(rows) @ target.vector, k, self.vectors)
        ranking, late = self._search_base(target, k, mask[:first]), np.flatnonzero(mask[first:])
        if not len(late):
            return ranking
        ranking += target.rank(first + late, (self.extra @ target.vector)[late], k, self.vectors)
        return sorted(ranking, key=lambda each: (-each[1], each[0]))[:k]

    def search_each(self, requests: Sequence[SearchRequest]) -> list[Found]:
        """Run `search` for each request, one after the other, in the calling thread."""
        return [self.search(*request) for request in requests]

    def search_all(self, requests: Sequence[SearchRequest]) -> list[Found]:
        """Run `search` for each request; the same results.

        An exact index needs one matrix product for all vectors, which takes a fraction of the time, and all cores.
        """
        if not requests or self.probes:
            return self.search_each(requests)
        vectors = torch.from_numpy(np.stack([request[0] for request in requests]).astype(np.float32))  # (B, E)
        parts = [vectors @ torch.from_numpy(part).T for part in (self.matrix, self.extra)]
        scores = torch.cat(parts, dim=1).numpy()  # (B, N+M)
        rankings = []
        for vector, rough, (_, k, allowed) in zip(vectors.numpy(), scores, requests, strict=True):
            rows = np.flatnonzero(self._living_mask(allowed))
            rankings.append(SearchVector.of(vector).rank(rows, rough[rows], k, self.vectors))
        return rankings

    def _living_mask(self, allowed: np.ndarray | None) -> np.ndarray:
        return self.living if allowed is None else self.living & allowed

    @cached_property
    def _is_unchanged(self) -> bool:
        """Whether nothing was added or removed since the index was built."""
        return not len(self.extra) and bool(self.living.all())

    def _search_base(self, target: SearchVector, k: int, mask: np.ndarray | None) -> Found:
        if isinstance(self.base, ExactSearch):
            return self.base.search(target, k, mask)
        selector, allowed = (None, len(self.matrix)) if mask is None else (row_selector(mask), int(mask.sum()))
        return InvertedSearch(self.base, self.matrix, target, selector, allowed).rank(k)
