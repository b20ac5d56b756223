"""Text files line by line: the records of CSV and of JSON lines, and the lines that are none."""

import codecs
import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fedrec.data.errors import InputError
from fedrec.data.readers.reading_report import shortened

OBJECT = json.JSONDecoder(parse_float=str, parse_constant=lambda name: None)
"""Fractions stay the text that they are, to the last digit."""


@dataclass(frozen=True)
class Reading:
    """How text files are read, and how much of a file may be bad."""

    separator: str | None = None  # of CSV; None: a tab in .tsv, else a comma
    encoding: str = "utf-8"
    quote: str = '"'  # around CSV fields that hold the separator; "none": no mark is special
    bad_rows: float = 0.01  # share of a file's rows

    def __post_init__(self) -> None:
        """Raises `InputError` naming the option that cannot be."""
        if self.between is not None and not (len(self.between) == 1 and self.between.isascii()):
            raise InputError(f"--separator {self.separator!r}: give one ASCII character, or 'tab'")
        if self.quote != "none" and not (len(self.quote) == 1 and self.quote.isascii()):
            raise InputError(f"--quote {self.quote!r}: give one ASCII character, or 'none'")
        if not 0 <= self.bad_rows <= 1:
            raise InputError(f"--bad-rows {self.bad_rows:g}: give a share between 0 and 1")
        try:
            "".encode(self.encoding)
        except (LookupError, ValueError) as error:
            raise InputError(f"--encoding {self.encoding!r} is not known; try utf-8, cp1252 or latin-1") from error

    @property
    def between(self) -> str | None:
        return "\t" if self.separator in ("tab", r"\t") else self.separator

    @property
    def mark(self) -> str | None:
        return None if self.quote == "none" else self.quote

    @property
    def is_utf8(self) -> bool:
        return codecs.lookup(self.encoding).name in ("utf-8", "utf-8-sig")


DEFAULT_READING = Reading()


class Record(NamedTuple):
    """A line of a text file (several, if a quoted field holds line breaks): its fields, or what is wrong."""

    line: int
    fields: Any
    fault: str | None = None
    lines: int = 1


def csv_records(path: Path, separator: str, reading: Reading) -> Iterator[Record]:
    """The header, then all rows, each with as many fields as the header; blank lines are none."""
    mark = reading.mark
    quoting = csv.QUOTE_MINIMAL if mark else csv.QUOTE_NONE
    records = csv.reader(text_lines(path, reading), delimiter=separator, quotechar=mark, quoting=quoting, strict=True)
    width = 0
    while True:
        line = records.line_num + 1
        try:
            fields = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            fault = f"a quotation mark that does not close its field ({error}); --quote none reads marks as text"
            yield Record(line, None, fault, max(1, records.line_num - line + 1))
            continue
        if not any(fields):
            continue
        width = width or len(fields)
        if len(fields) > width:
            found = shortened(separator.join(fields))
            yield Record(line, None, f"{len(fields)} fields where {width} belong ({found})")
        else:
            yield Record(line, fields + [""] * (width - len(fields)))


def json_records(path: Path, reading: Reading) -> Iterator[Record]:
    """An object for each line that is not blank."""
    for number, line in enumerate(text_lines(path, reading), start=1):
        if not line.strip():
            continue
        try:
            value = OBJECT.decode(line)
            if "\\u" in line:
                json.dumps(value, ensure_ascii=False).encode()  # half a character, as \\ud800, is no text
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            yield Record(number, value)
        else:
            yield Record(number, None, f"no JSON object ({shortened(line.strip())}); a line holds one row each")


def text_lines(path: Path, reading: Reading) -> Iterator[str]:
    """Lines of text with their ends. Raises `InputError` for a byte that is not of the encoding."""
    encoding = "utf-8-sig" if reading.is_utf8 else reading.encoding
    opened = gzip.open if begins(path, b"\x1f\x8b") else open
    try:
        with opened(path, "rt", encoding=encoding, errors="surrogateescape", newline="") as text:
            for number, line in enumerate(text, start=1):
                if not line.isascii() and (stray := re.search("[\udc80-\udcff]", line)):
                    byte = ord(stray.group()) - 0xDC00
                    raise InputError(
                        f"{line_of(path, number)}: byte 0x{byte:02x} is not {reading.encoding}; name the file's "
                        "encoding with --encoding (cp1252 and latin-1 are common)"
                    )
                yield line
    except (OSError, EOFError, UnicodeError, zlib.error) as error:
        raise unreadable(path, error) from error


def begins(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(mark)) == mark


def line_of(path: Path, number: int) -> str:
    return f"{path} line {number}"


def unreadable(path: Path, error: BaseException) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{path} cannot be read ({reason}); mend it or give another file")
