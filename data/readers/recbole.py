"""RecBole's atomic files: tab-separated tables whose header names and types each field, as `item_id:token`.

Format: Zhao et al. 2021, arXiv:2011.01731. RecBole's copies of MovieLens hold a user's history in order, and as
`timestamp` a time or the place in that history.
"""

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.readers.film_text import film_items
from fedrec.data.readers.raw import File, Frames, Layout, Root, find_file, has_file, parse_numbers, read_table

TYPES = ("token", "token_seq", "float", "float_seq")


def read_atomic(file: File, wanted: dict[str, str]) -> pl.DataFrame:
    """Read the wanted fields (name → type): a token as text, a float as a number, a sequence as a list of these.

    Raises `InputError`, which names the file, the line and the field.
    """
    fields = read_fields(file)
    for name, kind in wanted.items():
        if fields.get(name) != kind:
            there = ", ".join(f"{field}:{other}" for field, other in fields.items())
            raise InputError(f"{file.name} line 1: no field {name}:{kind}, but {there}; is it the file you meant?")
    table = read_table(file, Layout(list(fields), "\t", header=True))
    if table.is_empty():
        raise InputError(f"{file.name} holds no rows; is it the whole file?")
    return table.select(_parse_column(table[name], kind, file) for name, kind in wanted.items())


def read_fields(file: File) -> dict[str, str]:
    """Read the header: field → type, in the order of the columns."""
    first = file.decode().partition("\n")[0].rstrip("\r")
    fields: dict[str, str] = {}
    for field in first.split("\t"):
        name, colon, kind = field.partition(":")
        if not (name and colon):
            raise InputError(f"{file.name} line 1: field {field[:60]!r} is not `name:type`; put the header back")
        if kind not in TYPES:
            raise InputError(f"{file.name} line 1: field {name!r} has type {kind!r}, not one of {', '.join(TYPES)}")
        if name in fields:
            raise InputError(f"{file.name} line 1: field {name!r} stands there twice; rename one")
        fields[name] = kind
    return fields


def _parse_column(column: pl.Series, kind: str, file: File) -> pl.Series:
    if kind == "token":
        if (empty := column == "").any() and column.name.endswith("_id"):
            line = int(empty.arg_max() or 0) + 2
            raise InputError(f"{file.name} line {line}: {column.name} is empty; mend or remove the row")
        return column
    if kind == "float":
        return parse_numbers(column, file, header=True)
    parts = column.str.split(" ").list.eval(pl.element().filter(pl.element() != ""))
    return parts if kind == "token_seq" else _parse_number_lists(parts, column, file)


def _parse_number_lists(parts: pl.Series, column: pl.Series, file: File) -> pl.Series:
    """Parse lists of text as lists of numbers."""
    numbers = parts.cast(pl.List(pl.Float64), strict=False)
    if (bad := numbers.list.eval(pl.element().is_null()).list.any()).any():
        row = int(bad.arg_max() or 0)
        raise InputError(
            f"{file.name} line {row + 2}: {column.name} {column[row]!r} is not numbers with spaces between; "
            "mend or remove the row"
        )
    return numbers


def holds_atomic(root: Root, name: str) -> bool:
    """Check whether `root` holds RecBole's copy of the dataset `name`."""
    return has_file(root, f"{name}.inter")


def read_films(root: Root, name: str) -> Frames:
    """Read RecBole's copy of a MovieLens dataset: `NAME.inter` and `NAME.item`."""
    events = read_atomic(
        find_file(root, f"{name}.inter"), {"user_id": "token", "item_id": "token", "timestamp": "float"}
    )
    fields = {"item_id": "token", "movie_title": "token_seq", "release_year": "token", "genre": "token_seq"}
    table = read_atomic(find_file(root, f"{name}.item"), fields)
    words, year = pl.col("movie_title").list.join(" "), pl.col("release_year")
    dated = pl.when(year.str.contains(r"^\d{4}$")).then(pl.format("{} ({})", words, year)).otherwise(words)
    return Frames(events, film_items(table.select("item_id", title=dated), table["genre"].list.join("|")))
