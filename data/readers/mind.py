"""MIND's logs of news: a user's clicks before the log, and the news shown and clicked at each time.

Format: Wu et al. 2020, doi:10.18653/v1/2020.acl-main.331; `behaviors.tsv` has the columns impression, user, time,
history, impressions (`N1-1 N2-0`, where 1 is a click), `news.tsv` has id, category, subcategory, title, abstract, url,
and two of entities; neither has a header.
"""

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.ids import id_faults
from fedrec.data.readers.event_files import Sieve, read_rows
from fedrec.data.readers.item_files import ItemFields
from fedrec.data.readers.raw import Frames, Root
from fedrec.data.readers.reading_report import join_names
from fedrec.data.readers.records import RecordFormat
from fedrec.data.readers.source_files import FileIndex, ItemFile

BEHAVIORS, NEWS = "behaviors.tsv", "news.tsv"

LOG = RecordFormat("fields", ("impression", "user", "time", "history", "impressions"), "\t", quote=None)
NAMES = {"user_id": "user", "timestamp": "time", "history": "history", "impressions": "impressions"}
TIME = "%m/%d/%Y %I:%M:%S %p"

ARTICLES = ItemFile(
    NEWS,
    RecordFormat(
        "fields",
        ("id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities"),
        "\t",
        quote=None,
    ),
    ItemFields(
        *("id", ("title",), ("abstract", "category", "subcategory")),
        {"category": "category", "subcategory": "subcategory"},
    ),
)


def read_mind(root: Root) -> Frames:
    """Read the clicks of all `behaviors.tsv`, as of training and of development, and the news.

    A history has no times, and is the same in all rows of a user: it comes once, at the user's first time, before the
    clicks of that time. Raises `InputError` if a file is missing, or if too many rows are bad.
    """
    index = FileIndex(root)
    index.check_given([BEHAVIORS, NEWS])
    if not (files := index.all_named(BEHAVIORS)):
        raise InputError(f"{root} holds no {BEHAVIORS!r}, but {join_names(index.names)}; is it the dataset you named?")
    clicks, firsts, sieve = [], [], Sieve()
    for file in files:
        for rows in read_rows(file, LOG, NAMES):
            typed = rows.frame.with_columns(
                timestamp=pl.col("timestamp").str.to_datetime(TIME, strict=False).dt.epoch("s")
            )
            bad = (
                id_faults(typed["user_id"]).is_not_null()
                | typed["timestamp"].is_null()
                | typed["impressions"].is_null()
            )
            log = sieve.keep_sound(file, rows, typed, bad)
            firsts.append(_first_rows(log))
            clicks.append(_explode(log, pl.col("impressions").str.extract_all(r"(\S+)-1(?:\s|$)")))
    sieve.report_to(root.report, files[0])
    history = _explode(_first_rows(pl.concat(firsts)), pl.col("history").str.split(" "))
    events = pl.concat([history, *clicks])
    items = ARTICLES.read(root, index.all_named(NEWS), events["item_id"])
    return Frames(events, items.unique("item_id", keep="first", maintain_order=True))  # two logs share most news


def _first_rows(log: pl.DataFrame) -> pl.DataFrame:
    return log.sort("timestamp", maintain_order=True).unique("user_id", keep="first", maintain_order=True)


def _explode(log: pl.DataFrame, items: pl.Expr) -> pl.DataFrame:
    """Build an event of each item in a list."""
    events = log.select("user_id", items.alias("item_id"), "timestamp").explode("item_id")
    bare = pl.col("item_id").str.strip_chars().str.strip_suffix("-1")
    return events.with_columns(item_id=bare).filter(pl.col("item_id").str.len_bytes() > 0)
