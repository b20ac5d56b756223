"""Records of large files, one at a time: JSON objects, Python literals, separated fields, or rows of parquet."""

import ast
import io
import json
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.readers.lines import Record, parse_csv_records, unreadable_error
from fedrec.data.readers.raw import File
from fedrec.data.readers.reading_report import shorten
from fedrec.data.readers.streams import read_line_batches

PARQUET = ".parquet"

BATCH = 10_000
"""The number of rows of fields that are held at a time."""


@dataclass(frozen=True)
class Wanted:
    """The ids whose records are wanted, and the key of the id. A line without one of them is not parsed."""

    key: str
    ids: Set[str] = field(repr=False)

    @cached_property
    def _pattern(self) -> re.Pattern[bytes]:
        key = re.escape(self.key).encode()
        return re.compile(rb"""['"]""" + key + rb"""['"]\s*:\s*u?['"]([^'"\\]*)['"]""")

    def may_hold(self, line: bytes) -> bool:
        """Check whether a line can be a wanted record, or a broken one: it names a wanted id, or no id."""
        found = self._pattern.findall(line)
        return not found or any(name.decode(errors="replace") in self.ids for name in found)

    def holds(self, record: Record) -> bool:
        """Check whether a record is wanted; a broken line is, because it is counted."""
        return bool(record.fault) or str(record.fields.get(self.key)) in self.ids


@dataclass(frozen=True)
class RecordFormat:
    """The format of a file: one JSON object or Python literal per line, or separated fields."""

    kind: Literal["json", "literal", "fields"] = "json"
    columns: tuple[str, ...] = ()  # of fields in a file that may have no header
    separator: str = ","
    quote: str | None = '"'  # around a field that holds the separator; None: no character is special
    encoding: str = "utf-8"
    backslashes: bool = False  # `\"` is a quotation mark within a field

    def to_utf8(self, content: bytes) -> bytes:
        """Convert lines to UTF-8 in which a quotation mark within a field is doubled."""
        if self.encoding != "utf-8":
            content = content.decode(self.encoding).encode()
        return content.replace(rb"\"", b'""') if self.backslashes else content

    def parse_line(self, line: bytes) -> Any:
        """Parse a JSON object or a Python literal. Raises `ValueError` for anything else."""
        if self.kind == "json":
            return json.loads(line)
        try:
            return ast.literal_eval(line.decode(self.encoding).strip())  # never `eval`: the file is a stranger's
        except (SyntaxError, MemoryError, RecursionError, TypeError) as error:
            raise ValueError("no literal") from error


JSON_LINES, LITERALS = RecordFormat(), RecordFormat("literal")
"""Files of one JSON object, or of one Python literal, per line."""


class RecordBatch(NamedTuple):
    """The wanted records among some lines, and the broken ones."""

    lines: int
    records: list[Record]


def read_record_batches(file: File, form: RecordFormat, wanted: Wanted) -> Iterator[RecordBatch]:
    """Iterate over the wanted records, whose fields are a dictionary, and the broken lines, batch by batch.

    One batch is held at a time. Raises `InputError` if the file cannot be read.
    """
    if file.name.endswith(PARQUET):
        yield from _read_parquet_batches(file, wanted)
    elif form.kind == "fields":
        records = _read_field_records(file, form)
        while batch := list(islice(records, BATCH)):
            yield RecordBatch(sum(record.lines for record in batch), list(filter(wanted.holds, batch)))
    else:
        for lines in read_line_batches(file):
            numbered = list(lines.numbered_lines())
            parsed = (parse_record(number, line, form) for number, line in numbered if wanted.may_hold(line))
            yield RecordBatch(len(numbered), list(filter(wanted.holds, parsed)))


def parse_record(number: int, line: bytes, form: RecordFormat) -> Record:
    """Parse a line that holds one JSON object or one literal."""
    try:
        value = form.parse_line(line)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return Record(number, value)
    name = "JSON object" if form.kind == "json" else "Python dictionary"
    found = shorten(line.decode(errors="replace").strip())
    return Record(number, None, f"no {name} ({found}); a line holds one record each")


def _read_field_records(file: File, form: RecordFormat) -> Iterator[Record]:
    """Iterate over rows of separated fields, by the names of the header or of the format."""
    names = list(form.columns)
    for record in parse_csv_records(_text_lines(file, form), form.separator, form.quote):
        if record.fault:
            yield record
        elif not names or record.fields[0] == names[0]:
            names = record.fields
        else:
            yield record._replace(fields=dict(zip(names, record.fields, strict=False)))


def _text_lines(file: File, form: RecordFormat) -> Iterator[str]:
    for batch in read_line_batches(file):
        try:
            yield from io.StringIO(form.to_utf8(batch.content).decode(), newline="")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{file.name}: a byte after line {batch.first} is not {form.encoding}; is it the original file?"
            ) from error


def _read_parquet_batches(file: File, wanted: Wanted) -> Iterator[RecordBatch]:
    """Yield the wanted rows: polars scans the file, and only these are collected."""
    try:
        rows = scan_parquet(file).filter(pl.col(wanted.key).cast(pl.String).is_in(wanted.ids))
        records = [Record(0, row) for row in rows.collect(engine="streaming").iter_rows(named=True)]
    except pl.exceptions.PolarsError as error:
        raise unreadable_error(file.name, error) from error
    yield RecordBatch(len(records), records)


def scan_parquet(file: File) -> pl.LazyFrame:
    """Scan a parquet file. Raises `InputError` if it lies in a zip."""
    if not isinstance(file.place, Path):
        raise InputError(f"{file.name} lies in a zip, where parquet cannot be scanned; unpack it and give the folder")
    return pl.scan_parquet(file.place)
