"""Events of published datasets: reviews and ratings in large files → user, item, time and rating.

Polars parses a batch of lines at once. Only a batch that it refuses is parsed line by line, so that a broken line loses
that line alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import NamedTuple

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.ids import id_faults
from fedrec.data.readers.lines import DEFAULT_TEXT_FORMAT, Record, line_label, parse_csv_records, unreadable_error
from fedrec.data.readers.plain_text import mend_surrogates
from fedrec.data.readers.raw import File
from fedrec.data.readers.reading_report import BadRows, ReadingReport, join_names, shorten
from fedrec.data.readers.records import PARQUET, RecordFormat, parse_record, scan_parquet
from fedrec.data.readers.streams import LineBatch, read_line_batches


@dataclass(frozen=True)
class EventFields:
    """The keys or columns of an event."""

    user: str
    item: str
    time: str | None  # None: the file has no times
    rating: str | None = None
    time_format: str | None = None  # of dates, as `strptime` has it; None: numbers

    @property
    def names(self) -> dict[str, str]:
        """Our columns, and the file's."""
        names = {"user_id": self.user, "item_id": self.item, "timestamp": self.time, "rating": self.rating}
        return {ours: name for ours, name in names.items() if name}

    def typed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Convert columns of text: times to seconds or to the file's own numbers, ratings to numbers."""
        if self.time_format:
            time = pl.col("timestamp").str.to_datetime(self.time_format, strict=False).dt.epoch("s").cast(pl.Float64)
        else:
            time = pl.col("timestamp").cast(pl.Float64, strict=False) if self.time else pl.lit(0.0)
        rating = pl.col("rating").cast(pl.Float64, strict=False)
        return rows.with_columns(timestamp=time, **({"rating": rating} if self.rating else {}))


class Rows(NamedTuple):
    """Rows of text, a function from a row to the number of its line, and the broken lines."""

    frame: pl.DataFrame
    line_of: Callable[[int], int]
    broken: list[Record]


@dataclass
class Sieve:
    """A filter of bad rows, which counts them."""

    count: int = 0
    total: int = 0
    first: str = ""

    def keep_sound(self, file: File, rows: Rows, typed: pl.DataFrame, bad: pl.Series) -> pl.DataFrame:
        """Return the typed rows without the bad ones."""
        if not self.first and (rows.broken or bad.any()):
            self.first = _first_fault(file, rows, bad)
        self.count += int(bad.sum()) + len(rows.broken)
        self.total += len(typed) + len(rows.broken)
        return typed.filter(~bad)

    def report_to(self, report: ReadingReport, file: File) -> None:
        """Report the bad rows. Raises `InputError` if there are too many, or no rows at all."""
        if not self.total:
            raise InputError(f"{file.name} holds no events; is it the whole file?")
        report.add_bad_rows("bad_rows", BadRows(self.count, self.total, self.first), DEFAULT_TEXT_FORMAT.bad_rows)
        report.counts["events_read"] = self.total


def read_events(files: Sequence[File], form: RecordFormat, fields: EventFields, report: ReadingReport) -> pl.DataFrame:
    """Read the events of all files, in their order: `user_id`, `item_id`, `timestamp`, and `rating` if there is one.

    Bad rows are left out and counted. Raises `InputError` if too many are bad, or if a file cannot be read.
    """
    frames, sieve = [], Sieve()
    for file in files:
        for rows in read_rows(file, form, fields.names):
            typed = fields.typed(rows.frame)
            bad = id_faults(typed["user_id"]).is_not_null() | id_faults(typed["item_id"]).is_not_null()
            bad |= ~typed["timestamp"].is_finite().fill_null(False)
            frames.append(sieve.keep_sound(file, rows, typed, bad))
    sieve.report_to(report, files[0])
    return _with_whole_times(pl.concat(frames))


def _with_whole_times(events: pl.DataFrame) -> pl.DataFrame:
    whole = (events["timestamp"] == events["timestamp"].round()).all()
    return events.with_columns(pl.col("timestamp").cast(pl.Int64)) if whole else events


def _first_fault(file: File, rows: Rows, bad: pl.Series) -> str:
    """Describe the first bad row: its line, and its fault."""
    faults = [(record.line, str(record.fault)) for record in rows.broken[:1]]
    if bad.any():
        row = int(bad.arg_max() or 0)
        found = ", ".join(f"{name} {shorten(value)}" for name, value in rows.frame.row(row, named=True).items())
        faults.append((rows.line_of(row), f"an id or the time is missing or wrong ({found})"))
    line, fault = min(faults)
    return f"{line_label(file.name, line)}: {fault}"


