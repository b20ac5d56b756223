"""Files of tables, whatever their format: CSV, JSON lines or parquet → rows, and the lines that hold none.

Polars reads a file that is sound. Only a file that it refuses is read line by line, so that a broken line costs that
line alone.
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
    DEFAULT_READING,
    Reading,
    Record,
    begins,
    csv_records,
    json_records,
    line_of,
    text_lines,
    unreadable,
)

PARQUET, JSON_LINES = (".parquet", ".pq"), (".jsonl", ".ndjson", ".json")
OTHERS = (".xlsx", ".xls", ".ods", ".zip", ".bz2", ".xz", ".7z", ".zst", ".feather", ".arrow", ".orc", ".avro", ".db")
EVERY_COLUMN = pl.QueryOptFlags(projection_pushdown=False)
"""Read the columns that are not kept, too: a row with too many fields is noticed only so."""

HEAD = 1_000
"""Lines of a JSON lines file that tell its columns."""

CHUNK = 100_000
"""JSON lines that are held as Python objects at a time."""

Unreadable = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


class Rows(NamedTuple):
    """Rows of a file: text, or what parquet has; and the lines of it that hold no row."""

    frame: pl.DataFrame
    broken: int = 0
    first: tuple[int, str] | None = None  # the first broken line: its number, and what is wrong


@dataclass(frozen=True)
class TableFile:
    """A file that holds a table. Its name tells the format; what is neither JSON lines nor parquet is CSV."""

    path: Path
    reading: Reading = DEFAULT_READING

    def __post_init__(self) -> None:
        """Raises `InputError` if there is no file, or one of another format."""
        if not self.path.is_file():
            raise InputError(f"{self.path} is no file; give a CSV, JSON lines or parquet file")
        if self.format in OTHERS:
            raise InputError(f"{self.path}: {self.format} is not read; save it as CSV, JSON lines or parquet")

    @property
    def format(self) -> str:
        """Its suffix in lower case, without the one of compression; parquet is known by its first bytes, too."""
        if begins(self.path, b"PAR1"):
            return ".parquet"
        return [".csv", *(suffix.lower() for suffix in self.path.suffixes if suffix.lower() != ".gz")][-1]

    @property
    def separator(self) -> str:
        return self.reading.between or ("\t" if self.format in (".tsv", ".tab") else ",")

    def columns(self) -> list[str]:
        """The names of its columns. Raises `InputError`."""
        if self.format in JSON_LINES:
            return self._named(_keys([each.fields for each in islice(self._records(), HEAD) if not each.fault]))
        try:
            return self._scan().collect_schema().names()
        except Unreadable as error:
            if self.format not in PARQUET and (header := self._header()):
                return header
            raise unreadable(self.path, error) from error

    def rows(self, columns: dict[str, str] | None = None) -> Rows:
        """These columns (our name → the file's), or all under their own names. Raises `InputError`."""
        if self.format in JSON_LINES:
            return self._json_rows(columns)
        selected = pl.all() if columns is None else [pl.col(name).alias(ours) for ours, name in columns.items()]
        try:
            return Rows(_collected(self._scan(), selected))
        except Unreadable as error:
            if self.format in PARQUET:
                raise unreadable(self.path, error) from error
        return self._csv_rows(selected)

    def place(self, row: int) -> tuple[int, str]:
        """Where the row of that number stands: as a number, and in words."""
        if self.format in PARQUET:
            return row + 1, f"{self.path} row {row + 1}"
        before = row + (self.format not in JSON_LINES)  # a CSV file begins with its header
        line = next(islice((record.line for record in self._records() if not record.fault), before, None))
        return line, line_of(self.path, line)

    def _named(self, columns: list[str]) -> list[str]:
        """These columns of JSON lines. Raises `InputError` if there are none."""
        if not columns and (fault := next((each for each in self._records() if each.fault), None)):
            raise InputError(f"{line_of(self.path, fault.line)}: {fault.fault}")
        return columns

    def _records(self) -> Iterator[Record]:
        """The lines of a text file."""
        if self.format in JSON_LINES:
            return json_records(self.path, self.reading)
        return csv_records(self.path, self.separator, self.reading)

    def _scan(self) -> pl.LazyFrame:
        """Rows that are not blank. Text is text: no type is guessed."""
        if self.format in PARQUET:
            return pl.scan_parquet(self.path)
        lines = text_lines(self.path, self.reading)
        source = self.path if self.reading.is_utf8 else io.BytesIO("".join(lines).encode())
        return _scan_csv(source, self.separator, self.reading.mark)

    def _header(self) -> list[str]:
        return next((record.fields for record in self._records() if not record.fault), [])

    def _csv_rows(self, selected: Any) -> Rows:
        """A CSV file read line by line."""
        broken, first, clean = 0, None, io.StringIO()
        writer = csv.writer(clean)
        for record in self._records():
            if record.fault:
                broken, first = broken + record.lines, first or (record.line, record.fault)
            else:
                writer.writerow(record.fields)
        try:
            scan = _scan_csv(io.BytesIO(clean.getvalue().encode()), ",", '"')
            return Rows(_collected(scan, selected), broken, first)
        except Unreadable as error:
            raise unreadable(self.path, error) from error

    def _json_rows(self, columns: dict[str, str] | None) -> Rows:
        broken, first, chunks, lists = 0, None, [], set[str]()
        records = self._records()
        while chunk := list(islice(records, CHUNK)):
            bad = [record for record in chunk if record.fault]
            broken, first = broken + len(bad), first or next(((each.line, str(each.fault)) for each in bad), None)
            rows = [record.fields for record in chunk if not record.fault]
            wanted = columns or {name: name for name in _keys(rows)}
            lists |= {ours for ours, name in wanted.items() if any(isinstance(row.get(name), list) for row in rows)}
            texts = {ours: [_json_text(row.get(name)) for row in rows] for ours, name in wanted.items()}
            chunks.append(pl.DataFrame(texts, schema=dict.fromkeys(wanted, pl.String)))
        frame = pl.concat(chunks, how="diagonal") if chunks else pl.DataFrame()
        self._named(frame.columns)
        several = [_as_list(frame[name]) for name in frame.columns if name in lists]
        return Rows(frame.with_columns(several), broken, first)


def _scan_csv(source: Path | io.BytesIO, separator: str, mark: str | None) -> pl.LazyFrame:
    scan = pl.scan_csv(source, separator=separator, quote_char=mark, infer_schema=False)
    return scan.filter(~pl.all_horizontal(pl.all().is_null()))


def _collected(scan: pl.LazyFrame, selected: Any) -> pl.DataFrame:
    return scan.select(selected).collect(engine="streaming", optimizations=EVERY_COLUMN)


def _keys(rows: list[dict[str, Any]]) -> list[str]:
    """All keys, in the order of their first appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _json_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value) if type(value) is int else json.dumps(value, ensure_ascii=False)


def _as_list(texts: pl.Series) -> pl.Series:
    """Lists of text from JSON lists; a value that is no list is a list of one."""

    def parsed(text: str | None) -> list[str | None] | None:
        if text is None:
            return None
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        return [_json_text(each) for each in value] if isinstance(value, list) else [text]

    return pl.Series(texts.name, [parsed(text) for text in texts], dtype=pl.List(pl.String))
