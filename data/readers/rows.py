"""The rows of a table that can be used, and an account of those that cannot: no id, no time, a broken line."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.ids import id_fault, id_faults
from fedrec.data.readers.columns import as_text
from fedrec.data.readers.formats import Rows, TableFile
from fedrec.data.readers.lines import line_of
from fedrec.data.readers.reading_report import Account, listed, shortened
from fedrec.data.readers.times import can_be_times, has_zone, ordered_times

OPTIONS = {
    "user_id": "--user-column",
    "item_id": "--item-column",
    "timestamp": "--time-column, or pass --no-times if the rows stand in the order of time",
    "event": "--event-column",
    "group": "--column",
}


def read_table(file: TableFile, columns: dict[str, str], account: Account) -> pl.DataFrame:
    """The columns of these names under ours, ids as text and times as numbers, without bad rows.

    Raises `InputError` if a column is missing, or if more rows are bad than the reading allows.
    """
    check_columns(file, file.columns(), columns, OPTIONS)
    found = file.rows(columns)
    table = found.frame
    if "timestamp" in columns:
        table = table.with_columns(_times(file, table["timestamp"], account), given=pl.col("timestamp"))
    table = with_text(file, table, [column for column in columns if column != "timestamp"])
    return without_bad_rows(file, found._replace(frame=table), columns, account, "bad_rows")


def _times(file: TableFile, raw: pl.Series, account: Account) -> pl.Series:
    if not can_be_times(raw.dtype):
        raise InputError(f"{file.path}: times of type {raw.dtype} cannot be ordered; give numbers or dates")
    if raw.dtype == pl.String and (dated := int(raw.str.contains(r"^\s*\d{4}-").sum())):
        without = dated - int(has_zone(raw).sum())
        if 0 < without < dated:
            account.remark(f"times without a time zone, read as UTC beside others with one: {without:,} of {dated:,}")
    return ordered_times(raw).alias("timestamp")


def with_text(file: TableFile, table: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Ids as text. Raises `InputError` for a type that has none."""
    texts = {column: as_text(table[column]) for column in columns if not isinstance(table[column].dtype, pl.List)}
    if failed := [column for column in columns if texts.get(column) is None]:
        raise InputError(f"{file.path}: {failed[0]} of type {table[failed[0]].dtype} is no text; give text or numbers")
    return table.with_columns(**texts)


def check_columns(file: TableFile, there: list[str], columns: Mapping[str, str], options: Mapping[str, str]) -> None:
    for column, name in columns.items():
        if name not in there:
            option = options.get(column, "--text-columns")
            raise InputError(
                f"{file.path} has no column {name!r}, but {listed(there)}; name one of them with {option}"
                + _separated_otherwise(there)
            )
        if f"{name}_duplicated_0" in there:
            raise InputError(f"{file.path} has two columns {name!r}; rename one")


def _separated_otherwise(there: list[str]) -> str:
    """A hint for a header that stands in one column."""
    marks = {"\t": "tab", ";": "';'", "|": "'|'"}
    found = [name for mark, name in marks.items() if len(there) == 1 and mark in there[0]]
    return f"; if its columns are separated otherwise, say so with --separator {found[0]}" if found else ""


def without_bad_rows(
    file: TableFile, found: Rows, columns: dict[str, str], account: Account, step: str
) -> pl.DataFrame:
    """The good rows; the others go into the account. A row is bad if an id or its time is none, or its line broken."""
    table = found.frame
    if table.is_empty() and not found.broken:
        raise InputError(f"{file.path} holds no rows; is it the file you meant?")
    bad = pl.Series([False]).new_from_index(0, len(table))
    for column in set(columns) & {"user_id", "item_id"}:
        bad |= id_faults(table[column]).is_not_null()
    if "timestamp" in columns:
        bad |= table["timestamp"].is_null()
    count, rows = found.broken + int(bad.sum()), found.broken + len(table)
    first = _first_fault(file, found, columns, bad) if count else ""
    if count > file.reading.bad_rows * rows:
        allowed = f", and --bad-rows allows a share of {file.reading.bad_rows:g}" * (file.reading.bad_rows > 0)
        raise InputError(f"{first}; mend or remove the row ({count:,} of {rows:,} rows are bad{allowed})")
    account.note(step, count, f"bad rows, left out: {count:,} of {rows:,}; the first is {first}")
    return table.filter(~bad) if bad.any() else table


def _first_fault(file: TableFile, found: Rows, columns: dict[str, str], bad: pl.Series) -> str:
    """The first bad row: its place, and what is wrong with it."""
    faults = [(found.first[0], f"{line_of(file.path, found.first[0])}: {found.first[1]}")] if found.first else []
    if bad.any():
        row = int(bad.arg_max() or 0)
        line, place = file.place(row)
        faults.append((line, f"{place}: {_fault(found.frame.row(row, named=True), columns)}"))
    return min(faults)[1]


def _fault(row: dict[str, Any], columns: dict[str, str]) -> str:
    """Say what is wrong with a bad row."""
    for column in ("user_id", "item_id"):
        if column in columns and (fault := id_fault(row[column] or "")):
            return " ".join([columns[column], *([shortened(row[column])] if row[column] else []), fault])
    given = row["given"]
    return f"time {shortened(given) if isinstance(given, str) else given} is no number and no ISO date"
