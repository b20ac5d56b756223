"""Raw files: a folder or a zip, and the tables in it. Every reader makes two frames of them."""

import io
import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import polars as pl
import psutil

from fedrec.data.errors import InputError
from fedrec.data.readers.reading_report import ReadingReport
from fedrec.data.storage.reading import regular

LARGEST = 2.0**53
"""The largest number up to which a float64 holds every integer: no rating and no time is larger."""

MOST_BYTES = 2**31
"""The maximum size of a file that is read as a whole: the largest of MovieLens has less than half of it."""

MOST_UNPACKED = 2**38
"""The maximum size of an unpacked zip, and of a download: reviews of one category have up to 50 GB."""

COPIES = 3
"""The memory that reading a table takes at least, in multiples of its size."""

Place = Path | zipfile.Path
"""A folder or an opened zip: both have `/`, `exists`, `iterdir` and `read_bytes`."""
Warn = Callable[[str], None]


class Frames(NamedTuple):
    """A dataset's tables: `user_id`, `item_id`, `timestamp`; and `item_id`, `title`, `text`, then other columns."""

    interactions: pl.DataFrame
    items: pl.DataFrame


@dataclass(frozen=True)
class File:
    """A file in a folder or a zip, and the function that receives warnings about it."""

    place: Place
    warn: Warn = print

    @property
    def name(self) -> str:
        """The file's name, without its folder."""
        return self.place.name

    def read_bytes(self) -> bytes:
        """Read the file. Raises `InputError` if it is not a regular file, or if memory cannot hold it."""
        _check_size(self.name, self._size(), MOST_BYTES, psutil.virtual_memory().available)
        return self.place.read_bytes()

    def open_bytes(self) -> IO[bytes]:
        """Open the file to read it piece by piece. Raises `InputError` if it is not a regular file."""
        if isinstance(self.place, Path):
            regular(self.place, "give the file itself")
        return self.place.open("rb")

    def _size(self) -> int:
        if isinstance(self.place, Path):
            return regular(self.place, "give the file itself").stat().st_size
        return self.place.root.getinfo(self.place.at).file_size  # no more than this is ever unpacked

    def decode(self, published: str = "utf-8") -> str:
        """Decode the file as UTF-8, with or without a byte order mark, or else in the published encoding.

        Many copies were saved again as UTF-8, and Latin-1 decodes anything, so it is tried last. Raises `InputError`
        for other encodings.
        """
        content = self.read_bytes()
        if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content:
            raise InputError(f"{self.name} is UTF-16 or no text; save it as UTF-8, or give the original file")
        marked = content.startswith(b"\xef\xbb\xbf")
        try:
            text = content.decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            if marked or published == "utf-8":
                raise InputError(f"{self.name}: byte {error.start} is not utf-8; is it the original file?") from error
            return content.decode(published)
        if published != "utf-8" and (marked or not content.isascii()):
            self.warn(f"{self.name} is read as UTF-8; the publisher's is {published}, so it was saved again")
        return text


@dataclass(frozen=True)
class Root:
    """The place of a dataset's files, the function that receives warnings about them, and the report of reading."""

    place: Place
    warn: Warn = print
    report: ReadingReport = field(default_factory=ReadingReport)
    given: str | None = None  # the name of the one file that was given; `place` is its folder

    def __str__(self) -> str:
        return str(self.place / self.given if self.given else self.place)


SINGLE_FILES = (".gz", ".csv", ".json", ".jsonl", ".parquet", ".dat", ".tsv")
"""The suffixes of a file that may be given by itself."""


def open_root(path: Path, warn: Warn = print, report: ReadingReport | None = None) -> Root:
    """Open a folder, a zip, or a single file by its folder.

    A zip is tested whole. Raises `InputError` if it is damaged, or none of these.
    """
    remedy, report = "give a zip or a folder", report or ReadingReport(warn)
    try:
        if path.is_dir():
            return Root(path, warn, report)
        if path.suffix.lower() in SINGLE_FILES:
            return Root(regular(path, remedy, "`source` ").parent, warn, report, path.name)
        archive = zipfile.ZipFile(regular(path, remedy, "`source` "))
        for entry in archive.infolist():
            _check_entry(path, entry)
        _check_whole(path, archive)
        if damaged := archive.testzip():
            raise InputError(f"{path}: {damaged} is damaged inside the zip; download it again")
        return Root(zipfile.Path(archive), warn, report)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"`source` {path} does not exist; {remedy}") from error
    except PermissionError as error:
        raise InputError(f"`source` {path} may not be read by you; mend its rights, or {remedy}") from error
    except _DAMAGES as error:
        raise InputError(f"{path} is not a whole zip file ({error}); download it again") from error


