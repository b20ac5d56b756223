"""What the endpoint stores for a tenant: items added since training, and feedback of users who consent. Nothing else of
any request is stored anywhere."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update

from fedrec.serving.database import FEEDBACK, FLEET, ITEMS, SHOWN, Database, StoreBusyError, feedback_key
from fedrec.serving.live_catalogue import ItemRecord
from fedrec.serving.schema.feedback import Feedback, Remembered, StoredFeedback

__all__ = ["HIDDEN", "LIKED", "Store", "StoreBusyError"]

LIKED, HIDDEN = ("view", "like"), "hide"
"""Kinds of feedback that make up the history, and the kind that hides an item for good."""


@dataclass(frozen=True)
class FleetState:
    """What all processes that serve a tenant share beside its items and feedback."""

    changes: int  # to items, so far
    generation: int  # reloads, so far
    version: str  # of the model that the last one loaded
    switch_at: float  # when all processes answer from it, Unix time


_STORED = [FEEDBACK.c[name] for name in StoredFeedback.model_fields]
_FLEET = [FLEET.c[field.name] for field in fields(FleetState)]


class Store:
    """One tenant's rows of a database. All methods raise `StoreBusyError`; then nothing has changed."""

    def __init__(self, database: Database, tenant: str = "") -> None:
        self.database, self.tenant = database, tenant
        row = {"tenant": tenant, "changes": 0, "generation": 0, "version": "", "switch_at": 0.0}
        with database.writing() as db:
            db.execute(database.insert(FLEET).values(row).on_conflict_do_nothing())

    def fleet(self) -> FleetState:
        """Return the state that all processes share."""
        with self.database.reading() as db:
            return self._read_fleet(db)

    def join_fleet(self, version: str) -> FleetState:
        """Report the version that a new process has loaded; if the others answer from another, they are to reload."""
        with self.database.writing() as db:
            state = self._read_fleet(db, to_write=True)
            return state if state.version == version else self._announce(db, state, version, time.time())

    def announce_reload(self, version: str, switch_at: float) -> FleetState:
        """Let all processes load their model again, which should be this version, and answer from it at that time."""
        with self.database.writing() as db:
            return self._announce(db, self._read_fleet(db, to_write=True), version, switch_at)

    def changed_items(self, after: int = -1) -> Iterator[tuple[str, ItemRecord | None]]:
        """Iterate over the items that were added, and, as None, those that were removed, under any model.

        They come in the order of their last change, from the first beyond number `after`.
        """
        query = select(ITEMS.c.item_id, ITEMS.c.told).where(ITEMS.c.tenant == self.tenant, ITEMS.c.change > after)
        with self.database.reading() as db:
            rows = db.execute(query.order_by(ITEMS.c.change, ITEMS.c.item_id)).all()
        for item_id, encoded in rows:
            yield item_id, ItemRecord.from_json(encoded) if encoded else None

    def put_item(self, item: ItemRecord) -> int:
        """Record an item, in place of one with the same id; return the number of the change."""
        return self._change_item(item.item_id, item.to_json())

    def drop_item(self, item_id: str) -> int:
        """Record a removal, whether the item was added here or is in the model's own catalogue."""
        return self._change_item(item_id, None)

    def add_feedback(
        self, feedback: Feedback, experiment: str | None = None, arm: str | None = None
    ) -> tuple[StoredFeedback, bool]:
        """Store feedback once, with the arm that had shown the item; return the first entry, and whether it is new."""
        sent = feedback.model_dump(exclude={"consent"})
        key, now = feedback_key(**sent), datetime.now(UTC).isoformat(timespec="seconds")
        row = {"tenant": self.tenant, "key": key, "at": now, "experiment": experiment, "arm": arm, **sent}
        with self.database.writing() as db:
            added = db.execute(
                self.database.insert(FEEDBACK).values(row).on_conflict_do_nothing().returning(FEEDBACK.c.number)
            ).first()
            stored = db.execute(select(*_STORED).where(self._own_feedback, FEEDBACK.c.key == key)).one()
        return _stored_feedback(stored), added is not None

    def feedback_of(self, user: str) -> list[StoredFeedback]:
        """Return all feedback of a user, oldest first."""
        if not self.database.can_hold(user):
            return []
        query = select(*_STORED).where(self._own_feedback, FEEDBACK.c.user == user).order_by(FEEDBACK.c.number)
        with self.database.reading() as db:
            rows = db.execute(query).all()
        return [_stored_feedback(row) for row in rows]

    def list_users(self, after: str, most: int) -> list[Remembered]:
        """List users with stored feedback in the order of their ids, from the first beyond `after`."""
        user = FEEDBACK.c.user
        after = after if self.database.can_hold(after) else after.partition("\0")[0]  # no stored id lies between
        query = select(user, func.count()).where(self._own_feedback, user > after)
        with self.database.reading() as db:
            rows = db.execute(query.group_by(user).order_by(user).limit(most)).all()
        return [Remembered(user=user, entries=entries) for user, entries in rows]

    def erase_user(self, user: str) -> int:
        """Erase a user's feedback, in SQLite also in its file and its log; return the number of entries.

        Raises `StoreBusyError` if another process reads the file, so that its log cannot be emptied yet.
        """
        if not self.database.can_hold(user):
            return 0
        with self.database.writing() as db:
            count = db.execute(delete(FEEDBACK).where(self._own_feedback, FEEDBACK.c.user == user)).rowcount
        self.database.empty_log()
        return count

    def add_shown(self, experiment: str, answers: Mapping[str, int]) -> None:
        """Count answers by arm."""
        if not answers:
            return
        with self.database.writing() as db:
            for arm, count in sorted(answers.items()):
                row = {"tenant": self.tenant, "experiment": experiment, "arm": arm, "answers": count}
                counted = {"answers": SHOWN.c.answers + count}
                rows = self.database.insert(SHOWN).values(row)
                db.execute(rows.on_conflict_do_update(index_elements=list(SHOWN.primary_key), set_=counted))

    def shown(self, experiment: str) -> Counter[str]:
        """Return the answers of each arm."""
        query = select(SHOWN.c.arm, SHOWN.c.answers).where(SHOWN.c.tenant == self.tenant)
        with self.database.reading() as db:
            rows = db.execute(query.where(SHOWN.c.experiment == experiment)).all()
        return Counter({row.arm: row.answers for row in rows})

    def liked(self, experiment: str) -> Counter[str]:
        """Return the answers of each arm of which an item was liked, by what is still stored."""
        query = select(FEEDBACK.c.arm, func.count(FEEDBACK.c.request_id.distinct()).label("answers")).group_by(
            FEEDBACK.c.arm
        )
        query = query.where(self._own_feedback, FEEDBACK.c.experiment == experiment, FEEDBACK.c.kind == "like")
        with self.database.reading() as db:
            return Counter({row.arm: row.answers for row in db.execute(query)})

    @property
    def _own_feedback(self) -> Any:
        return FEEDBACK.c.tenant == self.tenant

    def _change_item(self, item_id: str, told: str | None) -> int:
        with self.database.writing() as db:
            change: dict[str, Any] = {"told": told, "change": self._count_change(db)}
            row = self.database.insert(ITEMS).values(tenant=self.tenant, item_id=item_id, **change)
            db.execute(row.on_conflict_do_update(index_elements=[ITEMS.c.tenant, ITEMS.c.item_id], set_=change))
        return change["change"]

    def _count_change(self, db: Connection) -> int:
        """Take the next number of a change; the row's lock lasts until the change is written."""
        counted = update(FLEET).where(FLEET.c.tenant == self.tenant).values(changes=FLEET.c.changes + 1)
        return db.execute(counted.returning(FLEET.c.changes)).scalar_one()

    def _read_fleet(self, db: Connection, to_write: bool = False) -> FleetState:
        query = select(*_FLEET).where(FLEET.c.tenant == self.tenant)
        return FleetState(*db.execute(query.with_for_update() if to_write else query).one())

    def _announce(self, db: Connection, state: FleetState, version: str, switch_at: float) -> FleetState:
        state = replace(state, generation=state.generation + 1, version=version, switch_at=switch_at)
        values = {"generation": state.generation, "version": version, "switch_at": switch_at}
        db.execute(update(FLEET).where(FLEET.c.tenant == self.tenant).values(values))
        return state


def _stored_feedback(row: Row[Any]) -> StoredFeedback:
    return StoredFeedback(**dict(zip(StoredFeedback.model_fields, row, strict=True)))
