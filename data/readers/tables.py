"""Anyone's own tables, with columns of any name → the same frames as of published datasets."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.readers.formats import TableFile
from fedrec.data.readers.items import read_items
from fedrec.data.readers.lines import DEFAULT_READING, Reading
from fedrec.data.readers.raw import Frames
from fedrec.data.readers.reading_report import Account, shortened
from fedrec.data.readers.rows import read_table
from fedrec.data.readers.rules import DEFAULT_RULES, Rules


@dataclass(frozen=True)
class Tables:
    """Where the tables are, how they are read, and what their columns are called."""

    interactions: Path
    items: Path | None
    user: str
    item: str  # in the interactions, and in the items unless `items_id` is another
    time: str
    texts: tuple[str, ...]  # of the items, the title first; where none is named, all but the id
    items_id: str | None = None
    event: str | None = None  # the column of kinds of events, where the rules do not name it
    reading: Reading = DEFAULT_READING


def read_tables(tables: Tables, rules: Rules = DEFAULT_RULES, account: Account | None = None) -> Frames:
    """Raises `InputError` naming the file, and the column or the line in it."""
    account = account or Account()
    return Frames(_events(tables, rules, account), _items(tables, account))


def _events(tables: Tables, rules: Rules, account: Account) -> pl.DataFrame:
    """Interactions in the order of the file, of the kinds that count."""
    file = TableFile(tables.interactions, tables.reading)
    columns = {"user_id": tables.user, "item_id": tables.item}
    columns |= {"timestamp": tables.time} if rules.times else {}
    if rules.keep_events and (kind := tables.event or rules.event_column):
        columns |= {"event": kind}
    events = read_table(file, columns, account)
    account.counts["events_read"] = len(events) + account.counts["bad_rows"]
    if not rules.times:
        events = events.with_columns(timestamp=pl.lit(0, pl.Int64))
    if rules.keep_events:
        events = _of_kinds(events, rules, account, tables.interactions)
    return events.select("user_id", "item_id", "timestamp")


def _of_kinds(events: pl.DataFrame, rules: Rules, account: Account, path: Path) -> pl.DataFrame:
    """The events whose kind counts. Raises `InputError` if none does."""
    kinds = events["event"].fill_null("").value_counts(sort=True)
    others = kinds.filter(~pl.col("event").is_in(rules.keep_events))
    told = ", ".join(f"{shortened(kind)} {count:,}" for kind, count in others.head(10).iter_rows())
    dropped = int(others["count"].sum())
    if dropped == len(events):
        raise InputError(
            f"{path}: no event is {' or '.join(rules.keep_events)}, but {told}; name others by --keep-events"
        )
    line = f"events of other kinds, left out: {dropped:,} of {len(events):,} ({told})"
    account.note("other_events_dropped", dropped, line, asked=True)
    return events.filter(pl.col("event").is_in(rules.keep_events))


def _items(tables: Tables, account: Account) -> pl.DataFrame:
    if tables.items is None:
        return pl.DataFrame(schema={"item_id": pl.String, "title": pl.String, "text": pl.String})
    file = TableFile(tables.items, tables.reading)
    return read_items(file, tables.items_id or tables.item, tables.texts, account)
