"""Raw files as their publishers made them → two frames: interactions in file order, and items.

Interactions have `user_id`, `item_id` and `timestamp`; items have `item_id`, `title`, `text`, and what else is
public of them. MovieLens: Harper and Konstan 2015, doi:10.1145/2827872; layouts are described in each zip's README.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from data import demo
from data.errors import InputError

Root = Path | zipfile.Path
"""A folder or an opened zip: both know `/`, `exists`, `iterdir` and `read_bytes`."""

LARGEST = 2.0**53
"""Beyond it a float64 no longer holds every whole number: no rating and no time is that large."""


class Frames(NamedTuple):
    interactions: pl.DataFrame
    items: pl.DataFrame


@dataclass(frozen=True)
class Source:
    """A dataset that can be prepared by name. `md5` is None where the publisher changes the file over time."""

    name: str
    about: str
    read: Callable[[Root], Frames]
    url: str | None = None
    md5: str | None = None
    citation: str = ""
    texts: tuple[str, ...] = ()  # columns that make up the items' text; none: as `read` makes it


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
    for place in [root, *(child for child in root.iterdir() if child.is_dir())]:
        if (place / name).exists():
            return place / name
    raise InputError(f"{root} holds no {name!r}; is it the dataset you named?")


@dataclass(frozen=True)
class Layout:
    """How one file lays out its rows. `columns` names each column; quoting is CSV's where `header` is set."""

    columns: Sequence[str]
    separator: str
    encoding: str = "utf-8"
    header: bool = False


