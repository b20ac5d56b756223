"""FAISS over item vectors: exact inner products, with exclusions inside the search."""

from collections.abc import Sequence

import faiss
import numpy as np
from torch import Tensor


class Index:
    """The items nearest to a vector. One thread a search: a web worker's parallelism is across requests."""

    def __init__(self, vectors: Tensor) -> None:
        matrix = np.ascontiguousarray(vectors.numpy(), dtype=np.float32)
        self._index = faiss.IndexFlatIP(matrix.shape[1])
        self._index.add(matrix)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def width(self) -> int:
        return int(self._index.d)

    def search(self, vector: np.ndarray, k: int, exclude: Sequence[int] | np.ndarray = ()) -> list[tuple[int, float]]:
        """The k best rows and their scores, best first, without the excluded; fewer where fewer are left."""
        faiss.omp_set_num_threads(1)  # it counts for the calling thread only
        parameters = None
        if len(exclude):
            batch = faiss.IDSelectorBatch(np.asarray(exclude, dtype=np.int64))
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorNot(batch))  # type: ignore[call-arg]
        scores, rows = self._index.search(
            np.ascontiguousarray(vector, dtype=np.float32)[None], min(k, len(self)), params=parameters
        )
        return [(int(row), float(score)) for row, score in zip(rows[0], scores[0], strict=True) if row >= 0]

    def vector(self, row: int) -> np.ndarray:
        return np.asarray(self._index.reconstruct(row))
