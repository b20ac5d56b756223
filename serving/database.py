"""The database of the endpoint's store, a SQLite file or PostgreSQL: its tables; how it is opened, read and written;
how the tables of an older version are carried over."""

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    StaticPool,
    Table,
    Text,
    create_engine,
    event,
    inspect,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from fedrec.data.errors import InputError

LOCK_TIMEOUT = 2.0
"""Seconds to wait for another process that has locked what is needed, or for a free connection."""

CONNECT_TIMEOUT = 5
"""Seconds to wait for PostgreSQL to accept a connection."""

WRITES, TABLES_LOCK = "fedrec_writes", 5_327_610_433
"""The option of a connection that will write; the number of PostgreSQL's lock under which tables are created."""

_URL = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")
_Id = Text().with_variant(Text(collation="C"), "postgresql")  # ordered by code points, as in SQLite
_Count = BigInteger().with_variant(Integer, "sqlite")

TABLES = MetaData()
ITEMS = Table(
    "items",
    TABLES,
    Column("tenant", _Id, primary_key=True),
    Column("item_id", _Id, primary_key=True),
    Column("told", Text),  # the item in JSON; null: removed
    Column("change", _Count, nullable=False),
    sqlite_with_rowid=False,
)
FEEDBACK = Table(
    "feedback",
    TABLES,
    Column("number", _Count, primary_key=True),
    Column("tenant", _Id, nullable=False),
    # of an entry, whatever its length: PostgreSQL indexes no more than 2,700 bytes
    Column("key", Text, nullable=False),
    Column("user", _Id, nullable=False),
    Column("item_id", _Id, nullable=False),
    Column("kind", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("experiment", Text),
    Column("arm", Text),  # that had shown the item, if there is an experiment
    Index("feedback_key", "tenant", "key", unique=True),
    Index("feedback_user", "tenant", "user"),
)
SHOWN = Table(
    "shown",
    TABLES,
    Column("tenant", _Id, primary_key=True),
    Column("experiment", _Id, primary_key=True),
    Column("arm", _Id, primary_key=True),
    Column("answers", _Count, nullable=False),
)
FLEET = Table(
    "fleet",
    TABLES,
    Column("tenant", _Id, primary_key=True),
    Column("changes", _Count, nullable=False),
    Column("generation", _Count, nullable=False),
    Column("version", Text, nullable=False),
    Column("switch_at", Float, nullable=False),
)
"""A row for each tenant: the number of changes to its items, the number of its reloads, the version that the last one
loaded, and when all processes answer from it (Unix time)."""


class StoreBusyError(Exception):
    """The store cannot be used now: it is locked or full, or another process reads what is to be overwritten."""


def feedback_key(user: str, item_id: str, kind: str, request_id: str) -> str:
    """Return what identifies an entry of feedback: a hash of its fields."""
    return hashlib.sha256(json.dumps([user, item_id, kind, request_id]).encode()).hexdigest()


class Database:
    """Safe for several threads and processes. In SQLite, erased data is overwritten, in the file and in its log.

    All methods raise `StoreBusyError` if the database cannot be read or written now; then nothing has changed.
    """

    def __init__(self, engine: Engine, is_shared: bool) -> None:
        """Use `open` instead."""
        self._engine, self.is_shared = engine, is_shared
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._turn = Lock() if self._is_sqlite else nullcontext()  # SQLite has one connection, PostgreSQL a pool
        self.insert: Any = sqlite.insert if self._is_sqlite else postgresql.insert
        """The dialect's `insert`, which has `on_conflict_do_nothing`."""

    @classmethod
    def open(cls, address: str | None) -> "Database":
        """Open a SQLite file, created if missing, or a URL of PostgreSQL; None: in memory, for one process.

        Raises `InputError`, without the password, if it is no store or cannot be reached.
        """
        url = _parse_url(address) if address and _URL.match(address) else None
        name = _describe(url) if url else address
        try:
            opened = cls(_postgresql(url) if url else _sqlite(address), is_shared=address is not None)
            with opened.writing() as db:
                _create_tables(db)
        except (DBAPIError, StoreBusyError, OSError) as error:
            remedy = "check the URL, and that PostgreSQL runs" if url else "choose another file"
            raise InputError(f"--store {name} cannot be used ({_reason(error)}); {remedy}") from None
        return opened

    def close(self) -> None:
        """Close all connections."""
        with self._turn:
            self._engine.dispose()

    def can_hold(self, text: str) -> bool:
        """Return whether a text can be stored: PostgreSQL has no character U+0000."""
        return self._is_sqlite or "\0" not in text

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read what was last written."""
        with self._guarded(), self._engine.connect() as db:
            yield db

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Write all of a block, or nothing; other writers wait."""
        with self._guarded(), self._engine.execution_options(**{WRITES: True}).begin() as db:
            yield db

    def empty_log(self) -> None:
        """Overwrite what was erased in SQLite's log. Raises `StoreBusyError` if another process still reads it."""
        if not self._is_sqlite:
            return
        with self.reading() as db:
            busy, *_ = db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
        if busy:
            raise StoreBusyError(
                "the user is erased, but another process reads the store, so that its log cannot be emptied; try again"
            )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Wait for other threads. Raises `StoreBusyError` for the database's errors."""
        with self._turn:
            try:
                yield
            except (OperationalError, NoConnectionError) as error:
                raise StoreBusyError(
                    f"the store cannot be used now ({_reason(error)}); nothing has changed, try again"
                ) from None


def holds_password(address: str) -> bool:
    """Return whether an address of a store is a URL with a password."""
    if not _URL.match(address):
        return False
    url = _parse_url(address)
    return url.password is not None or "password" in url.query


def _parse_url(address: str) -> URL:
    scheme = address.partition("://")[0]
    if scheme not in ("postgresql", "postgresql+psycopg"):
        raise InputError(f"--store {scheme}://… is no database that is known; give postgresql+psycopg://… or a file")
    try:
        return make_url(address).set(drivername="postgresql+psycopg")
    except (ArgumentError, ValueError):
        remedy = "postgresql+psycopg://USER@HOST:PORT/NAME, with special characters percent-encoded"
        raise InputError(f"--store {scheme}://… cannot be read as a URL; write {remedy}") from None


def _describe(url: URL) -> str:
    """Name a database by its place alone: neither user nor password nor options."""
    return f"postgresql://{url.host or ''}{f':{url.port}' if url.port else ''}/{url.database or ''}"


def _reason(error: Exception) -> str:
    """Return the driver's reason, which is a line, without the statement and its values."""
    reason = str(getattr(error, "orig", None) or error).strip()
    return re.sub(r"\s*\n\s*", ", ", reason) or type(error).__name__


def _sqlite(path: str | None) -> Engine:
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch(mode=0o600)
    options = {"check_same_thread": False, "isolation_level": None, "timeout": LOCK_TIMEOUT}
    url = URL.create("sqlite", database=path)
    engine = create_engine(url, poolclass=StaticPool, connect_args=options, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.create_function("feedback_key", 4, feedback_key, deterministic=True)

    @event.listens_for(engine, "begin")
    def begin(db: Connection) -> None:
        if db.get_execution_options().get(WRITES):  # a reader needs no transaction: it sends one statement
            db.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL) -> Engine:
    limits = f"-c lock_timeout={LOCK_TIMEOUT:g}s -c idle_in_transaction_session_timeout=30s"
    options = {"connect_timeout": CONNECT_TIMEOUT, "options": limits}
    return create_engine(url, pool_pre_ping=True, pool_timeout=LOCK_TIMEOUT, connect_args=options, hide_parameters=True)


def _create_tables(db: Connection) -> None:
    """Create missing tables, once, whoever else starts now; carry over those that an older version wrote."""
    if db.dialect.name == "postgresql":
        db.exec_driver_sql(f"SELECT pg_advisory_xact_lock({TABLES_LOCK})")
    tables = inspect(db)
    older = [
        name
        for name in ("items", "feedback")
        if tables.has_table(name) and "tenant" not in {column["name"] for column in tables.get_columns(name)}
    ]
    for name in older:
        db.exec_driver_sql(f"ALTER TABLE {name} RENAME TO older_{name}")
    TABLES.create_all(db)
    for name in older:
        db.exec_driver_sql(_CARRY_OVER[name])
        db.exec_driver_sql(f"DROP TABLE older_{name}")


_CARRY_OVER = {
    "items": "INSERT INTO items SELECT '', item_id, told, 0 FROM older_items",
    "feedback": "INSERT INTO feedback (number, tenant, key, user, item_id, kind, request_id, at) SELECT number, '', "
    "feedback_key(user, item_id, kind, request_id), user, item_id, kind, request_id, at FROM older_feedback",
}
"""Statements of SQLite: a store of the first version was one file, without tenants."""