def read_rows(file: File, form: RecordFormat, names: dict[str, str]) -> Iterator[Rows]:
    """Iterate over rows of text, batch by batch; `names` are our columns and the file's."""
    if file.name.endswith(PARQUET):
        yield _scan_rows(file, names)
        return
    columns = form.columns
    for batch in read_line_batches(file):
        if form.kind == "fields" and batch.first == 1:
            columns, batch = _take_header(file, form, batch, names)
        try:
            yield _parse_batch(batch, replace(form, columns=columns), names)
        except (pl.exceptions.PolarsError, UnicodeDecodeError):
            yield _parse_by_line(batch, replace(form, columns=columns), names)


def _scan_rows(file: File, names: dict[str, str]) -> Rows:
    columns = {ours: pl.col(name).cast(pl.String) for ours, name in names.items()}
    try:
        frame = scan_parquet(file).select(**columns).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise unreadable_error(file.name, error) from error
    return Rows(frame, lambda row: row + 1, [])


def _take_header(
    file: File, form: RecordFormat, batch: LineBatch, names: dict[str, str]
) -> tuple[tuple[str, ...], LineBatch]:
    """Take the header off the first batch, if there is one: the columns, and the batch without it.

    Raises `InputError` if a column is missing.
    """
    line, _, rest = batch.content.partition(b"\n")
    first = tuple(next(_parse_fields(line, form)).fields or ())
    if form.columns and names["user_id"] not in first:
        return form.columns, batch
    if missing := [name for name in names.values() if name not in first]:
        raise InputError(
            f"{file.name} has no column {missing[0]!r} among {join_names(list(first))}, where "
            f"{', '.join(names.values())} belong; is it the file you meant?"
        )
    return first, LineBatch(2, rest)


def _parse_batch(batch: LineBatch, form: RecordFormat, names: dict[str, str]) -> Rows:
    """Parse a batch by polars, which raises an error for a broken line."""
    if form.kind == "literal":
        return _parse_by_line(batch, form, names)
    content = form.to_utf8(batch.content)
    if form.kind == "json":
        frame = pl.read_ndjson(content, schema=dict.fromkeys(names.values(), pl.String))
    else:
        rows = pl.read_csv(
            content,
            has_header=False,
            new_columns=form.columns,
            separator=form.separator,
            quote_char=form.quote,
            infer_schema=False,
        )
        frame = rows.filter(~pl.all_horizontal(pl.all().is_null()))
    return Rows(frame.select(**{ours: pl.col(name) for ours, name in names.items()}), partial(_line_number, batch), [])


def _line_number(batch: LineBatch, row: int) -> int:
    """Count the lines of a batch up to a row; only for a row in question."""
    return next(islice(batch.numbered_lines(), row, None))[0]


def _parse_by_line(batch: LineBatch, form: RecordFormat, names: dict[str, str]) -> Rows:
    records = [_parse_line(number, line, form) for number, line in batch.numbered_lines()]
    sound = [record for record in records if not record.fault]
    values = {ours: [_to_text(record.fields.get(name)) for record in sound] for ours, name in names.items()}
    frame = pl.DataFrame(values, schema=dict.fromkeys(values, pl.String))
    return Rows(frame, [record.line for record in sound].__getitem__, [record for record in records if record.fault])


def _parse_line(number: int, line: bytes, form: RecordFormat) -> Record:
    if form.kind != "fields":
        return parse_record(number, line, form)
    record = next(_parse_fields(line, form))._replace(line=number)
    if record.fault or len(record.fields) > len(form.columns):
        found = shorten(line.decode(errors="replace"))
        fault = record.fault or f"{len(record.fields)} fields where {len(form.columns)} belong ({found})"
        return Record(number, None, fault)
    return record._replace(fields=dict(zip(form.columns, record.fields, strict=False)))


def _parse_fields(line: bytes, form: RecordFormat) -> Iterator[Record]:
    text = form.to_utf8(line).decode(errors="replace").strip("\r\n")
    return parse_csv_records(iter([text]), form.separator, form.quote)


def _to_text(value: object) -> str | None:
    return None if value is None else mend_surrogates(str(value))
