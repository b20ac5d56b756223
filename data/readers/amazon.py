"""The formats of Amazon's reviews: the releases of 2014, 2018 and 2023, and the cuts of them that papers report on.

2023: Hou et al. 2024, arXiv:2403.03952. 2018: Ni, Li and McAuley 2019, doi:10.18653/v1/D19-1018. 2014: He and McAuley
2016, doi:10.1145/2872427.2883037.
"""

import re

from fedrec.data.errors import InputError
from fedrec.data.readers.event_files import EventFields
from fedrec.data.readers.item_files import ItemFields
from fedrec.data.readers.raw import File
from fedrec.data.readers.records import JSON_LINES, LITERALS, RecordFormat
from fedrec.data.readers.source_files import EventFiles, FileSet, ItemFile
from fedrec.data.readers.streams import read_line_batches

OLD_REVIEWS = EventFields("reviewerID", "asin", "unixReviewTime", "overall")
OLD_RATINGS = EventFields("user", "asin", "time", "rating")
NEW_REVIEWS = EventFields("user_id", "parent_asin", "timestamp", "rating")
NEW_COLUMNS = RecordFormat("fields", ("user_id", "parent_asin", "rating", "timestamp"))
"""The columns of the benchmark files of 2023; copies from before February 2024 have no header."""

COLUMNS = {"brand": "brand", "price": "price"}
PRODUCT_2014 = ItemFields(
    "asin", ("title",), ("categories", "brand", "description"), COLUMNS | {"categories": "categories"}
)
PRODUCT_2018 = ItemFields(
    *("asin", ("title",), ("category", "brand", "description"), COLUMNS | {"categories": "category"}), code="getTime"
)
PRODUCT_2023 = ItemFields(
    *("parent_asin", ("title",), ("features", "categories", "description")),
    {"brand": "store", "price": "price", "categories": "categories"},
)

ASIN, REVIEWER = re.compile(r"B[0-9A-Z]{9}|\d{9}[\dX]"), re.compile(r"A[0-9A-Z]{8,}|#oc-\w+")
"""The patterns of products' and of users' ids."""


def files_2014(category: str) -> FileSet:
    """Return the reader of a category of 2014: 5-core reviews, all ratings, or all reviews."""
    events = _old_events(f"reviews_{category}", f"ratings_{category}")
    return FileSet(events, ItemFile(f"meta_{category}.json", LITERALS, PRODUCT_2014))


def files_2018(category: str) -> FileSet:
    """Return the reader of a category of 2018: 5-core reviews, all ratings, or all reviews."""
    return FileSet(_old_events(category, category), ItemFile(f"meta_{category}.json", JSON_LINES, PRODUCT_2018))


def files_2023(category: str) -> FileSet:
    """Return the reader of a category of 2023: the benchmark's ratings, either of its splits, or all reviews."""
    split = tuple(f"{category}.{part}.csv" for part in ("train", "valid", "test"))
    return FileSet(
        (
            EventFiles((f"{category}.csv",), NEW_COLUMNS, NEW_REVIEWS),
            EventFiles(split, NEW_COLUMNS, NEW_REVIEWS),
            EventFiles((f"{category}.jsonl",), JSON_LINES, NEW_REVIEWS),
        ),
        ItemFile(f"meta_{category}.jsonl", JSON_LINES, PRODUCT_2023),
    )


def _old_events(reviews: str, ratings: str) -> tuple[EventFiles, ...]:
    """Return the kinds of events of 2014 and 2018, by how the names of their files begin."""
    return (
        EventFiles((f"{reviews}_5.json",), JSON_LINES, OLD_REVIEWS),
        EventFiles((f"{ratings}.csv",), RecordFormat("fields"), OLD_RATINGS, order_columns),
        EventFiles((f"{reviews}.json",), JSON_LINES, OLD_REVIEWS),
    )


def order_columns(file: File) -> RecordFormat:
    """Name the columns of ratings without a header: `user,asin,…` in 2014, `asin,user,…` in 2018.

    The ids in the file decide, because copies of both are in use under one name. Raises `InputError` if they do not.
    """
    batch = next(read_line_batches(file), None)
    rows = [line.decode(errors="replace").split(",") for _, line in (batch.numbered_lines() if batch else ())][:10_000]
    pairs = [row[:2] for row in rows if len(row) == 4]
    asin_last = sum(bool(REVIEWER.fullmatch(first) and ASIN.fullmatch(second)) for first, second in pairs)
    asin_first = sum(bool(ASIN.fullmatch(first) and REVIEWER.fullmatch(second)) for first, second in pairs)
    if max(asin_first, asin_last) <= len(rows) / 2:
        raise InputError(
            f"{file.name}: the first two columns are not a user and a product of Amazon (`A1…,B0…` or `B0…,A1…`), but "
            f"{','.join(rows[0][:2]) if rows else 'empty'}; is it the original file?"
        )
    ids = ("user", "asin") if asin_last > asin_first else ("asin", "user")
    return RecordFormat("fields", (*ids, "rating", "time"))
