"""Qdrant: a collection for each version of an index, under an alias that appears once the collection is whole."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException

from fedrec.serving.index.address import IndexAddress
from fedrec.serving.index.vector_service import KEPT, Hits, IndexAwayError, IndexKey, Rows, Tune, Tuning

TIMEOUT = 30
"""Seconds for an answer of the service at most."""

BATCH = 256
"""Vectors that are sent at a time."""

ABANDONED = 24 * 3600 * 10**9
"""Nanoseconds after which nobody builds a collection any more that has no name yet."""

POLL = 0.5
"""Seconds between two looks at a graph that is being built."""


class QdrantService:
    """A client of Qdrant, or Qdrant's local mode in a folder, which belongs to one process."""

    def __init__(self, address: IndexAddress, key: str | None = None) -> None:
        self._address, self._is_local = address, "://" not in address.place
        with self._guarded():
            self._client = (
                QdrantClient(path=address.place)
                if self._is_local
                else QdrantClient(url=address.place, api_key=key, timeout=TIMEOUT, check_compatibility=False)
            )
            self._collections()  # it connects at the first question

    def find(self, key: IndexKey) -> Tuning | None:
        """Return how the index of a key is searched; None if there is none. Raises `InputError` for other sizes."""
        with self._guarded():
            if key.name not in self._collections():
                return None
            found = self._client.get_collection(key.name)
        vectors, told = found.config.params.vectors, found.config.metadata or {}
        assert isinstance(vectors, models.VectorParams)
        key.check(str(self._address), found.points_count or 0, vectors.size)
        return Tuning(int(told["effort"]), float(told["recall"]))

    def publish(self, key: IndexKey, matrix: np.ndarray, tune: Tune) -> Tuning:
        """Build a collection of vectors (N, W), name it by the key, and remove all but the newest `KEPT`.

        If another process has named its own meanwhile, that one stays.
        """
        collection = f"{key.name}_{time.time_ns()}"
        with self._guarded():
            try:
                self._fill(collection, matrix)
                tuning = tune(partial(self._search, collection, rows=Rows()))
                self._client.update_collection(collection, metadata=tuning._asdict())
                if key.name in self._collections():
                    self._client.delete_collection(collection)
                else:
                    self._name(collection, key.name)
                self._remove_old(key.series)
            except BaseException:
                with suppress(Exception):
                    self._client.delete_collection(collection)
                raise
        return tuning

    def search(self, key: IndexKey, vector: np.ndarray, count: int, rows: Rows, effort: int) -> Hits:
        """Return the `count` rows with the highest inner product, or fewer if there are fewer."""
        with self._guarded():
            return self._search(key.name, vector, count, effort, rows)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _search(self, name: str, vector: np.ndarray, count: int, effort: int, rows: Rows) -> Hits:
        how = models.SearchParams(hnsw_ef=max(effort, count)) if effort else models.SearchParams(exact=True)
        points = self._client.query_points(
            name,
            query=vector.tolist(),
            limit=count,
            query_filter=_filter(rows),
            search_params=None if self._is_local else how,  # local mode compares every vector
            with_payload=False,
        ).points
        ids = np.array([point.id for point in points], dtype=np.int64)
        return ids, np.array([point.score for point in points], dtype=np.float32)

    def _fill(self, collection: str, matrix: np.ndarray) -> None:
        """Create a collection of vectors, and wait until its graph is built."""
        size = models.VectorParams(size=matrix.shape[1], distance=models.Distance.DOT, on_disk=True)
        self._client.create_collection(collection, vectors_config=size)
        self._client.upload_collection(collection, matrix, ids=range(len(matrix)), batch_size=BATCH, wait=True)
        while self._client.get_collection(collection).status != models.CollectionStatus.GREEN:
            time.sleep(POLL)

    def _collections(self) -> dict[str, str]:
        """Return the collection of each alias."""
        return {each.alias_name: each.collection_name for each in self._client.get_aliases().aliases}

    def _name(self, collection: str, alias: str) -> None:
        named = models.CreateAlias(collection_name=collection, alias_name=alias)
        self._client.update_collection_aliases([models.CreateAliasOperation(create_alias=named)])

    def _remove_old(self, series: str) -> None:
        """Remove the collections of a series but the newest `KEPT`, and what a killed process has left unnamed."""
        named = set(self._collections().values())
        there = [each.name for each in self._client.get_collections().collections]
        ours = sorted((name for name in there if _series(name) == series), key=_made)
        kept = [name for name in ours if name in named][-KEPT:]
        for name in ours:
            if name not in kept and (name in named or _made(name) < time.time_ns() - ABANDONED):
                self._client.delete_collection(name)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Raise `IndexAwayError` for what the client, the network or local mode raise."""
        try:
            yield
        except (ApiException, OSError, RuntimeError, ValueError) as error:
            reason = self._address.without_password(" ".join(str(error).split())[:200]) or type(error).__name__
            raise IndexAwayError(f"the index {self._address} cannot be used ({reason}); check that it runs") from error


def _filter(rows: Rows) -> models.Filter | None:
    if rows.only is not None:
        return models.Filter(must=[models.HasIdCondition(has_id=rows.only.tolist())])
    if rows.never is not None and len(rows.never):
        return models.Filter(must_not=[models.HasIdCondition(has_id=rows.never.tolist())])
    return None


def _series(collection: str) -> str:
    """Return the series of a collection's name: all but its last two parts."""
    return collection.rsplit("_", 2)[0]


def _made(collection: str) -> int:
    """Return the time in a collection's name; 0 if there is none."""
    last = collection.rpartition("_")[2]
    return int(last) if last.isdigit() else 0
