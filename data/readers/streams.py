"""Large files piece by piece: batches of whole lines, from a folder or a zip, compressed by gzip or not."""

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple, cast

from fedrec.data.errors import InputError
from fedrec.data.readers.lines import line_label, unreadable_error
from fedrec.data.readers.raw import File

BATCH_BYTES = 2**24
"""The number of bytes that are read at a time."""

LONGEST_LINE = 2**26
"""The maximum number of bytes of a line: no review and no description comes near it."""

GZIP, MARK = b"\x1f\x8b", b"\xef\xbb\xbf"
"""The first bytes of a compressed file, and of UTF-8 with a byte order mark."""


class LineBatch(NamedTuple):
    """Some whole lines of a file."""

    first: int  # the number of the first of them
    content: bytes

    def numbered_lines(self) -> Iterator[tuple[int, bytes]]:
        """Iterate over the lines that are not blank, each with its number."""
        for number, line in enumerate(self.content.split(b"\n"), start=self.first):
            if line.strip():
                yield number, line


def read_line_batches(file: File) -> Iterator[LineBatch]:
    """Iterate over the lines in batches; no more than one batch and one line is held.

    Raises `InputError` if the file cannot be read, or if a line is longer than any record.
    """
    number, tail = 1, b""
    try:
        with file.open_bytes() as raw:
            stream = _decompress(raw)
            while chunk := stream.read(BATCH_BYTES):
                chunk = chunk.removeprefix(MARK) if number == 1 and not tail else chunk
                whole, end, rest = chunk.rpartition(b"\n")
                if not end:
                    tail += rest
                    _check_line(file, number, tail)
                    continue
                batch = LineBatch(number, tail + whole + end)
                number, tail = number + batch.content.count(b"\n"), rest
                yield batch
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise unreadable_error(file.name, error) from error
    if tail:
        yield LineBatch(number, tail)


def _decompress(raw: IO[bytes]) -> IO[bytes]:
    stream = io.BufferedReader(cast(io.RawIOBase, raw))
    return cast(IO[bytes], gzip.GzipFile(fileobj=stream)) if stream.peek(2)[:2] == GZIP else stream


def _check_line(file: File, number: int, line: bytes) -> None:
    if len(line) > LONGEST_LINE:
        raise InputError(
            f"{line_label(file.name, number)}: it has more than {LONGEST_LINE:,} bytes; is it the original file?"
        )
