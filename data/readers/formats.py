"""Files of tables in CSV, JSON lines or parquet → rows, and the lines that hold none.

Polars reads sound files. Only a file that it refuses is read line by line, so that a broken line loses that line alone.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.readers.lines import (
    DEFAULT_TEXT_FORMAT,
    Record,
    TextFormat,
    line_label,
    read_csv_records,
    read_json_records,
    read_lines,
    starts_with,
    unreadable_error,
)

PARQUET, JSON_LINES = (".parquet", ".pq"), (".jsonl", ".ndjson", ".json")
OTHERS = (".xlsx", ".xls", ".ods", ".zip", ".bz2", ".xz", ".7z", ".zst", ".feather", ".arrow", ".orc", ".avro", ".db")
EVERY_COLUMN = pl.QueryOptFlags(projection_pushdown=False)
"""Optimisations that still read unused columns: otherwise a row with too many fields is not noticed."""

HEAD = 1_000
"""The number of lines at the start of a JSON lines file that its columns are taken from."""

CHUNK = 100_000
"""The number of JSON lines held as Python objects at a time."""

Unreadable = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


class Rows(NamedTuple):
    """The rows of a file, as text or in parquet's types, and the number of lines that hold no row."""

    frame: pl.DataFrame
    broken: int = 0
    first: tuple[int, str] | None = None  # the first broken line: its number and its fault


