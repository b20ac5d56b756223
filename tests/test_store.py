"""The store: the same promises in a file, in memory and in PostgreSQL, for several tenants and processes."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from fedrec.data.errors import InputError
from fedrec.serving.database import Database
from fedrec.serving.live_catalogue import ItemRecord
from fedrec.serving.schema.feedback import Feedback
from fedrec.serving.settings import Settings
from fedrec.serving.store import Store, StoreBusyError
from tests.support.cli import Fedrec
from tests.support.endpoint import FIRST_STORE
from tests.support.postgresql import PASSWORD, postgresql

LONG = "".join(chr(0x1F300 + n) for n in range(512))
"""An id of as many bytes as an id can have; no compression makes it short."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(params=["memory", "file", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    kinds = {"memory": lambda: None, "file": lambda: str(tmp_path / "store.db")}
    address = kinds.get(request.param, lambda: request.getfixturevalue("server"))()
    with closing(Database.open(address)) as opened:
        yield opened
        if request.param == "postgresql":
            with opened.writing() as db:
                db.execute(text("DROP TABLE items, feedback, fleet"))


def like(user: str, item_id: str = "a", request_id: str = "") -> Feedback:
    return Feedback(user=user, item_id=item_id, kind="like", request_id=request_id, consent=True)


def record(item_id: str, title: str = "x") -> ItemRecord:
    return ItemRecord(item_id, title, title, {"year": 2026})


def test_a_store_promises_the_same_wherever_it_is(database: Database) -> None:
    store, other = Store(database), Store(database, "other")
    first = store.add_feedback(like("ann"))
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(store.add_feedback, [like("ann")] * 8))
    assert again == [(first[0], False)] * 8
    assert first[1]
    users = ["Zoe", "ann", "b", "ä", LONG]
    for user in users:
        store.add_feedback(like(user, LONG, "r" * 64))
    assert [told.user for told in store.list_users("", 100)] == sorted(users)
    assert [(told.user, told.entries) for told in store.list_users("Zoe", 1)] == [("ann", 2)]
    assert [entry.item_id for entry in store.feedback_of("ann")] == ["a", LONG]
    for item in (record("b"), record("a"), record("b", "y")):
        store.put_item(item)
    store.drop_item(LONG)
    assert list(store.changed_items()) == [("a", record("a")), ("b", record("b", "y")), (LONG, None)]
    # Nothing of it is another tenant's.
    assert (list(other.changed_items()), other.feedback_of("ann"), other.list_users("", 100)) == ([], [], [])
    other.add_feedback(like("ann"))
    assert other.erase_user("ann") == 1
    assert len(store.feedback_of("ann")) == 2
    # What no database of one kind can hold is not there.
    assert store.feedback_of("a\0b") == []
    assert store.erase_user("a\0b") == 0
    assert [told.user for told in store.list_users("ann\0", 1)] == ["b"]
    assert store.erase_user("ann") == 2
    assert store.erase_user("ann") == 0


def test_postgresql_is_shared_and_says_what_fails_without_its_password(server: str, fedrec: Fedrec, run: Path) -> None:
    with ThreadPoolExecutor(4) as pool:  # the tables are created once, whoever comes first
        several = [Store(found) for found in pool.map(Database.open, [server] * 4)]
    several[0].add_feedback(like("ann"))
    assert [len(store.feedback_of("ann")) for store in several] == [1] * 4
    with several[0].database.reading() as db:  # as a restart of the server would
        db.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"))
    assert several[1].erase_user("ann") == 1
    with several[0].database.writing() as db:
        db.execute(text("LOCK TABLE feedback"))
        with pytest.raises(StoreBusyError, match=r"lock timeout.*nothing has changed, try again") as busy:
            several[1].add_feedback(like("marzipan"))
        assert "marzipan" not in str(busy.value)
    for store in several:
        store.database.close()
    wrong = server.replace(PASSWORD, "wr0ng-word").replace("/postgres", "/postgres?application_name=wr0ng-word")
    with pytest.raises(InputError, match=r"^--store postgresql://127\.0\.0\.1:\d+/postgres cannot be used") as refused:
        Database.open(wrong)
    assert "wr0ng-word" not in str(refused.value)
    assert PASSWORD not in repr(Settings(store=server))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("postgresql://u:s3cret@h/d", "password, and others can read a command line; use FEDREC_STORE"),
        ("postgresql+psycopg://h/d?password=s3cret", "password, and others can read a command line; use FEDREC_STORE"),
        ("mysql://u@h/d", "--store mysql://… is no database that is known; give postgresql+psycopg://… or a file"),
        ("postgresql://u@h:port/d", "cannot be read as a URL; write postgresql+psycopg://USER@HOST:PORT/NAME"),
        ("postgresql://127.0.0.1:1/d", "--store postgresql://127.0.0.1:1/d cannot be used"),
        ("/proc/none/store.db", "choose another file"),
    ],
)
def test_an_address_that_cannot_be_is_refused(fedrec: Fedrec, run: Path, address: str, message: str) -> None:
    pytest.importorskip("psycopg")
    for option in (["--store", address], ["--set", f"store={address}"]):
        refused = fedrec("serve", run, "--port", "0", *option)
        assert refused.code == 2
        assert message in refused.err
        assert "s3cret" not in refused.err


OLD_ROWS = """
INSERT INTO feedback VALUES (3, 'ann', 'a', 'like', '', '2026'), (7, 'bob', 'a', 'like', '', '2026');
INSERT INTO items VALUES ('gone', NULL), ('new', '{"item_id": "new", "title": "N", "text": "N", "year": 1}');
"""


def test_a_store_of_the_version_before_opens_with_all_that_it_holds(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "store.db")) as old:
        old.executescript(FIRST_STORE + OLD_ROWS)
    for _ in range(2):
        with closing(Database.open(str(tmp_path / "store.db"))) as database:
            store = Store(database)
            assert dict(store.changed_items()) == {"gone": None, "new": ItemRecord("new", "N", "N", {"year": 1})}
            assert [told.user for told in store.list_users("", 10)] == ["ann", "bob"]
            assert store.add_feedback(like("ann"))[0].at == "2026"
    with closing(Database.open(str(tmp_path / "store.db"))) as database:
        assert Store(database).erase_user("ann") == 1
    assert b"ann" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
