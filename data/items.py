"""A table of items → what the encoder reads of each, and the table's own columns, typed, to filter by and to show."""

import polars as pl

from data.account import Account, shortened
from data.columns import as_text, typed
from data.errors import InputError
from data.formats import TableFile
from data.rows import OPTIONS, check_columns, with_text, without_bad_rows

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
    table = found.frame.select(pl.col(item).alias("item_id"), pl.exclude(item, "item_id"))
    table = with_text(file, table, ["item_id"])
    table = without_bad_rows(file, found._replace(frame=table), {"item_id": item}, account, "bad_item_rows")
    named = list(texts) or [name for name in names if name not in (item, "item_id")]
    described = _described(file, table, named, account)
    return described.hstack(_own_columns(file, table, names, [item, *named], account))


_OPTIONS = OPTIONS | {"item_id": "--items-id-column"}


def _described(file: TableFile, table: pl.DataFrame, named: list[str], account: Account) -> pl.DataFrame:
    """Ids, titles and texts."""
    parts = [_part(file, table[name]) for name in named]
    texts = [part.str.strip_chars().replace("", None).alias(f"text {place}") for place, part in enumerate(parts)]
    joined = pl.concat_str(*(part.name for part in texts), pl.lit(None, pl.String), separator=". ", ignore_nulls=True)
    told = table.select("item_id", *texts).with_columns(joined=joined.replace("", None))
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


def _own_columns(
    file: TableFile, table: pl.DataFrame, names: list[str], used: list[str], account: Account
) -> list[pl.Series]:
    """All columns but the id and the title; `used` begins with these and goes on with those that are read as text."""
    kept, refused = [], dict[str, str]()
    for name in names:
        if name in used[:2]:
            continue
        if name in RESERVED:
            refused |= {name: "fedrec's own name, rename it"} if name not in used else {}
        elif (values := typed(table[name])) is None:
            refused[name] = f"type {table[name].dtype}"
        elif name == POPULARITY and not values.dtype.is_numeric():
            refused[name] = "no numbers"
        else:
            kept.append(values)
    line = f"columns of {file.path.name}, not kept: {len(refused)} of {len(names)} "
    account.note("item_columns_dropped", len(refused), line + str([f"{name}: {why}" for name, why in refused.items()]))
    return kept
