"""The datasets that can be prepared by name, and the readers of MovieLens.

MovieLens: Harper and Konstan 2015, doi:10.1145/2827872; layouts are described in each zip's README.
"""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.readers import recbole
from fedrec.data.readers.film_text import add_text, film_items
from fedrec.data.readers.raw import File, Frames, Layout, Root, find_file, parse_numbers, read_table
from fedrec.data.readers.rules import DEFAULT_RULES, Rules
from fedrec.data.readers.times import parse_times
from fedrec.data.readers.unisrec import read_unisrec
from fedrec.data.split import LEAVE_ONE_OUT, Split
from fedrec.data.synthetic import demo_films


@dataclass(frozen=True)
class Source:
    """A dataset that can be prepared by name. `md5` is None if the publisher changes the file over time."""

    name: str
    about: str
    read: Callable[[Root], Frames]
    url: str | None = None
    md5: str | None = None
    citation: str = ""
    by_hand: str = ""  # how to get the files, if they cannot be downloaded
    split: Split = LEAVE_ONE_OUT
    texts: tuple[str, ...] = ()  # the columns that make up the items' text; empty: the reader's choice
    rules: Rules = DEFAULT_RULES


def read_interactions(file: File, layout: Layout) -> pl.DataFrame:
    """Read users, items and times of a ratings file, in file order. Raises `InputError`, which names a bad row."""
    table = read_table(file, layout)
    parse_numbers(table["rating"], file, layout.header)
    parse_numbers(table["timestamp"], file, layout.header)
    return table.select("user_id", "item_id", parse_times(table["timestamp"]))


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


def read_scientific(root: Root) -> Frames:
    """Read UniSRec's split of Amazon's Industrial & Scientific."""
    return read_unisrec(root, "Scientific", "Industrial & Scientific")


def read_demo(_: Root) -> Frames:
    """Generate the world of `fedrec demo`: `fedrec.data.synthetic.demo_films` describes the process."""
    interactions, items = demo_films.generate()
    return Frames(interactions, add_text(items).drop("plot"))


_MOVIELENS = "https://files.grouplens.org/datasets/movielens/"
_HARPER = "F. M. Harper and J. A. Konstan. The MovieLens Datasets. ACM TiiS 5(4), 2015. doi:10.1145/2827872"
_UNISREC = (
    "split: Y. Hou et al. KDD 2022. arXiv:2206.05941; "
    "reviews (Amazon 2018): J. Ni, J. Li and J. McAuley. EMNLP 2019. doi:10.18653/v1/D19-1018"
)


def _movielens_source(name: str, about: str, md5: str | None, read: Callable[[Root], Frames]) -> Source:
    return Source(name, about, read, f"{_MOVIELENS}{name}.zip", md5, _HARPER)


_DAT_LATIN = _movielens_reader("dat", "::", "latin-1", header=False)
_DAT = _movielens_reader("dat", "::", "utf-8", header=False)
_CSV = _movielens_reader("csv", ",", "utf-8", header=True)

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
            read_ml_1m,
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
        Source(
            "amazon-scientific",
            "8,442 users, 4,385 products, 59,384 reviews: UniSRec's split of Amazon 2018, Industrial & Scientific",
            read_scientific,
            citation=_UNISREC,
            by_hand="take the folder Scientific of UniSRec's released downstream data, "
            f"https://github.com/RUCAIBox/UniSRec ({_UNISREC})",
            split=Split(repeats=True),
        ),
    ]
}


def source_named(name: str) -> Source:
    """Return a dataset's source. Raises `InputError`, which lists the known names."""
    if name not in SOURCES:
        raise InputError(f"dataset {name!r} is not known; choose one of {', '.join(SOURCES)}")
    return SOURCES[name]