@dataclass(frozen=True)
class TableFile:
    """A file that holds a table. Its name determines the format, which is CSV unless JSON lines or parquet."""

    path: Path
    text_format: TextFormat = DEFAULT_TEXT_FORMAT

    def __post_init__(self) -> None:
        """Raise `InputError` if there is no file, or one of another format."""
        if not self.path.is_file():
            raise InputError(f"{self.path} is no file; give a CSV, JSON lines or parquet file")
        if self.format in OTHERS:
            raise InputError(f"{self.path}: {self.format} is not read; save it as CSV, JSON lines or parquet")

    @property
    def format(self) -> str:
        """The file's suffix in lower case, compression left out; parquet is also known by its first bytes."""
        if starts_with(self.path, b"PAR1"):
            return ".parquet"
        return [".csv", *(suffix.lower() for suffix in self.path.suffixes if suffix.lower() != ".gz")][-1]

    @property
    def separator(self) -> str:
        """The separator of a CSV file."""
        return self.text_format.separator_char or ("\t" if self.format in (".tsv", ".tab") else ",")

    def column_names(self) -> list[str]:
        """Read the names of the columns. Raises `InputError` if the file cannot be read."""
        if self.format in JSON_LINES:
            return self._check_named(
                _all_keys([each.fields for each in islice(self._records(), HEAD) if not each.fault])
            )
        try:
            return self._scan().collect_schema().names()
        except Unreadable as error:
            if self.format not in PARQUET and (header := self._header()):
                return header
            raise unreadable_error(self.path, error) from error

    def read_rows(self, columns: dict[str, str] | None = None) -> Rows:
        """Read columns (our name → the file's), or all under their own names.

        Raises `InputError` if the file cannot be read.
        """
        if self.format in JSON_LINES:
            return self._read_json_rows(columns)
        selected = pl.all() if columns is None else [pl.col(name).alias(ours) for ours, name in columns.items()]
        try:
            return Rows(_collect_rows(self._scan(), selected))
        except Unreadable as error:
            if self.format in PARQUET:
                raise unreadable_error(self.path, error) from error
        return self._read_csv_rows(selected)

    def read_batches(self, columns: dict[str, str]) -> Iterator[pl.DataFrame]:
        """Iterate over batches of the rows of a CSV or parquet file: columns, our name → the file's.

        Raises one of `Unreadable` at a broken line.
        """
        selected = [pl.col(name).alias(ours) for ours, name in columns.items()]
        yield from self._scan().select(selected).collect_batches(engine="streaming", optimizations=EVERY_COLUMN)

    def locate(self, row: int) -> tuple[int, str]:
        """Locate a row in the file: as a line number, and in words."""
        if self.format in PARQUET:
            return row + 1, f"{self.path} row {row + 1}"
        before = row + (self.format not in JSON_LINES)  # a CSV file begins with its header
        line = next(islice((record.line for record in self._records() if not record.fault), before, None))
        return line, line_label(self.path, line)

    def _check_named(self, columns: list[str]) -> list[str]:
        """Return these columns of JSON lines. Raises `InputError` if there are none and a line is broken."""
        if not columns and (fault := next((each for each in self._records() if each.fault), None)):
            raise InputError(f"{line_label(self.path, fault.line)}: {fault.fault}")
        return columns

    def _records(self) -> Iterator[Record]:
        """Iterate over the records of a text file."""
        if self.format in JSON_LINES:
            return read_json_records(self.path, self.text_format)
        return read_csv_records(self.path, self.separator, self.text_format)

    def _scan(self) -> pl.LazyFrame:
        """Scan the rows that are not blank. Text stays text: no type is inferred."""
        if self.format in PARQUET:
            return pl.scan_parquet(self.path)
        lines = read_lines(self.path, self.text_format)
        source = self.path if self.text_format.is_utf8 else io.BytesIO("".join(lines).encode())
        return _scan_csv(source, self.separator, self.text_format.quote_char)

    def _header(self) -> list[str]:
        return next((record.fields for record in self._records() if not record.fault), [])

    def _read_csv_rows(self, selected: Any) -> Rows:
        """Read a CSV file line by line, without its broken lines."""
        broken, first, clean = 0, None, io.StringIO()
        writer = csv.writer(clean)
        for record in self._records():
            if record.fault:
                broken, first = broken + record.lines, first or (record.line, record.fault)
            else:
                writer.writerow(record.fields)
        try:
            scan = _scan_csv(io.BytesIO(clean.getvalue().encode()), ",", '"')
            return Rows(_collect_rows(scan, selected), broken, first)
        except Unreadable as error:
            raise unreadable_error(self.path, error) from error

    def _read_json_rows(self, columns: dict[str, str] | None) -> Rows:
        broken, first, chunks, lists = 0, None, [], set[str]()
        records = self._records()
        while chunk := list(islice(records, CHUNK)):
            bad = [record for record in chunk if record.fault]
            broken, first = broken + len(bad), first or next(((each.line, str(each.fault)) for each in bad), None)
            rows = [record.fields for record in chunk if not record.fault]
            wanted = columns or {name: name for name in _all_keys(rows)}
            lists |= {ours for ours, name in wanted.items() if any(isinstance(row.get(name), list) for row in rows)}
            texts = {ours: [_json_text(row.get(name)) for row in rows] for ours, name in wanted.items()}
            chunks.append(pl.DataFrame(texts, schema=dict.fromkeys(wanted, pl.String)))
        frame = pl.concat(chunks, how="diagonal") if chunks else pl.DataFrame()
        self._check_named(frame.columns)
        several = [_as_list(frame[name]) for name in frame.columns if name in lists]
        return Rows(frame.with_columns(several), broken, first)


def _scan_csv(source: Path | io.BytesIO, separator: str, mark: str | None) -> pl.LazyFrame:
    scan = pl.scan_csv(source, separator=separator, quote_char=mark, infer_schema=False)
    return scan.filter(~pl.all_horizontal(pl.all().is_null()))


def _collect_rows(scan: pl.LazyFrame, selected: Any) -> pl.DataFrame:
    return scan.select(selected).collect(engine="streaming", optimizations=EVERY_COLUMN)


def _all_keys(rows: list[dict[str, Any]]) -> list[str]:
    """Collect all keys, in the order of their first appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _json_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value) if type(value) is int else json.dumps(value, ensure_ascii=False)


def _as_list(texts: pl.Series) -> pl.Series:
    """Parse JSON lists into lists of text; a value that is no list becomes a list of one."""

    def parse(text: str | None) -> list[str | None] | None:
        if text is None:
            return None
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        return [_json_text(each) for each in value] if isinstance(value, list) else [text]

    return pl.Series(texts.name, [parse(text) for text in texts], dtype=pl.List(pl.String))
