"""Anyone's own tables, CSV or parquet, with columns of any name → the same frames as of published datasets."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from data.errors import InputError
from data.raw import Frames

OPTIONS = {"user_id": "--user-column", "item_id": "--item-column", "timestamp": "--time-column"}
EVERY_COLUMN = pl.QueryOptFlags(projection_pushdown=False)
"""Read what is not kept, too: a row with too many fields is noticed only so."""

Unreadable = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


@dataclass(frozen=True)
class Tables:
    """Where the tables are, and what their columns are called."""

    interactions: Path
    items: Path | None
    user: str
    item: str  # in both
    time: str
    texts: tuple[str, ...]  # of the items, the title first; where none is named, all but the id


def read_tables(tables: Tables) -> Frames:
    """Raises `InputError` naming the file, and the column or the line in it."""
    path = tables.interactions
    events = read_table(path, {"user_id": tables.user, "item_id": tables.item, "timestamp": tables.time})
    return Frames(events.with_columns(_times(events["timestamp"], path)), _items(tables))


def _items(tables: Tables) -> pl.DataFrame:
    """Items with what is written of them; where nothing is, the id stands for it."""
    if tables.items is None:
        return pl.DataFrame(schema={"item_id": pl.String, "title": pl.String, "text": pl.String})
    named = tables.texts or [name for name in _open(tables.items).collect_schema() if name != tables.item]
    columns = {f"text {place}": name for place, name in enumerate(named)}
    frame = read_table(tables.items, {"item_id": tables.item} | columns)
    texts = [pl.col(column).str.strip_chars().replace("", None) for column in columns]
    joined = pl.concat_str(*texts, pl.lit(None, pl.String), separator=". ", ignore_nulls=True).replace("", None)
    return frame.select("item_id", title=pl.coalesce(*texts[:1], "item_id"), text=pl.coalesce(joined, "item_id"))


def _open(path: Path) -> pl.LazyFrame:
    """A table of which nothing but the head is read; what stands in a CSV is text."""
    if not path.is_file():
        raise InputError(f"{path} is no file; give a CSV or parquet file")
    try:
        frame = pl.scan_parquet(path) if path.suffix == ".parquet" else pl.scan_csv(path, infer_schema=False)
        frame.collect_schema()
    except Unreadable as error:
        raise _broken(path, error) from error
    return frame


def read_table(path: Path, columns: dict[str, str]) -> pl.DataFrame:
    """The columns of these names under ours, as text but for times. No id is empty. Raises `InputError`."""
    frame = _open(path)
    there = frame.collect_schema().names()
    for column, name in columns.items():
        if name not in there:
            option = OPTIONS.get(column, "--text-columns")
            raise InputError(f"{path} has no column {name!r}, but {', '.join(there)}; name one of them with {option}")
    given = {column: pl.col(name) for column, name in columns.items()}
    texts = {column: values.cast(pl.String) for column, values in given.items() if column != "timestamp"}
    try:
        table = frame.select(**given | texts).collect(engine="streaming", optimizations=EVERY_COLUMN)
    except Unreadable as error:
        raise _broken(path, error) from error
    if table.is_empty():
        raise InputError(f"{path} holds no rows; is it the file you meant?")
    for column in ("user_id", "item_id"):
        if column in columns and (empty := table[column].fill_null("") == "").any():
            raise InputError(f"{_place(path, empty)}: {columns[column]} is empty; mend or remove the row")
    return table


def _times(raw: pl.Series, path: Path) -> pl.Series:
    """Times as numbers in the same order. Where no reading fits all of them, the one that fits most names the row."""
    if not (raw.dtype == pl.String or raw.dtype.is_numeric() or raw.dtype.is_temporal()):
        raise InputError(f"{path}: times of type {raw.dtype} cannot be ordered; give numbers or dates")
    failed = []
    for times in _readings(raw):
        if not times.has_nulls():
            return times
        failed.append(times.is_null())
    misread = min(failed, key=pl.Series.sum)
    value = raw[int(misread.arg_max() or 0)]
    raise InputError(f"{_place(path, misread)}: time {value!r} is no number and no ISO date; mend or remove the row")


def _readings(raw: pl.Series) -> Iterator[pl.Series]:
    """What times may be, null where they are not: whole numbers (typed dates are), other numbers, dates in text."""
    if not raw.dtype.is_float():
        yield raw.cast(pl.Int64, strict=False)
    numbers = raw.cast(pl.Float64, strict=False)
    yield numbers.set(~numbers.is_finite(), None)
    if raw.dtype == pl.String:
        dates = raw.set(~raw.str.contains(r"^\d{4}-\d{2}-\d{2}"), None)
        yield dates.str.to_datetime(time_zone="UTC", strict=False).cast(pl.Int64)


def _place(path: Path, rows: pl.Series) -> str:
    """The file and the first of the rows that are marked."""
    row = int(rows.arg_max() or 0)
    return f"{path} row {row + 1}" if path.suffix == ".parquet" else f"{path} line {row + 2}"


def _broken(path: Path, error: BaseException) -> InputError:
    return InputError(f"{path} cannot be read ({str(error).splitlines()[0]}); mend it or give another file")
