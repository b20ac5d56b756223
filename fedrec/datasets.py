"""Datasets by name, and from tables of your own: prepared once, then opened."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import polars as pl

from fedrec import console
from fedrec.data.check import Check, check_tables
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.manifest import MANIFEST
from fedrec.data.moments import Moment
from fedrec.data.popularity import COUNTED
from fedrec.data.prepare import prepare, prepare_tables
from fedrec.data.readers.download import compute_md5
from fedrec.data.readers.layouts import read_layout
from fedrec.data.readers.lines import TextFormat
from fedrec.data.readers.rules import Rules
from fedrec.data.readers.source import Source
from fedrec.data.readers.sources import SOURCES, source_named
from fedrec.data.readers.tables import Tables
from fedrec.data.split import LEAVE_ONE_OUT, PUBLISHED, Split, SplitOptions
from fedrec.data.storage.names import plain_name
from fedrec.data.user_salts import SaltRule

PREPARED = Path("var/prepared")
"""The folder of prepared datasets, below the working folder."""

SplitName = Literal["published", "leave-one-out", "ratio", "global-time", "cold-items"]
"""What is held out: each user's last two events, a share of them, the events after two moments, or some items
altogether. `published`: as the dataset's publisher holds out; leave-one-out if nobody published a split."""

LayoutName = Literal["recbole", "rectools", "lenskit"]
"""The libraries whose layouts of datasets are read."""

Table = str | Path | pl.DataFrame
"""A CSV, JSON lines or parquet file, or a frame."""


def load_dataset(
    name: str | Path,
    source: str | Path | None = None,
    *,
    text: Sequence[str] = (),
    split: SplitName = PUBLISHED,
    cold_share: float | None = None,
    held_out_share: float | None = None,
    validation_from: Moment | None = None,
    test_from: Moment | None = None,
    min_rating: float | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    min_events: int | None = None,
    max_events: int | None = None,
    user_core: int | None = None,
    item_core: int | None = None,
    popularity: bool = True,
    strict: bool = False,
    out: str | Path | None = None,
    rebuild: bool = False,
) -> Dataset:
    """Open a dataset, and prepare it first if that was not done before.

        films = fedrec.load_dataset("ml-100k")
        later = fedrec.load_dataset("ml-100k", split="global-time")
        liked = fedrec.load_dataset("ml-1m", min_rating=4, user_core=5, item_core=5)
        mine = fedrec.load_dataset("var/prepared/mine")

    `name` is one of `fedrec data list`, or the path of a prepared folder. A dataset by name is downloaded, or read from
    `source`, your zip or folder of it, and written to `out`, by default `var/prepared/NAME`. A folder there that was
    prepared with the same settings is opened as it is, unless `rebuild` is true. The other settings are those of
    `fedrec data prepare`; filters that are not given are the dataset's own. Raises `InputError`.
    """
    if not rebuild and _is_path(name):
        return Dataset.open(Path(name))
    options = SplitOptions(split, cold_share, held_out_share, validation_from, test_from)
    filters = {
        **{"min_rating": min_rating, "since": since, "until": until, "min_events": min_events},
        **{"max_events": max_events, "user_core": user_core, "item_core": item_core},
    }
    given = {field: value for field, value in filters.items() if value is not None}
    wanted = source_named(str(name))
    rules = replace(wanted.rules, popularity=popularity, strict=strict, **given)
    wanted = replace(wanted, split=options.choose(wanted.split), texts=tuple(text), rules=rules)
    folder = Path(out or PREPARED / f"{wanted.folder_name}{wanted.split.suffix}")
    copy = Path(source) if source else None
    if not rebuild and (dataset := _prepared_before(folder, wanted, copy)):
        console.status(f"{folder} was prepared before, with these settings")
        return dataset
    with console.counting(f"fetching {name}", download=True) as progress:
        prepare(wanted, folder, copy, progress, console.warn)
    return Dataset.open(folder)


def import_dataset(
    interactions: Table,
    items: Table | None = None,
    *,
    name: str,
    layout: LayoutName | None = None,
    user_column: str = "user_id",
    item_column: str = "item_id",
    items_id_column: str | None = None,
    time_column: str = "timestamp",
    no_times: bool = False,
    text_columns: Sequence[str] = (),
    event_column: str | None = None,
    keep_events: Sequence[str] = (),
    rating_column: str = "rating",
    min_rating: float | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    keep_repeats: bool = False,
    min_events: int = 3,
    max_events: int | None = None,
    user_core: int = 0,
    item_core: int = 0,
    split: SplitName = "leave-one-out",
    cold_share: float | None = None,
    held_out_share: float | None = None,
    validation_from: Moment | None = None,
    test_from: Moment | None = None,
    separator: str | None = None,
    encoding: str = "utf-8",
    quote: str = '"',
    bad_rows: float = 0.01,
    popularity: bool = True,
    salts: SaltRule = "random",
    strict: bool = False,
    out: str | Path | None = None,
) -> Dataset:
    """Prepare your own tables: a table of interactions, and one that describes the items if you have it.

        shop = fedrec.import_dataset("orders.csv", items="products.parquet", name="shop", user_column="customer")

    Tables are files (CSV, JSON lines, parquet) or polars frames. With a `layout`, `interactions` is the path of a
    dataset that another library reads, with that library's names of columns: docs/exports.md. The settings are those
    of `fedrec data import`; docs/your-data.md explains them. The dataset is written to `out`, by default
    `var/prepared/NAME`, in place of an earlier one. Raises `InputError`.
    """
    interactions, items, settings = _resolve_layout(interactions, items, locals())
    plan = _plan_import(settings)
    with _as_file(interactions, "interactions") as events, _as_file(items, "items") as described:
        assert events
        tables = replace(plan.tables, interactions=events, items=described)
        prepare_tables(tables, plan.folder, name, plan.split, plan.rules, console.warn)
    return Dataset.open(plan.folder)


