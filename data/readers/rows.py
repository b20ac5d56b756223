"""The usable rows of a table, and a report of the bad rows: without an id, without a time, or broken."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.ids import id_fault, id_faults
from fedrec.data.readers.columns import as_text
from fedrec.data.readers.formats import Rows, TableFile
from fedrec.data.readers.large_tables import read_sound_events
from fedrec.data.readers.lines import line_label
from fedrec.data.readers.reading_report import BadRows, ReadingReport, join_names, shorten
from fedrec.data.readers.times import can_be_times, has_zone, parse_times

OPTIONS = {
    "user_id": "`user_column`",
    "item_id": "`item_column`",
    "timestamp": "`time_column`, or pass `no_times` if the rows are in the order of time",
    "event": "`event_column`",
    "rating": "`rating_column`",
    "group": "`column`",
}
"""Our columns, and the parameters that name them in the file."""


def read_table(file: TableFile, columns: dict[str, str], report: ReadingReport) -> pl.DataFrame:
    """Read columns (our name → the file's), ids as text and times as numbers, without bad rows.

    The ids of large files are categories (data/readers/large_tables.py).

    Raises `InputError` if a column is missing, or if more rows are bad than the text format allows.
    """
    check_columns(file, file.column_names(), columns, OPTIONS)
    if (events := read_sound_events(file, columns)) is not None:
        report.add_bad_rows("bad_rows", BadRows(0, len(events)), file.text_format.bad_rows)
        return events
    rows = file.read_rows(columns)
    table = rows.frame
    if "timestamp" in columns:
        table = table.with_columns(_parse_times(file, table["timestamp"], report), given=pl.col("timestamp"))
    if "rating" in columns:
        table = table.with_columns(_parse_ratings(file, table["rating"]))
    table = ids_as_text(file, table, [column for column in columns if column not in ("timestamp", "rating")])
    return drop_bad_rows(file, rows._replace(frame=table), columns, report, "bad_rows")


def _parse_times(file: TableFile, raw: pl.Series, report: ReadingReport) -> pl.Series:
    if not can_be_times(raw.dtype):
        raise InputError(f"{file.path}: times of type {raw.dtype} cannot be ordered; give numbers or dates")
    if raw.dtype == pl.String and (dated := int(raw.str.contains(r"^\s*\d{4}-").sum())):
        without = dated - int(has_zone(raw).sum())
        if 0 < without < dated:
            report.add_remark(
                f"times without a time zone, read as UTC beside others with one: {without:,} of {dated:,}"
            )
    return parse_times(raw).alias("timestamp")


def parse_ratings(raw: pl.Series) -> pl.Series:
    """Parse ratings as numbers (T,); null for a value that is none."""
    text = raw.str.strip_chars() if raw.dtype == pl.String else raw
    return text.cast(pl.Float64, strict=False).fill_nan(None).alias("rating")


def _parse_ratings(file: TableFile, raw: pl.Series) -> pl.Series:
    """Parse ratings as numbers; null for none. Raises `InputError` if no row has one."""
    ratings = parse_ratings(raw)
    if len(raw) and ratings.null_count() == len(ratings):
        raise InputError(f"{file.path}: no rating is a number; one is {shorten(raw[0])}: name another `rating_column`")
    return ratings


def ids_as_text(file: TableFile, table: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Convert columns to text. Raises `InputError` for a type that has no text."""
    texts = {column: as_text(table[column]) for column in columns if not isinstance(table[column].dtype, pl.List)}
    if failed := [column for column in columns if texts.get(column) is None]:
        raise InputError(f"{file.path}: {failed[0]} of type {table[failed[0]].dtype} is no text; give text or numbers")
    return table.with_columns(**texts)


def check_columns(file: TableFile, there: list[str], columns: Mapping[str, str], options: Mapping[str, str]) -> None:
    """Raise `InputError` if a column (our name → the file's) is not there, or is there twice."""
    for column, name in columns.items():
        if name not in there:
            option = options.get(column, "`text_columns`")
            raise InputError(
                f"{file.path} has no column {name!r}, but {join_names(there)}; name one of them with {option}"
                + _separated_otherwise(there)
            )
        if f"{name}_duplicated_0" in there:
            raise InputError(f"{file.path} has two columns {name!r}; rename one")


def _separated_otherwise(there: list[str]) -> str:
    """Suggest a separator for a header that was read as one column; empty if none fits."""
    marks = {"\t": "tab", ";": "';'", "|": "'|'"}
    found = [name for mark, name in marks.items() if len(there) == 1 and mark in there[0]]
    return f"; if its columns are separated otherwise, name it with `separator={found[0]}`" if found else ""


def drop_bad_rows(
    file: TableFile, rows: Rows, columns: dict[str, str], report: ReadingReport, step: str
) -> pl.DataFrame:
    """Drop the bad rows, and report them: those without a valid id or time, and broken lines."""
    table = rows.frame
    if table.is_empty() and not rows.broken:
        raise InputError(f"{file.path} holds no rows; is it the file you meant?")
    bad = pl.Series([False]).new_from_index(0, len(table))
    for column in set(columns) & {"user_id", "item_id"}:
        bad |= id_faults(table[column]).is_not_null()
    if "timestamp" in columns:
        bad |= table["timestamp"].is_null()
    count, total = rows.broken + int(bad.sum()), rows.broken + len(table)
    first = _first_fault(file, rows, columns, bad) if count else ""
    report.add_bad_rows(step, BadRows(count, total, first), file.text_format.bad_rows)
    return table.filter(~bad) if bad.any() else table


def _first_fault(file: TableFile, rows: Rows, columns: dict[str, str], bad: pl.Series) -> str:
    """Describe the first bad row: its place and its fault."""
    faults = [(rows.first[0], f"{line_label(file.path, rows.first[0])}: {rows.first[1]}")] if rows.first else []
    if bad.any():
        row = int(bad.arg_max() or 0)
        line, place = file.locate(row)
        faults.append((line, f"{place}: {_fault(rows.frame.row(row, named=True), columns)}"))
    return min(faults)[1]


def _fault(row: dict[str, Any], columns: dict[str, str]) -> str:
    """Describe the fault of a bad row."""
    for column in ("user_id", "item_id"):
        if column in columns and (fault := id_fault(row[column] or "")):
            return " ".join([columns[column], *([shorten(row[column])] if row[column] else []), fault])
    given = row["given"]
    return f"time {shorten(given) if isinstance(given, str) else given} is no number and no ISO date"
