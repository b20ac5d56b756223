"""A user's own tables, with columns of any name → the same frames as from published datasets."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.readers.formats import TableFile
from fedrec.data.readers.items import read_items
from fedrec.data.readers.lines import DEFAULT_TEXT_FORMAT, TextFormat
from fedrec.data.readers.raw import Frames
from fedrec.data.readers.reading_report import ReadingReport, shorten
from fedrec.data.readers.rows import read_table
from fedrec.data.readers.rules import DEFAULT_RULES, Rules


@dataclass(frozen=True)
class Tables:
    """The tables' files, their format, and the names of their columns."""

    interactions: Path
    items: Path | None
    user: str
    item: str  # in the interactions, and in the items unless `items_id` is given
    time: str
    texts: tuple[str, ...]  # of the items, the title first; empty: all but the id
    items_id: str | None = None
    event: str | None = None  # the column of kinds of events, if the rules do not name it
    rating: str | None = None  # the column of ratings, if the rules do not name it
    text_format: TextFormat = DEFAULT_TEXT_FORMAT


def read_tables(tables: Tables, rules: Rules = DEFAULT_RULES, report: ReadingReport | None = None) -> Frames:
    """Read interactions and items. Raises `InputError`, which names the file, and the column or the line in it."""
    report = report or ReadingReport()
    return Frames(_read_events(tables, rules, report), _read_items(tables, report))


def _read_events(tables: Tables, rules: Rules, report: ReadingReport) -> pl.DataFrame:
    """Read the interactions of the kinds that count, in file order."""
    file, columns = TableFile(tables.interactions, tables.text_format), event_columns(tables, rules)
    events = read_table(file, columns, report)
    report.counts["events_read"] = len(events) + report.counts["bad_rows"]
    if not rules.times:
        events = events.with_columns(timestamp=pl.lit(0, pl.Int64))
    if rules.keep_events:
        events = _keep_kinds(events, rules, report, tables.interactions)
    return events.select("user_id", "item_id", "timestamp", *({"rating"} & set(columns)))


def event_columns(tables: Tables, rules: Rules) -> dict[str, str]:
    """Return the columns of the events that the rules need: our name → the file's."""
    columns = {"user_id": tables.user, "item_id": tables.item}
    columns |= {"timestamp": tables.time} if rules.times else {}
    columns |= {"rating": tables.rating or rules.rating_column} if rules.min_rating is not None else {}
    kind = tables.event or rules.event_column
    return columns | {"event": kind} if rules.keep_events and kind else columns


def _keep_kinds(events: pl.DataFrame, rules: Rules, report: ReadingReport, path: Path) -> pl.DataFrame:
    """Return the events of the kinds that count. Raises `InputError` if there are none."""
    kinds = events["event"].fill_null("").value_counts(sort=True)
    others = kinds.filter(~pl.col("event").is_in(rules.keep_events))
    examples = ", ".join(f"{shorten(kind)} {count:,}" for kind, count in others.head(10).iter_rows())
    dropped = int(others["count"].sum())
    if dropped == len(events):
        raise InputError(
            f"{path}: no event is {' or '.join(rules.keep_events)}, but {examples}; name others by `keep_events`"
        )
    line = f"events of other kinds, left out: {dropped:,} of {len(events):,} ({examples})"
    report.add_step("other_events_dropped", dropped, line, requested=True)
    return events.filter(pl.col("event").is_in(rules.keep_events))


def _read_items(tables: Tables, report: ReadingReport) -> pl.DataFrame:
    if tables.items is None:
        return pl.DataFrame(schema={"item_id": pl.String, "title": pl.String, "text": pl.String})
    file = TableFile(tables.items, tables.text_format)
    return read_items(file, tables.items_id or tables.item, tables.texts, report)
