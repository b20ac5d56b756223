"""The orders that a node has answered, by user and day, on its disk: an order is entered before its users are touched.

    orders    how many orders named a user on a day, and how many of them ranked the user
    groups    the users that were answered for together, by question; secure sums apart

*Differencing.* The metrics, and the statistics, of users A and of A with u tell about u alone by their difference. So
the users that a node has answered a question for form groups, and a later order for the question names whole groups,
and new users if they are enough to be a group: whatever is added to and subtracted from its answers is then about whole
groups, each of a cohort at least. Groups are forgotten `memory_days` after their last answer. The adapter does not
matter, since two that are nearly equal rank alike.

This does not hold for training, whose cohorts are sampled anew each round: two orders to train from one adapter, for A
and for A with u, tell the change of u. Nor does it hold across the nodes of a secure sum, which may have another node
more. Noise alone protects against both.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from fedrec.data.errors import InputError
from fedrec.data.manifest import CLIENT_STATE
from fedrec.federation.messages import OrderRefused
from fedrec.federation.policy.node_policy import NodePolicy, Question

FILE = f"{CLIENT_STATE}/orders.db"

PATIENCE = 60.0
"""Seconds to wait for another process of the folder's nodes to enter its order."""

_TABLES = """
CREATE TABLE IF NOT EXISTS orders (
    ticket INTEGER, day INTEGER, answered INTEGER, ranked INTEGER, PRIMARY KEY (ticket, day)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS groups (
    question TEXT, ticket INTEGER, number INTEGER, day INTEGER, PRIMARY KEY (question, ticket)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS members ON groups (question, number);
CREATE INDEX IF NOT EXISTS ordered ON orders (day);
CREATE INDEX IF NOT EXISTS grouped ON groups (day);
CREATE TEMP TABLE asked (ticket INTEGER PRIMARY KEY);
"""


def today() -> date:
    """Return the day in UTC."""
    return datetime.now(UTC).date()


@dataclass(frozen=True)
class OrderBook:
    """The orders answered with a folder's users, in a SQLite file: users are known by their tickets."""

    file: Path

    @classmethod
    def of(cls, folder: Path) -> "OrderBook":
        """Return the book of a node's folder; all nodes that share the folder share it."""
        return cls(folder / FILE)

    def enter(self, policy: NodePolicy, question: Question, tickets: np.ndarray, smallest: int, day: date) -> None:
        """Enter an order for some users (u,), on disk when this returns, so that a crash cannot lose it.

        `smallest` is the fewest new users that the answer may be about. Raises `OrderRefused`, and enters nothing, if
        the order is beyond the policy.
        """
        number, ranks = day.toordinal(), question in ("validation", "test")
        with self._transaction() as db:
            db.execute("DELETE FROM orders WHERE day < ?", (number,))
            db.execute("DELETE FROM groups WHERE day <= ?", (number - policy.memory_days,))
            db.executemany("INSERT INTO asked VALUES (?)", ((ticket,) for ticket in tickets.view(np.int64).tolist()))
            _check_counts(db, policy, ranks)
            if question != "train":
                _group(db, policy, question, smallest, number)
            db.execute(
                "INSERT INTO orders SELECT ticket, ?, 1, ? FROM asked WHERE true ON CONFLICT DO UPDATE "
                "SET answered = answered + 1, ranked = ranked + excluded.ranked",
                (number, int(ranks)),
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one order alone; the order is on disk at the end of the block. Raises `InputError`."""
        try:
            self.file.parent.mkdir(mode=0o700, exist_ok=True)
            self.file.touch(mode=0o600)
            with closing(sqlite3.connect(self.file, timeout=PATIENCE, isolation_level=None)) as db:
                db.execute("PRAGMA synchronous = FULL")
                db.executescript(_TABLES)
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise InputError(f"{self.file} cannot be used ({error}): this node answers no order") from error


def _check_counts(db: sqlite3.Connection, policy: NodePolicy, ranks: bool) -> None:
    """Raise `OrderRefused` if a user would be named, or ranked, more often than the policy allows on a day."""
    query = "SELECT coalesce(max(answered), 0), coalesce(max(ranked), 0) FROM orders JOIN asked USING (ticket)"
    answered, ranked = db.execute(query).fetchone()
    limits = [("orders_per_user_and_day", answered), *([("rankings_per_user_and_day", ranked)] if ranks else [])]
    for field, count in limits:
        if count >= (limit := getattr(policy, field)):
            raise OrderRefused(
                f"this node's policy refuses the order: a user was in {count} of the day's, and {field} = {limit}"
            )


def _group(db: sqlite3.Connection, policy: NodePolicy, question: Question, smallest: int, day: int) -> None:
    """Enter the asked users into groups. Raises `OrderRefused` if the order names a part of a group, or few new users.

    Groups of secure sums, which may be smaller, are apart: a sum that the server sees alone is never of such groups.
    """
    kind = question if smallest >= policy.smallest_cohort else f"secure {question}"
    parted = db.execute(
        "SELECT 1 FROM groups WHERE question = ?1 AND number IN (SELECT number FROM groups JOIN asked USING (ticket) "
        "WHERE question = ?1) AND ticket NOT IN (SELECT ticket FROM asked) LIMIT 1",
        (kind,),
    ).fetchone()
    known = "SELECT ticket FROM groups WHERE question = ?"
    new = db.execute(f"SELECT count(*) FROM asked WHERE ticket NOT IN ({known})", (kind,)).fetchone()[0]
    if parted or 0 < new < smallest:
        fault = "some, but not all" if parted else f"{new} more than the"
        raise OrderRefused(
            f"this node's policy refuses the order: users are {fault} users who were asked for {question} together, "
            f"which would tell about few by the difference; smallest_cohort = {policy.smallest_cohort}, and "
            f"memory_days = {policy.memory_days}"
        )
    db.execute("UPDATE groups SET day = ? WHERE question = ? AND ticket IN (SELECT ticket FROM asked)", (day, kind))
    db.execute(
        "INSERT INTO groups SELECT ?1, ticket, (SELECT coalesce(max(number), 0) + 1 FROM groups), ?2 FROM asked "
        "WHERE ticket NOT IN (SELECT ticket FROM groups WHERE question = ?1)",
        (kind, day),
    )
