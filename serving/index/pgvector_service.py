"""PostgreSQL with pgvector: a table for each version of an index, and one table that lists them."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from psycopg import Connection, sql
from psycopg_pool import ConnectionPool, PoolTimeout

from fedrec.serving.index.address import IndexAddress
from fedrec.serving.index.vector_index import MAX_EXACT_ITEMS
from fedrec.serving.index.vector_service import KEPT, Hits, IndexAwayError, IndexKey, Rows, Tune, Tuning

TIMEOUT, CONNECTIONS = 5, 8
"""Seconds to wait for a connection; connections at most."""

MAX_EFFORT = 1_000
"""The largest `hnsw.ef_search` that pgvector takes; longer lists are searched without the graph."""

LOCK = 5_327_610_434
"""The number of PostgreSQL's lock under which indexes are listed and built."""

_LIST = """
CREATE TABLE IF NOT EXISTS fedrec_indexes (
    name text PRIMARY KEY, series text NOT NULL, items bigint NOT NULL, width integer NOT NULL,
    effort integer NOT NULL, recall double precision NOT NULL, made timestamptz NOT NULL DEFAULT clock_timestamp()
)"""
_OLD = "SELECT name FROM fedrec_indexes WHERE series = %s ORDER BY made DESC OFFSET %s"
_NEAREST = (
    "SELECT item, -(vector <#> %(vector)s) FROM {name} WHERE {rows} ORDER BY vector <#> %(vector)s LIMIT %(count)s"
)


class PgvectorService:
    """A pool of connections to PostgreSQL. A password that the URL leaves out is taken from `~/.pgpass`."""

    def __init__(self, address: IndexAddress) -> None:
        self._address = address
        with self._guarded():
            with psycopg.connect(address.place, connect_timeout=TIMEOUT) as db:
                db.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
                db.execute("CREATE EXTENSION IF NOT EXISTS vector")
                db.execute(_LIST)
            self._pool = ConnectionPool(
                address.place, min_size=1, max_size=CONNECTIONS, timeout=TIMEOUT, configure=register_vector, open=True
            )

    def find(self, key: IndexKey) -> Tuning | None:
        """Return how the index of a key is searched; None if there is none. Raises `InputError` for other sizes."""
        with self._guarded(), self._pool.connection() as db:
            return self._find(db, key)

    def publish(self, key: IndexKey, matrix: np.ndarray, tune: Tune) -> Tuning:
        """Build a table of vectors (N, W) and list it, in one transaction; remove all but the newest `KEPT`.

        A process that asks for the same meanwhile waits, and then finds it.
        """
        with self._guarded(), self._pool.connection() as db:
            db.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            if tuning := self._find(db, key):
                return tuning
            _fill(db, key, matrix)
            tuning = tune(lambda vector, count, effort: _nearest(db, key, vector, count, Rows(), effort))
            listed = [key.name, key.series, key.items, key.width, *tuning]
            columns = "name, series, items, width, effort, recall"
            db.execute(f"INSERT INTO fedrec_indexes ({columns}) VALUES (%s, %s, %s, %s, %s, %s)", listed)
            for (name,) in db.execute(_OLD, [key.series, KEPT]).fetchall():
                db.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
                db.execute("DELETE FROM fedrec_indexes WHERE name = %s", [name])
            return tuning

    def search(self, key: IndexKey, vector: np.ndarray, count: int, rows: Rows, effort: int) -> Hits:
        """Return the `count` rows with the highest inner product, or fewer if there are fewer."""
        with self._guarded(), self._pool.connection() as db:
            return _nearest(db, key, vector, count, rows, effort)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _find(self, db: Connection, key: IndexKey) -> Tuning | None:
        asked = "SELECT items, width, effort, recall FROM fedrec_indexes WHERE name = %s"
        if (found := db.execute(asked, [key.name]).fetchone()) is None:
            return None
        items, width, effort, recall = found
        key.check(str(self._address), items, width)
        return Tuning(effort, recall)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Raise `IndexAwayError` for what PostgreSQL and the pool raise."""
        try:
            yield
        except (psycopg.Error, PoolTimeout) as error:
            reason = self._address.without_password(" ".join(str(error).split())[:200]) or type(error).__name__
            remedy = "check that PostgreSQL runs and has the extension vector"
            raise IndexAwayError(f"the index {self._address} cannot be used ({reason}); {remedy}") from error


def _fill(db: Connection, key: IndexKey, matrix: np.ndarray) -> None:
    """Create a table of vectors, and the graph over it if it is large."""
    name, width = sql.Identifier(key.name), sql.Literal(key.width)
    db.execute(sql.SQL("CREATE TABLE {} (item bigint PRIMARY KEY, vector vector({}) NOT NULL)").format(name, width))
    with db.cursor().copy(sql.SQL("COPY {} FROM STDIN WITH (FORMAT BINARY)").format(name)) as copy:
        copy.set_types(["int8", "vector"])
        for row, vector in enumerate(matrix):
            copy.write_row([row, vector])
    if key.items > MAX_EXACT_ITEMS:
        db.execute(sql.SQL("CREATE INDEX ON {} USING hnsw (vector vector_ip_ops)").format(name))
    db.execute(sql.SQL("ANALYZE {}").format(name))


def _nearest(db: Connection, key: IndexKey, vector: np.ndarray, count: int, rows: Rows, effort: int) -> Hits:
    """Search by the graph; without it if the effort is 0, the list is long, or the rows are named."""
    by_graph = effort > 0 and count <= MAX_EFFORT and rows.only is None
    settings = {"enable_indexscan": "on" if by_graph else "off"}
    if by_graph:
        settings |= {"hnsw.ef_search": str(max(effort, count)), "hnsw.iterative_scan": "strict_order"}
    condition, named = sql.SQL("true"), None
    if rows.only is not None:
        condition, named = sql.SQL("item = ANY(%(named)s)"), rows.only.tolist()
    elif rows.never is not None and len(rows.never):
        condition, named = sql.SQL("item <> ALL(%(named)s)"), rows.never.tolist()
    query = sql.SQL(_NEAREST).format(name=sql.Identifier(key.name), rows=condition)
    with db.transaction():
        for name, value in settings.items():
            db.execute("SELECT set_config(%s, %s, true)", [name, value])
        found = db.execute(query, {"vector": vector, "count": count, "named": named}).fetchall()
    ids = np.array([row for row, _ in found], dtype=np.int64)
    return ids, np.array([score for _, score in found], dtype=np.float32)
