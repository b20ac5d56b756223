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
from typing import NamedTuple, Protocol

import faiss
import numpy as np
import torch

from fedrec.recsys.nearest import Found, SearchVector
from fedrec.serving.index.exact_search import ExactSearch, row_selector
from fedrec.serving.index.inverted_file import (
    AskAbout,
    InvertedSearch,
    build_inverted_file,
    mean_questions,
    tune_probes,
)
from fedrec.serving.index.vector_table import VectorTable

MAX_EXACT_ITEMS = 50_000
"""Items up to which every search is exact."""

MAX_GATHERED, MAX_GATHERED_SHARE = 4_096, 0.25
"""Allowed rows up to which scoring them one by one is faster than a search: a number, and a share of all rows."""

MAX_INLINE_ITEMS = 10_000
"""Items up to which a search takes less than half a millisecond."""


class SearchRequest(NamedTuple):
    """The arguments of `Index.search`."""

    vector: np.ndarray  # (W,)
    k: int
    allowed: np.ndarray | None  # mask of rows (N+M,); None: all


class Base(Protocol):
    """What searches the first matrix of an index's table."""

    def search(self, target: SearchVector, k: int, mask: np.ndarray | None) -> Found:
        """Return the k best rows of `mask` (N,), or fewer if the mask has fewer; ties go to the lower row."""
        ...


@dataclass(frozen=True, eq=False)
class Index:
    """Rows 0 to N-1 are the base's; rows from N on were added later."""

    table: VectorTable  # the vectors that are searched, at most √3 long; each begins with the towers' unit vector
    base: Base | faiss.IndexIVFFlat  # over the first matrix of the table
    living: np.ndarray  # (N+M,) bool: False for a removed row
    read: VectorTable  # the vectors that a history is read by
    tower_width: int  # of the towers' unit vector, by which items are compared with one another
    recall: float = 1.0  # of the base, measured when it was built

    @classmethod
    def build(cls, matrix: np.ndarray, ask_about: AskAbout | None = None) -> "Index":
        """Build an index over vectors (N, W), at most √3 long; an inverted file takes seconds to minutes.

        An inverted file is tuned on the questions of `ask_about`, by default mean vectors of items.
        """
        matrix = np.ascontiguousarray(matrix, dtype=np.float32)
        if len(matrix) <= MAX_EXACT_ITEMS:
            return cls.from_base(matrix, ExactSearch.build(matrix), 1.0)
        base = build_inverted_file(matrix)
        return cls.from_base(matrix, base, tune_probes(base, matrix, ask_about or mean_questions(matrix)))

    @classmethod
    def from_base(cls, matrix: np.ndarray, base: Base | faiss.IndexIVFFlat, recall: float) -> "Index":
        """Wrap a built base, with nothing added or removed."""
        table = VectorTable.of(matrix)
        return cls(table, base, np.ones(len(matrix), dtype=bool), table, matrix.shape[1], recall)

    def beside(self, read: np.ndarray, tower_width: int) -> "Index":
        """Read histories by other vectors (N, R) than are searched, as models with a closed form do.

        The towers' unit vectors, of a width, begin both.
        """
        return replace(self, read=VectorTable.of(read), tower_width=tower_width)

    def __len__(self) -> int:
        """Count the items that can be found."""
        return int(self.living.sum())

    @property
    def matrix(self) -> np.ndarray:
        """The vectors that the index was built over: (N, W) float32."""
        return self.table.matrix

    @property
    def extra(self) -> np.ndarray:
        """The vectors that were added since: (M, W)."""
        return self.table.extra

    @property
    def width(self) -> int:
        """The width W of the vectors that are searched, and of a question's."""
        return int(self.matrix.shape[1])

    @property
    def probes(self) -> int | None:
        """Cells that a search looks at; None if the base has none."""
        return int(self.base.nprobe) if isinstance(self.base, faiss.IndexIVFFlat) else None

    @property
    def is_small(self) -> bool:
        """Whether a search takes less time than handing it to a thread."""
        return isinstance(self.base, ExactSearch) and len(self.matrix) <= MAX_INLINE_ITEMS

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Look up the vectors of rows: (n,) → (n, W)."""
        return self.table.vectors(rows)

    def tower_vectors(self, rows: np.ndarray) -> np.ndarray:
        """Look up the towers' unit vectors of rows: (n,) → (n, E)."""
        return self.table.vectors(rows)[:, : self.tower_width]

    def with_vectors(self, searched: np.ndarray, read: np.ndarray | None = None) -> "Index":
        """Add items by their vectors, to be searched (n, W) and read (n, R); their rows continue the numbering."""
        table = self.table.with_vectors(searched)
        return replace(
            self,
            table=table,
            living=np.append(self.living, np.ones(len(searched), dtype=bool)),
            read=table if read is None or self.read is self.table else self.read.with_vectors(read),
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
        table = self.table.with_extra_only(late)
        read = table if self.read is self.table else self.read.with_extra_only(late)
        return replace(self, table=table, read=read, living=self.living[rows]), rows

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
        if not requests or not isinstance(self.base, ExactSearch):
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
        if not isinstance(self.base, faiss.IndexIVFFlat):
            return self.base.search(target, k, mask)
        selector, allowed = (None, len(self.matrix)) if mask is None else (row_selector(mask), int(mask.sum()))
        return InvertedSearch(self.base, self.matrix, target, selector, allowed).rank(k)
