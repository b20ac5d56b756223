"""Events of published datasets: reviews and ratings in large files → user, item, time and rating.

Polars parses a batch of lines at once. Only a batch that it refuses is parsed line by line, so that a broken line loses
that line alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.ids import id_faults
from fedrec.data.readers.lines import DEFAULT_TEXT_FORMAT, Record, line_label, parse_csv_records, unreadable_error
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
    """Rows of text, the numbers of their lines, and the broken lines."""

    frame: pl.DataFrame
    lines: Sequence[int]
    broken: list[Record]


def read_events(files: Sequence[File], form: RecordFormat, fields: EventFields, report: ReadingReport) -> pl.DataFrame:
    """Read the events of all files, in their order: `user_id`, `item_id`, `timestamp`, and `rating` if there is one.

    Bad rows are left out and counted. Raises `InputError` if too many are bad, or if a file cannot be read.
    """
    frames, count, total, first = [], 0, 0, ""
    for file in files:
        for rows in _read_rows(file, form, fields):
            typed = fields.typed(rows.frame)
            bad = id_faults(typed["user_id"]).is_not_null() | id_faults(typed["item_id"]).is_not_null()
            bad |= ~typed["timestamp"].is_finite().fill_null(False)
            if not first and (rows.broken or bad.any()):
                first = _first_fault(file, rows, bad, fields)
            count, total = count + int(bad.sum()) + len(rows.broken), total + len(typed) + len(rows.broken)
            frames.append(typed.filter(~bad))
    if not total:
        raise InputError(f"{files[0].name} holds no events; is it the whole file?")
    report.add_bad_rows("bad_rows", BadRows(count, total, first), DEFAULT_TEXT_FORMAT.bad_rows)
    report.counts["events_read"] = total
    return _with_whole_times(pl.concat(frames))


def _with_whole_times(events: pl.DataFrame) -> pl.DataFrame:
    whole = (events["timestamp"] == events["timestamp"].round()).all()
    return events.with_columns(pl.col("timestamp").cast(pl.Int64)) if whole else events


def _first_fault(file: File, rows: Rows, bad: pl.Series, fields: EventFields) -> str:
    """Describe the first bad row: its line, and its fault."""
    faults = [(record.line, str(record.fault)) for record in rows.broken[:1]]
    if bad.any():
        row = int(bad.arg_max() or 0)
        values = {fields.names[name]: value for name, value in rows.frame.row(row, named=True).items()}
        found = ", ".join(f"{name} {shorten(value)}" for name, value in values.items())
        faults.append((rows.lines[row], f"no user, item or time in {found}"))
    line, fault = min(faults)
    return f"{line_label(file.name, line)}: {fault}"


def _read_rows(file: File, form: RecordFormat, fields: EventFields) -> Iterator[Rows]:
    """Iterate over rows of text, batch by batch, with our names of the columns."""
    if file.name.endswith(PARQUET):
        yield _scan_rows(file, fields)
        return
    columns = form.columns
    for batch in read_line_batches(file):
        if form.kind == "fields" and batch.first == 1:
            columns, batch = _take_header(file, form, batch, fields)
        try:
            yield _parse_batch(batch, form, columns, fields)
        except (pl.exceptions.PolarsError, UnicodeDecodeError):
            yield _parse_by_line(batch, form, columns, fields)


def _scan_rows(file: File, fields: EventFields) -> Rows:
    names = {ours: pl.col(name).cast(pl.String) for ours, name in fields.names.items()}
    try:
        frame = scan_parquet(file).select(**names).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise unreadable_error(file.name, error) from error
    return Rows(frame, range(1, len(frame) + 1), [])


def _take_header(file: File, form: RecordFormat, batch: LineBatch, fields: EventFields) -> tuple[tuple[str, ...], LineBatch]:
    """Take the header off the first batch, if there is one: the columns, and the batch without it.

    Raises `InputError` if a column is missing.
    """
    line, _, rest = batch.content.partition(b"\n")
    first = tuple(next(parse_csv_records(iter([_decode(line, form)]), form.separator, form.quote)).fields or ())
    if form.columns and fields.user not in first:
        return form.columns, batch
    if missing := [name for name in fields.names.values() if name not in first]:
        wanted = ", ".join(fields.names.values())
        raise InputError(
            f"{file.name} has no column {missing[0]!r} among {join_names(list(first))}, where {wanted} belong; "
            "is it the file you meant?"
        )
    return first, LineBatch(2, rest)


def _decode(line: bytes, form: RecordFormat) -> str:
    return form.to_utf8(line).decode(errors="replace").strip("\r\n")


def _parse_batch(batch: LineBatch, form: RecordFormat, columns: tuple[str, ...], fields: EventFields) -> Rows:
    """Parse a batch by polars, which raises an error for a broken line."""
    names, content = fields.names, form.to_utf8(batch.content)
    if form.kind == "literal":
        return _parse_by_line(batch, form, columns, fields)
    if form.kind == "json":
        frame = pl.read_ndjson(content, schema=dict.fromkeys(names.values(), pl.String))
    else:
        frame = pl.read_csv(
            content,
            has_header=False,
            new_columns=columns,
            separator=form.separator,
            quote_char=form.quote,
            infer_schema=False,
        ).filter(~pl.all_horizontal(pl.all().is_null()))
    return Rows(frame.select(**{ours: pl.col(name) for ours, name in names.items()}), _Numbers(batch), [])


class _Numbers(Sequence[int]):
    """The numbers of a batch's lines, which are counted only for a row in question."""

    def __init__(self, batch: LineBatch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return sum(1 for _ in self.batch.numbered_lines())

    def __getitem__(self, row: int) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        return next(number for place, (number, _) in enumerate(self.batch.numbered_lines()) if place == row)


def _parse_by_line(batch: LineBatch, form: RecordFormat, columns: tuple[str, ...], fields: EventFields) -> Rows:
    records = [_parse_line(number, line, form, columns) for number, line in batch.numbered_lines()]
    sound = [record for record in records if not record.fault]
    values = {ours: [_to_text(record.fields.get(name)) for record in sound] for ours, name in fields.names.items()}
    frame = pl.DataFrame(values, schema=dict.fromkeys(values, pl.String))
    return Rows(frame, [record.line for record in sound], [record for record in records if record.fault])


def _parse_line(number: int, line: bytes, form: RecordFormat, columns: tuple[str, ...]) -> Record:
    if form.kind != "fields":
        return parse_record(number, line, form)
    record = next(parse_csv_records(iter([_decode(line, form)]), form.separator, form.quote))
    if record.fault or len(record.fields) > len(columns):
        fault = record.fault or f"{len(record.fields)} fields where {len(columns)} belong ({shorten(_decode(line, form))})"
        return Record(number, None, fault)
    return Record(number, dict(zip(columns, record.fields, strict=False)))


def _to_text(value: object) -> str | None:
    return None if value is None else str(value)
