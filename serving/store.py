"""What the endpoint keeps, in one SQLite file: items that were put in since training, and feedback of users who asked
to be remembered. Nothing else of any request is kept anywhere."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from fedrec.data.errors import InputError
from fedrec.serving.live_catalogue import ItemRecord
from fedrec.serving.schema import Feedback, Remembered, StoredFeedback

LIKED, HIDDEN = ("view", "like"), "hide"
"""What makes a history, and what is never shown again."""

_TABLES = """
CREATE TABLE IF NOT EXISTS items (item_id TEXT PRIMARY KEY, told TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS feedback (
    number INTEGER PRIMARY KEY, user TEXT NOT NULL, item_id TEXT NOT NULL, kind TEXT NOT NULL,
    request_id TEXT NOT NULL, at TEXT NOT NULL, UNIQUE (user, item_id, kind, request_id)
);
"""


PATIENCE = 2.0
"""Seconds to wait for another process that has locked the file."""


class StoreBusyError(Exception):
    """The store cannot be read or written now: it is locked or full, or what is to be overwritten is being read."""


class Store:
    """Safe for several threads, which take turns. What is erased is overwritten, in the file and in its log.

    All methods raise `StoreBusyError` if the file cannot be read or written now; then nothing has changed.
    """

    def __init__(self, path: Path | None) -> None:
        """In a file, made where there is none, or in memory. Raises `InputError` where the file is none of ours."""
        self._turn = Lock()
        try:
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch(mode=0o600)
            self._db = sqlite3.connect(
                path or ":memory:", timeout=PATIENCE, check_same_thread=False, isolation_level=None
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA secure_delete = ON")
            self._db.executescript(_TABLES)
        except (sqlite3.Error, OSError) as error:
            raise InputError(f"--store {path} cannot be used ({error}); choose another file") from error

    def close(self) -> None:
        with self._turn:
            self._db.close()

    def items(self) -> Iterator[tuple[str, ItemRecord | None]]:
        """What was put in, and, as None, what was taken out, of whatever model."""
        with self._used():
            rows = self._db.execute("SELECT item_id, told FROM items").fetchall()
        for item_id, told in rows:
            yield item_id, _goods(json.loads(told)) if told else None

    def put(self, goods: ItemRecord) -> None:
        with self._written():
            self._db.execute("REPLACE INTO items VALUES (?, ?)", (goods.item_id, goods.told()))

    def drop(self, item_id: str) -> None:
        """Taken out, whether it was put in here or is of the model's own catalogue."""
        with self._written():
            self._db.execute("REPLACE INTO items VALUES (?, NULL)", (item_id,))

    def note(self, feedback: Feedback) -> StoredFeedback:
        """Keep feedback, once: sent again, the first is answered."""
        key = (feedback.user, feedback.item_id, feedback.kind, feedback.request_id)
        with self._written():
            self._db.execute(
                "INSERT OR IGNORE INTO feedback (user, item_id, kind, request_id, at) VALUES (?, ?, ?, ?, ?)",
                (*key, datetime.now(UTC).isoformat(timespec="seconds")),
            )
            where = "user = ? AND item_id = ? AND kind = ? AND request_id = ?"
            row = self._db.execute(f"SELECT {_KEPT} FROM feedback WHERE {where}", key).fetchone()
        return _kept(row)

    def feedback_of(self, user: str) -> list[StoredFeedback]:
        """All that is kept of a user, oldest first."""
        with self._used():
            rows = self._db.execute(f"SELECT {_KEPT} FROM feedback WHERE user = ? ORDER BY number", (user,)).fetchall()
        return [_kept(row) for row in rows]

    def users(self, after: str, most: int) -> list[Remembered]:
        """Users of whom something is kept, in the order of their ids, from the first beyond `after`."""
        query = "SELECT user, count(*) FROM feedback WHERE user > ? GROUP BY user ORDER BY user LIMIT ?"
        with self._used():
            rows = self._db.execute(query, (after, most)).fetchall()
        return [Remembered(user=user, entries=entries) for user, entries in rows]

    def erase(self, user: str) -> int:
        """Forget a user, in the file and in its log; how many entries there were.

        Raises `StoreBusyError` where another process reads the file, so that its log cannot be emptied yet.
        """
        with self._written():
            count = self._db.execute("DELETE FROM feedback WHERE user = ?", (user,)).rowcount
        with self._used():
            busy, *_ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreBusyError(
                "forgotten, but another process reads the store, and its log cannot be emptied; try again"
            )
        return count

    @contextmanager
    def _written(self) -> Iterator[None]:
        """One transaction: all of it is on disk, or none."""
        with self._used():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite ends it by itself if the disk is full
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _used(self) -> Iterator[None]:
        with self._turn:
            try:
                yield
            except sqlite3.OperationalError as error:
                raise StoreBusyError(
                    f"the store cannot be used now ({error}); nothing has changed, try again"
                ) from error


_KEPT = "user, item_id, kind, request_id, at"


def _kept(row: tuple[str, ...]) -> StoredFeedback:
    return StoredFeedback(**dict(zip(_KEPT.split(", "), row, strict=True)))


def _goods(told: dict) -> ItemRecord:
    item_id, title, text = (told.pop(name) for name in ("item_id", "title", "text"))
    return ItemRecord(item_id, title, text, told)
