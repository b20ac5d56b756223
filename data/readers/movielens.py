"""The readers of MovieLens: Harper and Konstan 2015, doi:10.1145/2827872. Each zip's README describes its layout."""

from collections.abc import Callable

import polars as pl

from fedrec.data.readers import recbole
from fedrec.data.readers.film_text import film_items
from fedrec.data.readers.raw import File, Frames, Layout, Root, find_file, parse_numbers, read_table
from fedrec.data.readers.source import Publisher, Size, Source
from fedrec.data.readers.times import parse_times


def read_interactions(file: File, layout: Layout) -> pl.DataFrame:
    """Read users, items, times and ratings, in file order. Raises `InputError`, which names a bad row."""
    table = read_table(file, layout)
    rating = parse_numbers(table["rating"], file, layout.header)
    parse_numbers(table["timestamp"], file, layout.header)
    return table.select("user_id", "item_id", parse_times(table["timestamp"]), rating)


def read_ml_100k(root: Root) -> Frames:
    """Read MovieLens 100K."""
    names = [line.split("|")[0] for line in find_file(root, "u.genre").decode("latin-1").splitlines() if "|" in line]
    columns = ["item_id", "title", "released", "video", "url", *names]
    table = read_table(find_file(root, "u.item"), Layout(columns, "|", "latin-1"))
    flags = [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in names if name != "unknown"]
    genres = table.select(pl.concat_str(flags, separator="|", ignore_nulls=True)).to_series()
    ratings = read_interactions(find_file(root, "u.data"), Layout(["user_id", "item_id", "rating", "timestamp"], "\t"))
    return Frames(ratings, film_items(table, genres))


def _movielens_reader(suffix: str, separator: str, encoding: str, header: bool) -> Callable[[Root], Frames]:
    """Build the reader of MovieLens from 1M on: `::` between fields in `.dat`, or CSV with header and quotes."""

    def read(root: Root) -> Frames:
        movies = Layout(["item_id", "title", "genres"], separator, encoding, header, header)
        ratings = Layout(["user_id", "item_id", "rating", "timestamp"], separator, encoding, header, header)
        table = read_table(find_file(root, f"movies.{suffix}"), movies)
        genres = table["genres"].replace("(no genres listed)", "")
        return Frames(read_interactions(find_file(root, f"ratings.{suffix}"), ratings), film_items(table, genres))

    return read


def read_ml_1m(root: Root) -> Frames:
    """Read MovieLens 1M: GroupLens's files, or RecBole's copy of them."""
    return recbole.read_films(root, "ml-1m") if recbole.holds_atomic(root, "ml-1m") else _DAT_LATIN(root)


GROUPLENS = Publisher(
    "MovieLens",
    "F. M. Harper and J. A. Konstan. The MovieLens Datasets. ACM TiiS 5(4), 2015. doi:10.1145/2827872",
    "research; cite; no commercial use and no redistribution without permission",
    "https://grouplens.org/datasets/movielens/",
)

_ADDRESS = "https://files.grouplens.org/datasets/movielens/"


def _source(
    name: str, size: Size | None, md5: str | None, read: Callable[[Root], Frames], about: str = "films"
) -> Source:
    return Source(name, about, read, f"{_ADDRESS}{name}.zip", md5, GROUPLENS, size)


_DAT_LATIN = _movielens_reader("dat", "::", "latin-1", header=False)
_DAT = _movielens_reader("dat", "::", "utf-8", header=False)
_CSV = _movielens_reader("csv", ",", "utf-8", header=True)

SOURCES = (
    _source("ml-100k", Size(943, 1_682, 100_000), "0e33842e24a9c977be4e0107933c0723", read_ml_100k),
    _source("ml-1m", Size(6_040, 3_883, 1_000_209), "c4d9eecfca2ab87c1945afe126590906", read_ml_1m),
    _source("ml-10m", Size(69_878, 10_681, 10_000_054), "ce571fd55effeba0271552578f2648bd", _DAT),
    _source("ml-20m", Size(138_493, 27_278, 20_000_263), "cd245b17a1ae2cc31bb14903e1204af3", _CSV),
    _source("ml-25m", Size(162_541, 62_423, 25_000_095), "6b51fb2759a8657d3bfcbfc42b592ada", _CSV),
    _source("ml-32m", Size(200_948, 87_585, 32_000_204), "d472be332d4daa821edc399621853b57", _CSV),
    _source("ml-latest-small", None, None, _CSV, "films; about 610 users and 9,700 films, which change over time"),
)
