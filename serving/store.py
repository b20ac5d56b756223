"""The endpoint's storage, one SQLite file: items added since training, and feedback of users who consent. Nothing else
of any request is stored anywhere."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from fedrec.data.errors import InputError
from fedrec.serving.live_catalogue import ItemRecord
from fedrec.serving.schema.feedback import Feedback, Remembered, StoredFeedback

LIKED, HIDDEN = ("view", "like"), "hide"
"""Kinds of feedback that make up the history, and the kind that hides an item for good."""

_TABLES = """
CREATE TABLE IF NOT EXISTS items (item_id TEXT PRIMARY KEY, told TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS feedback (
    number INTEGER PRIMARY KEY, user TEXT NOT NULL, item_id TEXT NOT NULL, kind TEXT NOT NULL,
    request_id TEXT NOT NULL, at TEXT NOT NULL, UNIQUE (user, item_id, kind, request_id)
);
"""

LOCK_TIMEOUT = 2.0
"""Seconds to wait for another process that has locked the file."""


class StoreBusyError(Exception):
    """The store cannot be used now: it is locked or full, or another process reads what is to be overwritten."""


class Store:
    """Safe for several threads, which take turns. Erased data is overwritten, in the file and in its log.

    All methods raise `StoreBusyError` if the file cannot be read or written now; then nothing has changed.
    """

    def __init__(self, path: Path | None) -> None:
        """Open the file, created if missing; None: in memory. Raises `InputError` if it is not such a file."""
        self._turn = Lock()
        try:
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch(mode=0o600)
            self._db = sqlite3.connect(
                path or ":memory:", timeout=LOCK_TIMEOUT, check_same_thread=False, isolation_level=None
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA secure_delete = ON")
            self._db.executescript(_TABLES)
        except (sqlite3.Error, OSError) as error:
            raise InputError(f"--store {path} cannot be used ({error}); choose another file") from error

    def close(self) -> None:
        with self._turn:
            self._db.close()

    def changed_items(self) -> Iterator[tuple[str, ItemRecord | None]]:
        """Iterate over the items that were added, and, as None, those that were removed, under any model."""
        with self._in_turn():
            rows = self._db.execute("SELECT item_id, told FROM items").fetchall()
        for item_id, encoded in rows:
            yield item_id, ItemRecord.from_json(encoded) if encoded else None

    def put_item(self, item: ItemRecord) -> None:
        with self._transaction():
            self._db.execute("REPLACE INTO items VALUES (?, ?)", (item.item_id, item.to_json()))

    def drop_item(self, item_id: str) -> None:
        """Record a removal, whether the item was added here or is in the model's own catalogue."""
        with self._transaction():
            self._db.execute("REPLACE INTO items VALUES (?, NULL)", (item_id,))

    def add_feedback(self, feedback: Feedback) -> StoredFeedback:
        """Store feedback once; if it is sent again, return the first entry."""
        key = (feedback.user, feedback.item_id, feedback.kind, feedback.request_id)
        with self._transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO feedback (user, item_id, kind, request_id, at) VALUES (?, ?, ?, ?, ?)",
                (*key, datetime.now(UTC).isoformat(timespec="seconds")),
            )
            where = "user = ? AND item_id = ? AND kind = ? AND request_id = ?"
            row = self._db.execute(f"SELECT {_FIELDS} FROM feedback WHERE {where}", key).fetchone()
        return _stored_feedback(row)

    def feedback_of(self, user: str) -> list[StoredFeedback]:
        """Return all feedback of a user, oldest first."""
        with self._in_turn():
            rows = self._db.execute(
                f"SELECT {_FIELDS} FROM feedback WHERE user = ? ORDER BY number", (user,)
            ).fetchall()
        return [_stored_feedback(row) for row in rows]

    def list_users(self, after: str, most: int) -> list[Remembered]:
        """List users with stored feedback in the order of their ids, from the first beyond `after`."""
        query = "SELECT user, count(*) FROM feedback WHERE user > ? GROUP BY user ORDER BY user LIMIT ?"
        with self._in_turn():
            rows = self._db.execute(query, (after, most)).fetchall()
        return [Remembered(user=user, entries=entries) for user, entries in rows]

    def erase_user(self, user: str) -> int:
        """Erase a user's feedback, in the file and in its log; return the number of entries.

        Raises `StoreBusyError` if another process reads the file, so that its log cannot be emptied yet.
        """
        with self._transaction():
            count = self._db.execute("DELETE FROM feedback WHERE user = ?", (user,)).rowcount
        with self._in_turn():
            busy, *_ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreBusyError(
                "the user is erased, but another process reads the store, so that its log cannot be emptied; try again"
            )
        return count

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write all of a block to disk, or nothing."""
        with self._in_turn():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite ends it by itself if the disk is full
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Wait for other threads. Raises `StoreBusyError` for SQLite's errors."""
        with self._turn:
            try:
                yield
            except sqlite3.OperationalError as error:
                raise StoreBusyError(
                    f"the store cannot be used now ({error}); nothing has changed, try again"
                ) from error


_FIELDS = "user, item_id, kind, request_id, at"


def _stored_feedback(row: tuple[str, ...]) -> StoredFeedback:
    return StoredFeedback(**dict(zip(_FIELDS.split(", "), row, strict=True)))
