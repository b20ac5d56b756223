"""A table of items → what the encoder reads of each, and the table's own columns, typed, to filter by and to show."""

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.readers.columns import as_text, typed
from fedrec.data.readers.formats import TableFile
from fedrec.data.readers.reading_report import Account, shortened
from fedrec.data.readers.rows import OPTIONS, check_columns, with_text, without_bad_rows

RESERVED = ("item_id", "title", "text", "cold")
"""Columns that every catalogue has under these names, with a meaning of its own."""

POPULARITY = "popularity"
"""A catalogue's column of numbers by which those are answered who have no history."""


def read_items(file: TableFile, item: str, texts: tuple[str, ...], account: Account) -> pl.DataFrame:
    """`item_id`, `title`, `text`, then own columns. Where nothing is written of an item, its id stands for it.

    `item` is the column of ids; `texts` are those to read, the title first: if none are named, all but the id.
    Raises `InputError`.
    """
    found = file.rows()
    names = found.frame.columns
    check_columns(file, names, {"item_id": item} | {f"text {name}": name for name in texts}, _OPTIONS)
    ids = with_text(file, found.frame.select(pl.col(item).alias("item_id")).with_row_index("row"), ["item_id"])
    ids = without_bad_rows(file, found._replace(frame=ids), {"item_id": item}, account, "bad_item_rows")
    table = found.frame[ids["row"]]
    named = list(texts) or [name for name in names if name != item]
    described = _described(file, ids["item_id"], [table[name] for name in named], account)
    return described.hstack(_own_columns(file, table, [item, *named], account))


_OPTIONS = OPTIONS | {"item_id": "--items-id-column"}


def _described(file: TableFile, ids: pl.Series, columns: list[pl.Series], account: Account) -> pl.DataFrame:
    """Ids, titles and texts, of the columns to read."""
    parts = [_part(file, values) for values in columns]
    texts = [part.str.strip_chars().replace("", None).alias(f"text {place}") for place, part in enumerate(parts)]
    joined = pl.concat_str(*(part.name for part in texts), pl.lit(None, pl.String), separator=". ", ignore_nulls=True)
    told = pl.DataFrame([ids, *texts]).with_columns(joined=joined.replace("", None))
    bare = told.filter(pl.col("joined").is_null())["item_id"]
    line = f"items of {file.path.name} with no text, known by their id alone: {len(bare):,} of {len(told):,}"
    account.note("items_without_text", len(bare), f"{line}; one is {shortened(bare.first())}")
    return told.select(
        "item_id",
        title=pl.coalesce(*(part.name for part in texts[:1]), "item_id"),
        text=pl.coalesce("joined", "item_id"),
    )


def _part(file: TableFile, values: pl.Series) -> pl.Series:
    if (text := as_text(values)) is None:
        raise InputError(
            f"{file.path}: column {values.name!r} of type {values.dtype} cannot be read as text; name the columns to "
            "read with --text-columns"
        )
    return text


def _own_columns(file: TableFile, table: pl.DataFrame, used: list[str], account: Account) -> list[pl.Series]:
    """All columns but the id and the title; `used` begins with these and goes on with those that are read as text."""
    kept, refused = [], dict[str, str]()
    for name in table.columns:
        if name in used[:2]:
            continue
        if not name.strip():
            refused["''"] = "no name"
        elif name in RESERVED:
            refused |= {name: "fedrec's own name, rename it"} if name not in used else {}
        elif (values := typed(table[name])) is None:
            refused[name] = f"type {table[name].dtype}"
        elif name == POPULARITY and not values.dtype.is_numeric():
            refused[name] = "no numbers"
        else:
            kept.append(values)
    line = f"columns of {file.path.name}, not kept: {len(refused)} of {len(table.columns)} "
    account.note("item_columns_dropped", len(refused), line + str([f"{name}: {why}" for name, why in refused.items()]))
    return kept
