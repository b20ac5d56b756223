"""The check of a user's own tables before anything is written: what would be refused, and what would be left out."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import polars as pl
import psutil

from fedrec.data.errors import InputError
from fedrec.data.ids import distinct_ids
from fedrec.data.moments import as_moment, units_per_second
from fedrec.data.prepare import build_dataset
from fedrec.data.randomness import salt_of
from fedrec.data.readers.formats import TableFile
from fedrec.data.readers.raw import COPIES, Frames
from fedrec.data.readers.reading_report import ReadingReport, join_names, shorten
from fedrec.data.readers.rows import OPTIONS, parse_ratings
from fedrec.data.readers.rules import Rules
from fedrec.data.readers.tables import Tables, event_columns, read_tables
from fedrec.data.readers.times import parse_times
from fedrec.data.split import Split

WIDTH = 384
"""The width of an embedding by the packaged encoder, for the estimate of memory."""

RATINGS = (0.0, 10.0)
"""The usual range of ratings: a rating outside it may be a sentinel, as -1 or 99 for none."""


@dataclass(frozen=True)
class Check:
    """What a check of tables found; each line has numbers and an example."""

    refused: tuple[str, ...]  # reasons for which nothing could be prepared
    left_out: tuple[str, ...]  # what an import would leave out or replace
    remarks: tuple[str, ...]  # what is odd, and would be kept
    kept: str  # what would be prepared, if anything

    @property
    def passed(self) -> bool:
        """Whether an import would succeed."""
        return not self.refused


def check_tables(tables: Tables, name: str, split: Split, rules: Rules) -> Check:
    """Check tables by reading and cutting them as an import does; nothing is written."""
    if missing := _missing_columns(tables, rules):
        return Check(tuple(missing), (), (), "")
    lines, refused, remarks, kept = list[str](), list[str](), list[str](), ""
    report = ReadingReport(lines.append)
    all_rows = replace(tables, text_format=replace(tables.text_format, bad_rows=1.0))
    try:
        frames = read_tables(all_rows, rules, report)
        refused += _too_many_bad(tables, frames, report)
        remarks += _find_remarks(tables, frames, rules)
        made = build_dataset(frames, name=name, split=split, rules=rules, report=report, salt=salt_of).manifest
        ranked = " and ".join(f"{count:,} for {part}" for part, count in made.ranked_users.items())
        kept = f"{made.users:,} users, {made.items:,} items, {made.interactions:,} interactions; ranked: {ranked}"
    except InputError as error:
        refused.append(str(error))
    report.finish()
    refused += [f"`strict`: {line}" for line in report.objections if rules.strict]
    return Check(tuple(refused), tuple(lines), tuple(remarks), kept)


def _missing_columns(tables: Tables, rules: Rules) -> list[str]:
    """Report every column that is asked for and is not there."""
    events = {OPTIONS[ours].partition(",")[0]: name for ours, name in event_columns(tables, rules).items()}
    wanted = [(tables.interactions, events)]
    if tables.items is not None:
        texts = {f"`text_columns` {name}": name for name in tables.texts}
        wanted.append((tables.items, {"`items_id_column`": tables.items_id or tables.item} | texts))
    lines = []
    for path, columns in wanted:
        try:
            there = TableFile(path, tables.text_format).column_names()
        except InputError as error:
            lines.append(str(error))
            continue
        lines += [
            f"{path} has no column {name!r}, but {join_names(there)}; name one of them with {option.partition(' ')[0]}"
            for option, name in columns.items()
            if name not in there
        ]
    return lines


def _too_many_bad(tables: Tables, frames: Frames, report: ReadingReport) -> Iterator[str]:
    """Report the files of which more rows are bad than their share allows."""
    read = {"bad_rows": (tables.interactions, report.counts["events_read"])}
    if tables.items is not None:
        read["bad_item_rows"] = tables.items, len(frames.items) + report.counts["bad_item_rows"]
    share = tables.text_format.bad_rows
    for step, (path, rows) in read.items():
        if (bad := report.counts[step]) > share * rows:
            yield f"{path}: {bad:,} of {rows:,} rows are bad, and `bad_rows` allows a share of {share:g}"


def _find_remarks(tables: Tables, frames: Frames, rules: Rules) -> Iterator[str]:
    events = frames.interactions
    yield from _odd_ids(distinct_ids(events["user_id"]), "users")
    yield from _odd_ids(pl.concat([distinct_ids(events["item_id"]), frames.items["item_id"]]), "items")
    if rules.times:
        yield from _odd_times(tables, events["timestamp"])
    yield from _odd_ratings(tables, rules)
    yield from _equal_texts(frames.items)
    yield _memory_line(tables, frames)


def _odd_ids(column: pl.Series, whose: str) -> Iterator[str]:
    """Report ids of mixed types, and ids that differ by nothing but case, blanks or a '.0'."""
    ids = column.unique()
    whole = ids.str.contains(r"^\d+$")
    if 0 < (numbers := int(whole.sum())) < len(ids):
        yield (
            f"ids of {whose} of mixed types: {numbers:,} of {len(ids):,} are whole numbers, one is "
            f"{shorten(ids.filter(whole)[0])}; one of the others is {shorten(ids.filter(~whole)[0])}"
        )
    bare = ids.str.strip_chars().str.strip_suffix(".0").str.to_lowercase()
    if (alike := bare.is_duplicated()).any():
        pair = ids.filter(bare == bare.filter(alike).sort()[0]).sort()
        yield (
            f"ids of {whose} that differ by case, blanks or '.0' alone, and are kept apart: {int(alike.sum()):,} of "
            f"{len(ids):,}; {shorten(pair[0])} and {shorten(pair[1])} are two"
        )


def _odd_times(tables: Tables, times: pl.Series) -> Iterator[str]:
    """Report the values that are no times, the range of the times (T,), and those that are zero or later than now."""
    raw = TableFile(tables.interactions, tables.text_format).read_rows({"time": tables.time}).frame["time"]
    if (bad := parse_times(raw).is_null()).any():
        yield f"times that are none: {int(bad.sum()):,} of {len(raw):,}; one is {shorten(raw.filter(bad)[0])}"
    first, last = times.min(), times.max()
    if not isinstance(first, int | float) or not isinstance(last, int | float):
        return
    yield f"times from {as_moment(first, last)} to {as_moment(last, last)}"
    if first == last and len(times) > 1:
        yield f"times: all {len(times):,} are equal; the order of the file decides"
    if (unit := units_per_second(last)) is None:
        return
    if zeros := int((times == 0).sum()):
        yield f"times of 0, which may stand for none: {zeros:,} of {len(times):,}"
    now = datetime.now(UTC).timestamp() * unit
    if late := int((times > now).sum()):
        yield f"times later than now: {late:,} of {len(times):,}; the latest is {as_moment(last, last)}"


def _odd_ratings(tables: Tables, rules: Rules) -> Iterator[str]:
    """Report the range of the ratings, if there are any, and those outside the usual one."""
    file, name = TableFile(tables.interactions, tables.text_format), tables.rating or rules.rating_column
    if name not in file.column_names():
        return
    raw = file.read_rows({"rating": name}).frame["rating"]
    parsed = parse_ratings(raw)
    ratings = parsed.drop_nulls()
    if len(raw) > len(ratings):
        bad = raw.filter(parsed.is_null())
        yield f"ratings that are no numbers: {len(bad):,} of {len(raw):,}; one is {shorten(bad[0])}"
    if len(ratings):
        yield f"ratings from {ratings.min():g} to {ratings.max():g}, median {ratings.median():g}"
    outside = ratings.filter(~ratings.is_between(*RATINGS))
    if len(outside):
        least, most = RATINGS
        yield (
            f"ratings outside {least:g} to {most:g}, which may stand for none: {len(outside):,} of {len(ratings):,}; "
            f"one is {outside[0]:g}"
        )


def _equal_texts(items: pl.DataFrame) -> Iterator[str]:
    """Report the items that an encoder cannot tell apart."""
    if (equal := items["text"].is_duplicated()).any():
        ids = items.filter(pl.col("text") == items.filter(equal)["text"][0])["item_id"]
        yield (
            f"items with the text of another, which an encoder cannot tell apart: {int(equal.sum()):,} of "
            f"{len(items):,}; {shorten(ids[0])} and {shorten(ids[1])} are two"
        )


def _memory_line(tables: Tables, frames: Frames) -> str:
    """Estimate the memory that preparing and training take at least."""
    files = [path for path in (tables.interactions, tables.items) if path is not None]
    reading = COPIES * sum(path.stat().st_size for path in files)
    events, items = len(frames.interactions), len(frames.items)
    training = events * 4 + items * WIDTH * 4
    free = psutil.virtual_memory().available
    return (
        f"memory: about {reading / 1e6:,.1f} MB to prepare, {training / 1e6:,.1f} MB for the histories and embeddings "
        f"of width {WIDTH}; {free / 1e6:,.0f} MB are free" + ", which is too little" * (reading + training > free)
    )
