"""A table of items → the text that the encoder reads, and the table's own columns, typed, to filter by and to show."""

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.popularity import POPULARITY
from fedrec.data.readers.columns import as_text, infer_type
from fedrec.data.readers.formats import TableFile
from fedrec.data.readers.reading_report import ReadingReport, shorten
from fedrec.data.readers.rows import OPTIONS, check_columns, drop_bad_rows, ids_as_text

RESERVED = ("item_id", "title", "text", "cold")
"""The columns that have a meaning of their own in every catalogue."""


def read_items(file: TableFile, item: str, texts: tuple[str, ...], report: ReadingReport) -> pl.DataFrame:
    """Read `item_id`, `title`, `text`, then the table's own columns; an item without text has its id in place of it.

    `item` is the column of ids. `texts` are the columns that make up the text, the title first; empty: all but the id.
    Raises `InputError` if a column is missing or has no text, or if too many rows are bad.
    """
    rows = file.read_rows()
    names = rows.frame.columns
    check_columns(file, names, {"item_id": item} | {f"text {name}": name for name in texts}, _OPTIONS)
    ids = ids_as_text(file, rows.frame.select(pl.col(item).alias("item_id")).with_row_index("row"), ["item_id"])
    ids = drop_bad_rows(file, rows._replace(frame=ids), {"item_id": item}, report, "bad_item_rows")
    table = rows.frame[ids["row"]]
    named = list(texts) or [name for name in names if name != item]
    described = _build_text(file, ids["item_id"], [table[name] for name in named], report)
    return described.hstack(_own_columns(file, table, [item, *named], report))


_OPTIONS = OPTIONS | {"item_id": "`items_id_column`"}


def _build_text(file: TableFile, ids: pl.Series, columns: list[pl.Series], report: ReadingReport) -> pl.DataFrame:
    """Build ids, titles and texts from the columns to read, and report the items without text."""
    parts = [_to_text(file, values) for values in columns]
    texts = [part.str.strip_chars().replace("", None).alias(f"text {place}") for place, part in enumerate(parts)]
    joined = pl.concat_str(*(part.name for part in texts), pl.lit(None, pl.String), separator=". ", ignore_nulls=True)
    table = pl.DataFrame([ids, *texts]).with_columns(joined=joined.replace("", None))
    bare = table.filter(pl.col("joined").is_null())["item_id"]
    line = f"items of {file.path.name} with no text, known by their id alone: {len(bare):,} of {len(table):,}"
    report.add_step("items_without_text", len(bare), f"{line}; one is {shorten(bare.first())}")
    return table.select(
        "item_id",
        title=pl.coalesce(*(part.name for part in texts[:1]), "item_id"),
        text=pl.coalesce("joined", "item_id"),
    )


def _to_text(file: TableFile, values: pl.Series) -> pl.Series:
    if (text := as_text(values)) is None:
        raise InputError(
            f"{file.path}: column {values.name!r} of type {values.dtype} cannot be read as text; name the columns to "
            "read with `text_columns`"
        )
    return text


def _own_columns(file: TableFile, table: pl.DataFrame, used: list[str], report: ReadingReport) -> list[pl.Series]:
    """Convert all columns but the id and the title; report others. `used` are the id and the columns of the text."""
    kept, refused = [], dict[str, str]()
    for name in table.columns:
        if name in used[:2]:
            continue
        if not name.strip():
            refused["''"] = "no name"
        elif name in RESERVED:
            refused |= {name: "fedrec's own name, rename it"} if name not in used else {}
        elif (values := infer_type(table[name])) is None:
            refused[name] = f"type {table[name].dtype}"
        elif name == POPULARITY and not values.dtype.is_numeric():
            refused[name] = "no numbers"
        else:
            kept.append(values)
    line = f"columns of {file.path.name}, not kept: {len(refused)} of {len(table.columns)} "
    report.add_step(
        "item_columns_dropped", len(refused), line + str([f"{name}: {why}" for name, why in refused.items()])
    )
    return kept
