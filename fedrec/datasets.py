"""Datasets by name, and from tables of your own: prepared once, then opened."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import polars as pl

from fedrec import console
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.manifest import MANIFEST
from fedrec.data.popularity import COUNTED
from fedrec.data.prepare import prepare, prepare_tables
from fedrec.data.readers.download import compute_md5
from fedrec.data.readers.layouts import LaidOut, read_layout
from fedrec.data.readers.lines import TextFormat
from fedrec.data.readers.rules import Rules
from fedrec.data.readers.sources import SOURCES, Source, source_named
from fedrec.data.readers.tables import Tables
from fedrec.data.split import LEAVE_ONE_OUT, RULES, Split, named_split
from fedrec.data.storage.names import plain_name
from fedrec.data.user_salts import SaltRule

PREPARED = Path("var/prepared")
"""The folder of prepared datasets, below the working folder."""

SplitName = Literal["leave-one-out", "cold-items"]
"""What is held out: each user's last two events, or some items altogether."""

LayoutName = Literal["recbole", "rectools", "lenskit"]
"""The libraries whose layouts of datasets are read."""

Table = str | Path | pl.DataFrame
"""A CSV, JSON lines or parquet file, or a frame."""


def load_dataset(
    name: str | Path,
    source: str | Path | None = None,
    *,
    text: Sequence[str] = (),
    split: SplitName = "leave-one-out",
    cold_share: float | None = None,
    popularity: bool = True,
    strict: bool = False,
    out: str | Path | None = None,
    rebuild: bool = False,
) -> Dataset:
    """Open a dataset, and prepare it first if that was not done before.

        films = fedrec.load_dataset("ml-100k")
        cold = fedrec.load_dataset("ml-100k", split="cold-items")
        mine = fedrec.load_dataset("var/prepared/mine")

    `name` is one of `fedrec data list`, or the path of a prepared folder. A dataset by name is downloaded, or read from
    `source`, your zip or folder of it, and written to `out`, by default `var/prepared/NAME`. A folder there that was
    prepared with the same settings is opened as it is, unless `rebuild` is true. The other settings are those of
    `fedrec data prepare`. Raises `InputError`.
    """
    if not rebuild and _is_path(name):
        return Dataset.open(Path(name))
    rules = Rules(popularity=popularity, strict=strict)
    wanted = source_named(str(name))
    wanted = replace(wanted, split=_split(split, cold_share, wanted.split), texts=tuple(text), rules=rules)
    folder = Path(out or PREPARED / f"{name}{wanted.split.suffix}")
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
    keep_repeats: bool = False,
    min_events: int = 3,
    max_events: int | None = None,
    split: SplitName = "leave-one-out",
    cold_share: float | None = None,
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
    folder = Path(out or PREPARED / plain_name(name, "`name`"))
    if layout:
        interactions, items = _read_laid_out(layout, interactions, items)
        no_times = no_times or "timestamp" not in interactions.columns
    text_format = TextFormat(separator, encoding, quote, bad_rows)
    rules = Rules(
        *(min_events, max_events, event_column, tuple(keep_events)),
        times=not no_times,
        popularity=popularity,
        strict=strict,
        salts=salts,
    )
    rule = _split(split, cold_share, LEAVE_ONE_OUT).with_repeats(keep_repeats)
    with _as_file(interactions, "interactions") as events, _as_file(items, "items") as described:
        assert events
        tables = Tables(
            *(events, described, user_column, item_column, time_column, tuple(text_columns)),
            items_id=items_id_column,
            text_format=text_format,
        )
        prepare_tables(tables, folder, name, rule, rules, console.warn)
    return Dataset.open(folder)


def _read_laid_out(layout: str, interactions: Table, items: Table | None) -> LaidOut:
    """Read a dataset in the layout of another library. Raises `InputError` if it is given as a frame."""
    if isinstance(interactions, pl.DataFrame) or isinstance(items, pl.DataFrame):
        raise InputError(f"`layout` = {layout}: give the path of the dataset, not a frame")
    return read_layout(layout, Path(interactions), Path(items) if items else None)


def _is_path(name: str | Path) -> bool:
    """Return whether `name` is a prepared folder's path, and no dataset's name."""
    return isinstance(name, Path) or (name not in SOURCES and ("/" in name or Path(name).is_dir()))


def _split(split: str, cold_share: float | None, published: Split) -> Split:
    if split not in RULES:
        raise InputError(f"`split` = {split!r} is not known; choose {' or '.join(RULES)}")
    return named_split(split, cold_share, published)


def _prepared_before(folder: Path, wanted: Source, copy: Path | None) -> Dataset | None:
    """Open a folder if it holds this dataset, prepared with the same settings from the same file."""
    if not (folder / MANIFEST).is_file() or (copy and not copy.is_file()):
        return None
    dataset = Dataset.open(folder)
    manifest = dataset.manifest
    same = (
        manifest["name"] == wanted.name + wanted.split.suffix
        and dataset.split == wanted.split
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
