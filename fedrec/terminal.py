"""Standard output and standard error in another encoding than UTF-8, or closed by their reader."""

import codecs
import io
import os
import sys
import unicodedata
from collections.abc import Iterable
from typing import TextIO

from fedrec.data.errors import InputError

PLAIN = {"–": "-", "—": "-", "−": "-", "…": ".", "‘": "'", "’": "'", "“": '"', "”": '"', "×": "x", "·": "."}
"""Replacements of characters that an encoding lacks and Unicode has no plainer form of. They are as wide: the columns
of a table keep their places."""


def print_anything() -> None:
    """Let standard output and error print a plain character for each one that their encoding lacks."""
    codecs.register_error("plain", _replace_plainly)
    for stream in _streams():
        if isinstance(stream, io.TextIOWrapper):  # a notebook has others
            stream.reconfigure(errors="plain")


def check_arguments(arguments: Iterable[str]) -> None:
    """Raise `InputError` for an argument that the locale's encoding cannot read: libraries need names as text."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"argument '{argument}' is not {sys.getfilesystemencoding()}; rename the file, or choose the locale "
                "that it was written in, such as LC_ALL=C.UTF-8"
            ) from error


def flush_output() -> None:
    """Write out the buffered output. Raises `BrokenPipeError` if its reader has gone."""
    for stream in _streams():
        stream.flush()


def discard_unread_output() -> None:
    """Discard output that its reader, such as `head`, no longer reads: Python would fail on it at exit."""
    for stream in _streams():
        try:
            stream.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _streams() -> list[TextIO]:
    """Return standard output and error, if the process has them: a daemon may not."""
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]


def _replace_plainly(error: UnicodeError) -> tuple[str, int]:
    """Handle an encoding error, as `codecs.register_error` requires."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain_character, error.object[error.start : error.end])), error.end


def _plain_character(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of an argument that is no text, as Python holds it
        return f"\\x{ord(character) - 0xDC00:02x}"
    plain = PLAIN.get(character) or unicodedata.normalize("NFKD", character)[0]
    return plain if plain.isascii() else "?"
