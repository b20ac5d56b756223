"""Standard output and standard error as they may be: in another encoding than UTF-8, or closed by the reader."""

import codecs
import io
import os
import sys
import unicodedata
from collections.abc import Iterable
from typing import TextIO

from fedrec.data.errors import InputError

PLAIN = {"–": "-", "—": "-", "−": "-", "…": ".", "‘": "'", "’": "'", "“": '"', "”": '"', "×": "x", "·": "."}
"""What stands for a character in an encoding that lacks it, if Unicode knows no plainer form. One for one: columns of
a table stay where they are."""


def print_anything() -> None:
    """Let standard output and error print a plain character for each one that their encoding lacks."""
    codecs.register_error("plain", _plain)
    for stream in _streams():
        if isinstance(stream, io.TextIOWrapper):  # a notebook has others
            stream.reconfigure(errors="plain")


def check_arguments(arguments: Iterable[str]) -> None:
    """Raises `InputError` for an argument that the locale's encoding cannot read: libraries want names as text."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"argument '{argument}' is not {sys.getfilesystemencoding()}; rename the file, or choose the locale "
                "that it was written in, such as LC_ALL=C.UTF-8"
            ) from error


def flush_output() -> None:
    """Write out what is still held. Raises `BrokenPipeError` if its reader has gone."""
    for stream in _streams():
        stream.flush()


def discard_unread_output() -> None:
    """Send nowhere what a reader that has gone, as `head` goes, will not take: Python would fail over it at the end."""
    for stream in _streams():
        try:
            stream.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _streams() -> list[TextIO]:
    """Standard output and error, if the process has them: a daemon may not."""
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]


def _plain(error: UnicodeError) -> tuple[str, int]:
    """The handler of encoding errors that `codecs.register_error` wants."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_nearest, error.object[error.start : error.end])), error.end


def _nearest(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of an argument that is no text, as Python holds it
        return f"\\x{ord(character) - 0xDC00:02x}"
    plain = PLAIN.get(character) or unicodedata.normalize("NFKD", character)[0]
    return plain if plain.isascii() else "?"
