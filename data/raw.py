"""Raw files: a folder or a zip, and the tables in it. What every reader makes of them are two frames."""

import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from data.errors import InputError

LARGEST = 2.0**53
"""Beyond it a float64 no longer holds every whole number: no rating and no time is that large."""

Root = Path | zipfile.Path
"""A folder or an opened zip: both know `/`, `exists`, `iterdir` and `read_bytes`."""


class Frames(NamedTuple):
    interactions: pl.DataFrame
    items: pl.DataFrame


def open_root(path: Path) -> Root:
    """A folder as it is; a zip opened and tested whole, so that a truncated one is refused before any work."""
    if path.is_dir():
        return path
    try:
        archive = zipfile.ZipFile(path)
        if damaged := archive.testzip():
            raise InputError(f"{path}: {damaged} is damaged inside the zip; download it again")
        return zipfile.Path(archive)
    except FileNotFoundError as error:
        raise InputError(f"--source {path} does not exist; give a zip or a folder") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise InputError(f"{path} is not a whole zip file ({error}); download it again") from error


def find(root: Root, name: str) -> Root:
    """The file `name` in `root` or one level below it, as zips carry a folder of their own."""
    if place := place_of(root, name):
        return place / name
    raise InputError(f"{root} holds no {name!r}; is it the dataset you named?")


def place_of(root: Root, name: str) -> Root | None:
    places = [root, *(child for child in root.iterdir() if child.is_dir())]
    return next((place for place in places if (place / name).exists()), None)


def read_text(file: Root, encoding: str) -> str:
    try:
        return file.read_bytes().decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{file.name}: byte {error.start} is not {encoding}; is it the original file?") from error


@dataclass(frozen=True)
class Layout:
    """How one file lays out its rows; `columns` names each column."""

    columns: Sequence[str]
    separator: str
    encoding: str = "utf-8"
    header: bool = False  # a first line that is no row
    quoted: bool = False  # as in CSV: a field in quotation marks may hold the separator


def read_table(file: Root, layout: Layout) -> pl.DataFrame:
    """All columns as text. Raises `InputError` with the line where a row has too few or too many fields."""
    text = read_text(file, layout.encoding)
    single = layout.separator if len(layout.separator) == 1 else "\x1f"  # polars splits at one byte; no text holds this
    try:
        frame = pl.read_csv(
            io.BytesIO(text.replace(layout.separator, single).encode()),
            has_header=layout.header,
            separator=single,
            quote_char='"' if layout.quoted else None,
            infer_schema=False,
        )
    except pl.exceptions.PolarsError as error:
        reason = str(error).partition("\n")[0]
        raise _misshapen(file, text, layout) or InputError(f"{file.name}: {reason}") from error
    if frame.width != len(layout.columns):
        raise _misshapen(file, text, layout) or InputError(
            f"{file.name} has {frame.width} columns where {len(layout.columns)} belong"
        )
    if frame[:, -1].has_nulls() and (misshapen := _misshapen(file, text, layout)):  # a row that ends early
        raise misshapen
    return frame.rename(dict(zip(frame.columns, layout.columns, strict=True))).fill_null("")


def _misshapen(file: Root, text: str, layout: Layout) -> InputError | None:
    wanted = len(layout.columns)
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        line = line.rstrip("\n")
        bare = re.sub('"[^"]*"', "", line) if layout.quoted else line
        if (fields := bare.count(layout.separator) + 1) != wanted:
            return InputError(
                f"{file.name} line {number}: {fields} fields where {wanted} belong ({line[:60]!r}); mend or remove it"
            )
    return None


def numbers(column: pl.Series, file: Root, header: bool) -> pl.Series:
    """A column of a file's text as numbers. Raises `InputError` naming the first row that holds none."""
    kept = column.str.strip_chars().cast(pl.Float64, strict=False)
    if (bad := ~kept.is_between(-LARGEST, LARGEST).fill_null(False)).any():
        row = int(bad.arg_max() or 0)
        raise InputError(
            f"{file.name} line {row + 1 + header}: {column.name} {column[row]!r} is not a number; "
            "mend or remove the row"
        )
    return kept
