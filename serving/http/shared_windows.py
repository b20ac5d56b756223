"""Moving windows of the rate limits for several processes on one machine, in a temporary SQLite file."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from limits.storage import MovingWindowSupport, Storage

_TABLE = """
CREATE TABLE IF NOT EXISTS hits (caller TEXT, at REAL, amount INTEGER);
CREATE INDEX IF NOT EXISTS hits_at ON hits (at);
CREATE INDEX IF NOT EXISTS hits_caller ON hits (caller, at);
"""


class SharedWindows(Storage, MovingWindowSupport):
    """A storage of `limits`. Nothing is flushed to the disk: the file is worthless after the processes."""

    STORAGE_SCHEME = None

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._turn = Lock()
        self._db = sqlite3.connect(path, timeout=5, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.executescript(_TABLE)

    @property
    def base_exceptions(self) -> type[Exception]:
        return sqlite3.Error

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` hits unless that would be more than `limit` in the last `expiry` seconds."""
        now = time.time()
        with self._transaction() as db:
            db.execute("DELETE FROM hits WHERE at < ?", (now - expiry,))
            (held,) = db.execute("SELECT total(amount) FROM hits WHERE caller = ?", (key,)).fetchone()
            if fits := held + amount <= limit:
                db.execute("INSERT INTO hits VALUES (?, ?, ?)", (key, now, amount))
        return fits

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return the time of the first hit in the window, and the number of hits."""
        now = time.time()
        query = "SELECT min(at), total(amount) FROM hits WHERE caller = ? AND at >= ?"
        with self._transaction() as db:
            first, held = db.execute(query, (key, now - expiry)).fetchone()
        return first or now, int(held)

    def check(self) -> bool:
        """Return whether the storage can be used."""
        return True

    def reset(self) -> int:
        """Forget all hits, and return their number."""
        with self._transaction() as db:
            return db.execute("DELETE FROM hits").rowcount

    def clear(self, key: str) -> None:
        """Forget a caller's hits."""
        with self._transaction() as db:
            db.execute("DELETE FROM hits WHERE caller = ?", (key,))

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Refuse: only moving windows are counted here."""
        raise NotImplementedError

    get = get_expiry = incr  # type: ignore[assignment]

    def close(self) -> None:
        """Close the file."""
        with self._turn:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._turn:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            finally:
                self._db.execute("COMMIT")
