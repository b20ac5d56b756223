"""Text files line by line: the records of CSV and of JSON lines, and the broken lines."""

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
from fedrec.data.readers.reading_report import shorten

OBJECT = json.JSONDecoder(parse_float=str, parse_constant=lambda name: None)
"""A decoder that keeps fractions as text, to the last digit."""


@dataclass(frozen=True)
class TextFormat:
    """The format of text files, and the share of bad rows that is accepted."""

    separator: str | None = None  # of CSV; None: a tab in .tsv files, else a comma
    encoding: str = "utf-8"
    quote: str = '"'  # around CSV fields that hold the separator; "none": no character is special
    bad_rows: float = 0.01  # share of a file's rows

    def __post_init__(self) -> None:
        """Raise `InputError`, which names the wrong parameter."""
        if self.separator_char is not None and not (len(self.separator_char) == 1 and self.separator_char.isascii()):
            raise InputError(f"`separator` {self.separator!r}: give one ASCII character, or 'tab'")
        if self.quote != "none" and not (len(self.quote) == 1 and self.quote.isascii()):
            raise InputError(f"`quote` {self.quote!r}: give one ASCII character, or 'none'")
        if not 0 <= self.bad_rows <= 1:
            raise InputError(f"`bad_rows={self.bad_rows:g}`: give a share between 0 and 1")
        try:
            "".encode(self.encoding)
        except (LookupError, ValueError) as error:
            raise InputError(f"`encoding` {self.encoding!r} is not known; try utf-8, cp1252 or latin-1") from error

    @property
    def separator_char(self) -> str | None:
        """The separator as a character; None: by the file's name."""
        return "\t" if self.separator in ("tab", r"\t") else self.separator

    @property
    def quote_char(self) -> str | None:
        """The quotation mark; None if no character is special."""
        return None if self.quote == "none" else self.quote

    @property
    def is_utf8(self) -> bool:
        """Whether the encoding is UTF-8, with or without a byte order mark."""
        return codecs.lookup(self.encoding).name in ("utf-8", "utf-8-sig")


DEFAULT_TEXT_FORMAT = TextFormat()


class Record(NamedTuple):
    """A line of a text file (or several, if a quoted field holds line breaks): its fields, or its fault."""

    line: int
    fields: Any
    fault: str | None = None
    lines: int = 1


def read_csv_records(path: Path, separator: str, text_format: TextFormat) -> Iterator[Record]:
    """Iterate over the header, then all rows, each with as many fields as the header; skip blank lines."""
    return parse_csv_records(read_lines(path, text_format), separator, text_format.quote_char)


def parse_csv_records(lines: Iterator[str], separator: str, mark: str | None) -> Iterator[Record]:
    """Parse lines as `read_csv_records` does; `mark` is the quotation mark."""
    quoting = csv.QUOTE_MINIMAL if mark else csv.QUOTE_NONE
    records = csv.reader(lines, delimiter=separator, quotechar=mark, quoting=quoting, strict=True)
    width = 0
    while True:
        line = records.line_num + 1
        try:
            fields = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            fault = f"a quotation mark that does not close its field ({error}); `quote=none` reads marks as text"
            yield Record(line, None, fault, max(1, records.line_num - line + 1))
            continue
        if not any(fields):
            continue
        width = width or len(fields)
        if len(fields) > width:
            found = shorten(separator.join(fields))
            yield Record(line, None, f"{len(fields)} fields where {width} belong ({found})")
        else:
            yield Record(line, fields + [""] * (width - len(fields)))


def read_json_records(path: Path, text_format: TextFormat) -> Iterator[Record]:
    """Iterate over the objects, one per line that is not blank."""
    for number, line in enumerate(read_lines(path, text_format), start=1):
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
            yield Record(number, None, f"no JSON object ({shorten(line.strip())}); a line holds one row each")


def read_lines(path: Path, text_format: TextFormat) -> Iterator[str]:
    """Iterate over the lines of text, line ends included. Raises `InputError` for a byte outside the encoding."""
    encoding = "utf-8-sig" if text_format.is_utf8 else text_format.encoding
    opened = gzip.open if starts_with(path, b"\x1f\x8b") else open
    try:
        with opened(path, "rt", encoding=encoding, errors="surrogateescape", newline="") as text:
            for number, line in enumerate(text, start=1):
                if not line.isascii() and (stray := re.search("[\udc80-\udcff]", line)):
                    byte = ord(stray.group()) - 0xDC00
                    raise InputError(
                        f"{line_label(path, number)}: byte 0x{byte:02x} is not {text_format.encoding}; name the file's "
                        "encoding with `encoding` (cp1252 and latin-1 are common)"
                    )
                yield line
    except (OSError, EOFError, UnicodeError, zlib.error) as error:
        raise unreadable_error(path, error) from error


def starts_with(path: Path, mark: bytes) -> bool:
    """Check whether a file begins with these bytes."""
    with path.open("rb") as file:
        return file.read(len(mark)) == mark


def line_label(path: Path | str, number: int) -> str:
    """Format the place of a line, for a message."""
    return f"{path} line {number}"


def unreadable_error(path: Path | str, error: BaseException) -> InputError:
    """Build the error of a file that cannot be read, with the first line of its cause."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{path} cannot be read ({reason}); mend it or give another file")