_DAMAGES = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)
"""The exceptions that Python raises for a damaged zip."""


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    """Raise `InputError` for an entry that is no plain file or folder below the zip's root."""
    fault = None
    if entry.flag_bits & 1:
        fault = "is encrypted"
    elif stat.S_ISLNK(entry.external_attr >> 16):
        fault = "is a link"
    elif entry.filename.startswith("/") or {"", ".."} & set(entry.filename.rstrip("/").split("/")):
        fault = "has no place below the zip's root"
    if fault:
        raise InputError(f"{path}: {entry.filename!r} {fault}; unpack it yourself and give the folder")


def _check_whole(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise `InputError` if two entries have one name, or if the zip is larger than any dataset when unpacked."""
    names = archive.namelist()
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise InputError(f"{path} holds {twice!r} twice; unpack it yourself and give the folder")
    _check_size(str(path), sum(entry.file_size for entry in archive.infolist()), MOST_UNPACKED)


def _check_size(name: str, size: int, most: int, free: int | None = None) -> None:
    if size > most:
        raise InputError(
            f"{name} has {size:,} bytes unpacked, more than the {most:,} of any dataset here; is it the original?"
        )
    if free is not None and COPIES * size > free:
        raise InputError(
            f"{name} has {size:,} bytes, which takes {COPIES} times that in memory, and {free:,} are free; free some"
        )


def find_file(root: Root, name: str) -> File:
    """Find the file `name` in `root` or one level below it. Raises `InputError` if it is not there, or twice."""
    if root.given:
        raise InputError(f"{root} is one file, where {name!r} and others belong; give a zip or a folder of them")
    if place := _find_folder(root, name):
        return File(place / name, root.warn)
    zips = [child.name for child in root.place.iterdir() if child.name.endswith(".zip")]
    hint = f"unpack {zips[0]}, or give that" if zips else "is it the dataset you named?"
    raise InputError(f"{root} holds no {name!r}; {hint}")


def has_file(root: Root, name: str) -> bool:
    """Check whether `find_file` would find the file."""
    return _find_folder(root, name) is not None


def _find_folder(root: Root, name: str) -> Place | None:
    """Return the folder that holds the file `name`; None if there is none. Raises `InputError` if there are two."""
    if (root.place / name).exists():
        return root.place
    children = sorted((child for child in root.place.iterdir() if child.is_dir()), key=lambda child: child.name)
    places = [child for child in children if (child / name).exists()]
    if len(places) > 1:
        raise InputError(f"{root} holds {name!r} in {places[0].name} and in {places[1].name}; give one of them")
    return places[0] if places else None


@dataclass(frozen=True)
class Layout:
    """The layout of a file's rows; `columns` names each column."""

    columns: Sequence[str]
    separator: str
    encoding: str = "utf-8"  # as published
    header: bool = False  # a first line that is no row
    quoted: bool = False  # as in CSV: a field in quotation marks may hold the separator


def read_table(file: File, layout: Layout) -> pl.DataFrame:
    """Read all columns as text. Raises `InputError`, which names the line, if a row has too few or too many fields."""
    text = file.decode(layout.encoding)
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
        raise _find_misshapen(file, text, layout) or InputError(f"{file.name}: {reason}") from error
    if frame.width != len(layout.columns):
        raise _find_misshapen(file, text, layout) or InputError(
            f"{file.name} has {frame.width} columns where {len(layout.columns)} belong"
        )
    if frame[:, -1].has_nulls() and (misshapen := _find_misshapen(file, text, layout)):  # a row that ends early
        raise misshapen
    return frame.rename(dict(zip(frame.columns, layout.columns, strict=True))).fill_null("")


_FIELD = '(?:"(?:[^"]|"")*"|(?:[^",][^,]*)?)'
_QUOTED_LINE = re.compile(f"{_FIELD}(?:,{_FIELD})*")
"""The pattern of a line of CSV: a field that begins with a quotation mark ends with one."""


def _find_misshapen(file: File, text: str, layout: Layout) -> InputError | None:
    wanted = len(layout.columns)
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        line = line.rstrip("\n")
        if layout.quoted and (line.count('"') % 2 or not _QUOTED_LINE.fullmatch(line)):
            return InputError(
                f"{file.name} line {number}: its quotation marks do not match ({line[:60]!r}); put the whole field "
                "into quotation marks and double those inside it"
            )
        bare = re.sub('"[^"]*"', "", line) if layout.quoted else line
        if (fields := bare.count(layout.separator) + 1) != wanted:
            return InputError(
                f"{file.name} line {number}: {fields} fields where {wanted} belong ({line[:60]!r}); mend or remove it"
            )
    return None


def parse_numbers(column: pl.Series, file: File, header: bool) -> pl.Series:
    """Parse a column of text as numbers. Raises `InputError`, which names the first row without one."""
    values = column.str.strip_chars().cast(pl.Float64, strict=False)
    if (bad := ~values.is_between(-LARGEST, LARGEST).fill_null(False)).any():
        row = int(bad.arg_max() or 0)
        raise InputError(
            f"{file.name} line {row + 1 + header}: {column.name} {column[row]!r} is not a number; "
            "mend or remove the row"
        )
    return values