def read_table(file: Root, layout: Layout) -> pl.DataFrame:
    """All columns as text. Raises `InputError` with the line where a row has too few or too many fields."""
    try:
        text = file.read_bytes().decode(layout.encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file.name}: byte {error.start} is not {layout.encoding}; is it the original file?"
        ) from error
    single = layout.separator if len(layout.separator) == 1 else "\x1f"  # polars splits at one byte; no text holds this
    try:
        frame = pl.read_csv(
            io.BytesIO(text.replace(layout.separator, single).encode()),
            has_header=layout.header,
            separator=single,
            quote_char='"' if layout.header else None,
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
        bare = re.sub('"[^"]*"', "", line) if layout.header else line
        if (fields := bare.count(layout.separator) + 1) != wanted:
            return InputError(
                f"{file.name} line {number}: {fields} fields where {wanted} belong ({line[:60]!r}); mend or remove it"
            )
    return None


def read_interactions(file: Root, layout: Layout) -> pl.DataFrame:
    """Users, items and times of a ratings file, in file order. Raises `InputError` naming a bad row."""
    table = read_table(file, layout)
    for column in ("rating", "timestamp"):
        kept = table[column].str.strip_chars().cast(pl.Float64, strict=False)
        if (bad := ~kept.is_between(-LARGEST, LARGEST).fill_null(False)).any():
            row = int(bad.arg_max() or 0)
            raise InputError(
                f"{file.name} line {row + 1 + layout.header}: {column} {table[column][row]!r} is not a number; "
                "mend or remove the row"
            )
    return table.select("user_id", "item_id", pl.col("timestamp").str.strip_chars().cast(pl.Float64).cast(pl.Int64))


def described(items: pl.DataFrame) -> pl.DataFrame:
    """Add `text`, what an encoder reads of a film: title with its article in front, year, genres, plot if any."""
    parts = [
        pl.when(pl.col("year").is_null()).then(pl.col("title")).otherwise(pl.format("{} ({})", "title", "year")),
        pl.col("genres").str.replace_all("|", ", ", literal=True),
    ]
    if "plot" in items.columns:
        parts.append(pl.col("plot"))
    filled = [pl.when(part == "").then(None).otherwise(part) for part in parts]
    return items.with_columns(text=pl.concat_str(filled, separator=". ", ignore_nulls=True))


def film_titles(raw: pl.Series) -> pl.DataFrame:
    """`Matrix, The (1999)` → title `The Matrix`, year 1999. What does not look so is kept as it is."""
    pattern = r"^(?<name>.*?)(?:, (?<article>The|A|An|Le|La|Les|L'|Il|El|Das|Der|Die))?\s*\((?<year>\d{4})\)\s*$"
    found = raw.str.extract_groups(pattern)
    name, article = found.struct.field("name"), found.struct.field("article")
    spaced = pl.select(pl.when(article.str.ends_with("'")).then(article).otherwise(article + " ")).to_series()
    return pl.DataFrame(
        {
            "title": pl.select(pl.coalesce(spaced + name, name, raw.str.strip_chars())).to_series(),
            "year": found.struct.field("year").cast(pl.Int64),
        }
    )


def _films(table: pl.DataFrame, genres: pl.Series) -> pl.DataFrame:
    return described(
        pl.DataFrame({"item_id": table["item_id"], **film_titles(table["title"]).to_dict(), "genres": genres})
    )


def read_ml_100k(root: Root) -> Frames:
    names = [line.split("|")[0] for line in find(root, "u.genre").read_text("latin-1").splitlines() if "|" in line]
    columns = ["item_id", "title", "released", "video", "url", *names]
    table = read_table(find(root, "u.item"), Layout(columns, "|", "latin-1"))
    flags = [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in names if name != "unknown"]
    genres = table.select(pl.concat_str(flags, separator="|", ignore_nulls=True)).to_series()
    ratings = read_interactions(find(root, "u.data"), Layout(["user_id", "item_id", "rating", "timestamp"], "\t"))
    return Frames(ratings, _films(table, genres))


def _movielens(suffix: str, separator: str, encoding: str, header: bool) -> Callable[[Root], Frames]:
    """Reader of the layout that MovieLens keeps from 1M on: `::` in `.dat`, or CSV with a header."""

    def read(root: Root) -> Frames:
        movies = Layout(["item_id", "title", "genres"], separator, encoding, header)
        ratings = Layout(["user_id", "item_id", "rating", "timestamp"], separator, encoding, header)
        table = read_table(find(root, f"movies.{suffix}"), movies)
        genres = table["genres"].replace("(no genres listed)", "")
        return Frames(read_interactions(find(root, f"ratings.{suffix}"), ratings), _films(table, genres))

    return read


def read_demo(_: Root) -> Frames:
    """The generated world of `fedrec demo`: see `data.demo` for the process behind it."""
    interactions, items = demo.generate()
    return Frames(interactions, described(items).drop("plot"))


_MOVIELENS = "https://files.grouplens.org/datasets/movielens/"
_HARPER = "F. M. Harper and J. A. Konstan. The MovieLens Datasets. ACM TiiS 5(4), 2015. doi:10.1145/2827872"


def _movielens_source(name: str, about: str, md5: str | None, read: Callable[[Root], Frames]) -> Source:
    return Source(name, about, read, f"{_MOVIELENS}{name}.zip", md5, _HARPER)


_DAT_LATIN = _movielens("dat", "::", "latin-1", header=False)
_DAT = _movielens("dat", "::", "utf-8", header=False)
_CSV = _movielens("csv", ",", "utf-8", header=True)

SOURCES = {
    source.name: source
    for source in [
        Source("demo", "generated films and users; needs no download", read_demo),
        _movielens_source(
            "ml-100k",
            "943 users, 1,682 films, 100,000 ratings",
            "0e33842e24a9c977be4e0107933c0723",
            read_ml_100k,
        ),
        _movielens_source(
            "ml-1m",
            "6,040 users, 3,883 films, 1,000,209 ratings",
            "c4d9eecfca2ab87c1945afe126590906",
            _DAT_LATIN,
        ),
        _movielens_source(
            "ml-10m",
            "69,878 users, 10,681 films, 10,000,054 ratings",
            "ce571fd55effeba0271552578f2648bd",
            _DAT,
        ),
        _movielens_source(
            "ml-20m",
            "138,493 users, 27,278 films, 20,000,263 ratings",
            "cd245b17a1ae2cc31bb14903e1204af3",
            _CSV,
        ),
        _movielens_source(
            "ml-25m",
            "162,541 users, 62,423 films, 25,000,095 ratings",
            "6b51fb2759a8657d3bfcbfc42b592ada",
            _CSV,
        ),
        _movielens_source(
            "ml-32m",
            "200,948 users, 87,585 films, 32,000,204 ratings",
            "d472be332d4daa821edc399621853b57",
            _CSV,
        ),
        _movielens_source("ml-latest-small", "about 610 users, 9,700 films; changes over time", None, _CSV),
    ]
}


def source_named(name: str) -> Source:
    """Raises `InputError` listing the names there are."""
    if name not in SOURCES:
        raise InputError(f"dataset {name!r} is not known; choose one of {', '.join(SOURCES)}")
    return SOURCES[name]
