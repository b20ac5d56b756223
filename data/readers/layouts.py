"""Datasets in the layouts of RecBole, RecTools and LensKit → tables of events and items with our names of columns.

    recbole    NAME.inter, NAME.item   atomic files, whose headers name and type each field
    rectools   a table with user_id, item_id, weight, datetime; of items one with id, feature, value: a row for each
    lenskit    a folder as `lenskit.data.Dataset.save` writes it: schema.json, a table of each entity and relationship

What the tables hold besides users, items and times is kept of the items, and left out of the events.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.readers.formats import TableFile
from fedrec.data.readers.raw import Root, find_file, open_root
from fedrec.data.readers.recbole import read_atomic, read_fields
from fedrec.data.storage.reading import read_json

TITLES = ("title", "movie_title", "item_name", "name")
"""Columns of items that hold titles: the first of them that is there."""


class LaidOut(NamedTuple):
    """The tables of a dataset: `user_id`, `item_id` and, if there are times, `timestamp`; and `item_id` with others."""

    events: pl.DataFrame
    items: pl.DataFrame | None


def read_layout(layout: str, path: Path, items: Path | None = None) -> LaidOut:
    """Read a dataset in one of `LAYOUTS`. Raises `InputError`, which names the file and the column or line in it."""
    if layout not in LAYOUTS:
        raise InputError(f"`layout` = {layout!r} is not known; choose one of {', '.join(LAYOUTS)}")
    if items is not None and layout != "rectools":
        raise InputError(f"`items`: the layout {layout} has its own table of items; leave it out")
    return LAYOUTS[layout](path, items)


def _read_recbole(path: Path, _: Path | None) -> LaidOut:
    """Read atomic files, by the folder or the file of interactions."""
    root = open_root(path if path.is_dir() or path.suffix == ".zip" else path.parent)
    name = _recbole_name(root) if path.is_dir() or path.suffix == ".zip" else path.stem
    file = find_file(root, f"{name}.inter")
    wanted = {"user_id": "token", "item_id": "token"}
    events = read_atomic(file, wanted | ({"timestamp": "float"} if "timestamp" in read_fields(file) else {}))
    if not (root.place / f"{name}.item").exists():
        return LaidOut(events, None)
    described = find_file(root, f"{name}.item")
    table = read_atomic(described, read_fields(described))
    sequences = [name for name, kind in table.schema.items() if kind == pl.List(pl.String)]
    return LaidOut(events, _titled(table.with_columns(pl.col(sequences).list.join(" "))))


def _recbole_name(root: Root) -> str:
    """Return the name of the one dataset of atomic files in a folder. Raises `InputError` unless there is one."""
    names = sorted(child.name.removesuffix(".inter") for child in root.place.iterdir() if child.name.endswith(".inter"))
    if len(names) != 1:
        found = f"{len(names)}: {', '.join(names)}" if names else "none"
        raise InputError(f"{root} should hold one file NAME.inter, and holds {found}; name the file itself")
    return names[0]


def _read_rectools(path: Path, items: Path | None) -> LaidOut:
    """Read a table of interactions and, if it is given, one of item features, with a row for each value."""
    events = _read_columns(path, {"user_id": "user_id", "item_id": "item_id", "timestamp": "datetime"})
    if items is None:
        return LaidOut(events, None)
    features = _read_columns(items, {"item_id": "id", "feature": "feature", "value": "value"})
    joined = features.cast(pl.String).group_by("item_id", "feature", maintain_order=True).agg(pl.col("value"))
    wide = joined.with_columns(pl.col("value").list.join(", ")).pivot("feature", index="item_id", values="value")
    return LaidOut(events, _titled(wide))


def _read_lenskit(path: Path, _: Path | None) -> LaidOut:
    """Read a saved dataset by its schema, in which numbers of rows stand for users and items."""
    schema = _lenskit_schema(path)
    name = schema.get("default_interaction") or next(iter(schema.get("relationships", {})), "")
    users, items = _read_all(path / "user.parquet"), _read_all(path / "item.parquet")
    events = _read_all(path / f"{name}.parquet")
    if absent := {"user_num", "item_num"} - set(events.columns):
        raise InputError(f"{path / name}.parquet lacks the column {min(absent)}; save the dataset by LensKit again")
    times = {"timestamp": events["timestamp"]} if "timestamp" in events.columns else {}
    by_id = {f"{kind}_id": table[f"{kind}_id"].gather(events[f"{kind}_num"]) for kind, table in _named(users, items)}
    lists = [column for column, kind in items.schema.items() if isinstance(kind, pl.List)]
    described = items.with_columns(pl.col(lists).cast(pl.List(pl.String)).list.join(", "))
    return LaidOut(pl.DataFrame(by_id | times), _titled(described) if items.width > 1 else None)


def _named(users: pl.DataFrame, items: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    return [("user", users), ("item", items)]


def _lenskit_schema(path: Path) -> dict[str, Any]:
    try:
        return read_json(path / "schema.json", "save the dataset by LensKit again")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{path} is no dataset that LensKit has saved: it holds no schema.json; give its folder"
        ) from error


def _read_columns(path: Path, columns: dict[str, str]) -> pl.DataFrame:
    """Read columns (our name → theirs) of a table. Raises `InputError` if one is absent."""
    file = TableFile(path)
    if absent := [theirs for theirs in columns.values() if theirs not in file.column_names()]:
        there = ", ".join(file.column_names())
        raise InputError(f"{path} lacks the column {absent[0]!r} of this layout; it has {there}")
    return file.read_rows(columns).frame


def _read_all(path: Path) -> pl.DataFrame:
    return TableFile(path).read_rows().frame


def _titled(items: pl.DataFrame) -> pl.DataFrame:
    """Name the column of titles `title`, if there is one, and put it behind the id, so that texts begin with it."""
    found = [name for name in TITLES if name in items.columns][:1]
    return items.select("item_id", *(pl.col(name).alias("title") for name in found), pl.exclude("item_id", *found))


LAYOUTS: dict[str, Callable[[Path, Path | None], LaidOut]] = {
    "recbole": _read_recbole,
    "rectools": _read_rectools,
    "lenskit": _read_lenskit,
}