def check_import(interactions: Table, items: Table | None = None, **settings: Any) -> Check:
    """Check your own tables and write nothing: what `import_dataset` with the same settings would refuse or leave out.

    Raises `InputError` for settings that no table can have.
    """
    if unknown := settings.keys() - _import_defaults().keys() - {"name"}:
        raise TypeError(f"import_dataset() has no setting {sorted(unknown)[0]!r}")
    settings = {"name": "shop"} | _import_defaults() | settings
    interactions, items, settings = _resolve_layout(interactions, items, settings)
    plan = _plan_import(settings)
    with _as_file(interactions, "interactions") as events, _as_file(items, "items") as described:
        assert events
        tables = replace(plan.tables, interactions=events, items=described)
        return check_tables(tables, plan.name, plan.split, plan.rules)


def _import_defaults() -> dict[str, Any]:
    """Return the settings of `import_dataset` that have a default."""
    return import_dataset.__kwdefaults__ or {}


@dataclass(frozen=True)
class _ImportPlan:
    """An import without its files: where to, and by which columns, split and rules."""

    name: str
    folder: Path
    tables: Tables
    split: Split
    rules: Rules


def _plan_import(settings: Mapping[str, Any]) -> _ImportPlan:
    """Sort the settings of `import_dataset`. Raises `InputError` for one that is not possible."""
    name = plain_name(settings["name"], "`name`")
    text_format = TextFormat(*(settings[field.name] for field in fields(TextFormat)))
    tables = Tables(
        *(Path(), None, settings["user_column"], settings["item_column"], settings["time_column"]),
        tuple(settings["text_columns"]),
        items_id=settings["items_id_column"],
        text_format=text_format,
    )
    same = {field.name: settings[field.name] for field in fields(Rules) if field.name in settings}
    rules = Rules(**same | {"keep_events": tuple(settings["keep_events"]), "times": not settings["no_times"]})
    options = SplitOptions(settings["split"], *(settings[field.name] for field in fields(SplitOptions)[1:]))
    split = options.choose(LEAVE_ONE_OUT).with_repeats(settings["keep_repeats"])
    return _ImportPlan(name, Path(settings["out"] or PREPARED / name), tables, split, rules)


def _resolve_layout(
    interactions: Table, items: Table | None, settings: dict[str, Any]
) -> tuple[Table, Table | None, dict[str, Any]]:
    """Read tables in the layout of another library, if the settings name one, which may have no times.

    Raises `InputError` if they are given as frames.
    """
    layout = settings["layout"]
    if not layout:
        return interactions, items, settings
    if isinstance(interactions, pl.DataFrame) or isinstance(items, pl.DataFrame):
        raise InputError(f"`layout` = {layout}: give the path of the dataset, not a frame")
    events, described = read_layout(layout, Path(interactions), Path(items) if items else None)
    return events, described, {**settings, "no_times": settings["no_times"] or "timestamp" not in events.columns}


def _is_path(name: str | Path) -> bool:
    """Return whether `name` is a prepared folder's path, and no dataset's name."""
    return isinstance(name, Path) or (name not in SOURCES and ("/" in name or Path(name).is_dir()))


def _prepared_before(folder: Path, wanted: Source, copy: Path | None) -> Dataset | None:
    """Open a folder if it holds this dataset, prepared with the same settings from the same file."""
    if not (folder / MANIFEST).is_file() or (copy and not copy.is_file()):
        return None
    dataset = Dataset.open(folder)
    manifest = dataset.manifest
    same = (
        manifest["name"] == wanted.name + wanted.split.suffix
        and manifest.get("split_asked", manifest["split_rule"]) == wanted.split.as_record()
        and Rules.from_manifest(manifest).as_record() == wanted.rules.as_record()
        and manifest["min_events"] == wanted.rules.min_events
        and tuple(manifest.get("text_columns", ())) == wanted.texts
        and (manifest.get("popularity") == COUNTED) == wanted.rules.popularity
        and (copy is None or manifest.get("source_md5") == compute_md5(copy))
    )
    return dataset if same else None


@contextmanager
def _as_file(table: Table | None, name: str) -> Iterator[Path | None]:
    """Yield the path of a table; a frame is written to a temporary file for as long as it is read."""
    if not isinstance(table, pl.DataFrame):
        yield None if table is None else Path(table)
        return
    with TemporaryDirectory(prefix="fedrec-") as folder:
        table.write_parquet(path := Path(folder) / f"{name}.parquet")
        yield path
