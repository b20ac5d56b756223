"""Frames → a prepared folder: the public catalogue, one private shard, and a manifest that says how it was made."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fedrec.data.catalogue import FILE as CATALOGUE
from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.fingerprint import FILE as KEY
from fedrec.data.fingerprint import save_key
from fedrec.data.histories import Histories, histories
from fedrec.data.popularity import COUNTED, counted, popularity_from
from fedrec.data.progress import Progress
from fedrec.data.randomness import salt_of
from fedrec.data.readers.download import download, md5_of
from fedrec.data.readers.filter import kept_users, note_repeats, note_undescribed
from fedrec.data.readers.raw import Frames, Root, open_root
from fedrec.data.readers.reading_report import Account, shortened
from fedrec.data.readers.recbole import holds_atomic
from fedrec.data.readers.rules import DEFAULT_RULES, Rules
from fedrec.data.readers.sources import Source
from fedrec.data.readers.tables import Tables, read_tables
from fedrec.data.shard import FILES, Shard
from fedrec.data.split import LEAVE_ONE_OUT, Split
from fedrec.data.storage.atomic_files import check_place, replaced_folder
from fedrec.data.storage.contents import Contents
from fedrec.data.storage.names import plain_name
from fedrec.data.storage.reading import read_json, require
from fedrec.data.storage.swap import is_unfinished
from fedrec.data.user_ids import FILE as PEOPLE
from fedrec.data.user_ids import save_people

MANIFEST = "manifest.json"
RAW = Path("var/raw")
"""Where downloads are kept, below the working folder."""

CLIENT_STATE = "keep"
"""In a node's folder: what its users' clients keep from round to round, which goes along when it is made anew."""

PREPARED = Contents(
    "prepared dataset",
    MANIFEST,
    (MANIFEST, CATALOGUE, "embeddings-*.safetensors", *FILES, PEOPLE, KEY, f"{CLIENT_STATE}/part-*-of-*.pt"),
)


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder holds and how it came to be."""

    name: str
    users: int
    items: int
    interactions: int  # training events and held-out items
    events_read: int  # rows of interactions, the bad ones too
    bad_rows: int  # of them, without an id, without a time, or broken
    other_events_dropped: int  # of kinds that do not count
    repeats_dropped: int  # later events of a user with an item that the user already has
    short_users_dropped: int  # users with fewer than `min_events` events, or none to train on
    long_users_dropped: int  # users with more than `max_events`
    split_dropped: int  # events of the users kept that a split by cold items leaves out
    training_only_users: int  # users without held-out items
    items_without_description: int  # items that occur and are known by their id alone
    items_without_text: int  # items described by nothing but an id
    items_described_twice: int  # later rows of an item that is described already
    bad_item_rows: int  # rows of the items table without an id, or broken
    item_columns_dropped: int  # of the items table
    popularity: str  # the catalogue's column: "counted" from training events, "given" by the items table, or "none"
    cold_items: int
    min_events: int
    rules: dict[str, Any]  # by which a node reads its own table, too
    split: str  # in words
    split_rule: dict[str, Any]  # as data
    catalogue_fingerprint: str
    source: str
    source_md5: str | None
    citation: str
    text_columns: list[str]  # of the items, which their text was made of; none: the reader's own choice


def prepare(source: Source, out: Path, given: Path | None, progress: Progress, warn: Callable[[str], None]) -> Manifest:
    """Prepare a dataset by name into `out`, from `given` (a zip or folder) or from its publisher.

    Raises `InputError`, and then leaves `out` as it was.
    """
    check_place(out, PREPARED.check)
    if source.by_hand and not given:
        raise InputError(f"{source.name} cannot be fetched: {source.by_hand}; pass your zip or folder with --source")
    path = given or (download(source, RAW, progress) if source.url else Path())
    md5 = md5_of(path) if path.is_file() else None
    root = open_root(path, warn)
    published = source.name
    if given and source.md5 and md5 and md5 != source.md5:
        published = published if holds_atomic(root, source.name) else None
        warn(f"{given} {_checksum_warning(source, root, md5)}; going on with your copy")
    frames = source.read(root)
    if source.texts:
        frames = _rebuild_text(frames, source.texts)
    origin = given.name if given else source.url or "generated"
    return write_dataset(
        frames,
        out,
        name=source.name + source.split.suffix,
        source=origin,
        md5=md5,
        citation=source.citation,
        split=source.split,
        texts=source.texts,
        rules=source.rules,
        account=Account(warn, source.rules.strict),
        published=published,
    )


def _rebuild_text(frames: Frames, columns: tuple[str, ...]) -> Frames:
    """The frames, the items' text made anew of these columns in their order; an item that has none has its title."""
    items = frames.items
    if unknown := [column for column in columns if column not in items.columns]:
        there = ", ".join(column for column in items.columns if column not in ("item_id", "text"))
        raise InputError(f"--text: {unknown[0]!r} is no column of the items; choose from {there}")
    parts = [pl.col(c).cast(pl.String).str.replace_all("|", ", ", literal=True).replace("", None) for c in columns]
    text = pl.concat_str(parts, separator=". ", ignore_nulls=True)
    told = items.with_columns(text=pl.when(text == "").then(pl.col("title")).otherwise(text))
    return frames._replace(items=told)


def _checksum_warning(source: Source, root: Root, md5: str) -> str:
    if holds_atomic(root, source.name):
        return "holds RecBole's copy, another layout than the publisher's: there is no MD5 to check it by"
    return f"has MD5 {md5}, not the publisher's {source.md5}"


def prepare_tables(
    tables: Tables,
    out: Path,
    name: str,
    split: Split = LEAVE_ONE_OUT,
    rules: Rules = DEFAULT_RULES,
    warn: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Prepare anyone's own tables into `out`. Raises `InputError`, and then leaves `out` as it was."""
    plain_name(name, "--name")
    check_place(out, PREPARED.check)
    path, account = tables.interactions, Account(warn, rules.strict)
    frames = read_tables(tables, rules, account)
    md5 = md5_of(path)
    return write_dataset(frames, out, name=name, source=path.name, md5=md5, split=split, rules=rules, account=account)


def write_dataset(
    frames: Frames,
    out: Path,
    *,
    name: str,
    source: str = "given",
    md5: str | None = None,
    citation: str = "",
    split: Split = LEAVE_ONE_OUT,
    texts: tuple[str, ...] = (),
    rules: Rules = DEFAULT_RULES,
    account: Account | None = None,
    published: str | None = None,
) -> Manifest:
    """Filter, order and write frames; each step is told in the account before anything is written.

    `published` is the dataset's name if anyone can have its histories. Raises `InputError`.
    """
    account = account or Account(strict=rules.strict)
    items = split.marked(_with_undescribed(frames, account))
    catalogue = Catalogue(items)
    events = frames.interactions
    found = histories(events, rows_of(events["item_id"], items["item_id"]), split.repeats)
    note_repeats(events, found, account)
    divided = split.divided(found, items)
    kept = kept_users(found, divided, rules, account)
    ids, shard = shard_of(divided, kept, salt_of)
    counts = counts_of(shard)
    left_out = int(found.lengths[kept].sum()) - counts["interactions"]
    account.note(
        "split_dropped", left_out, f"events that the split leaves out: {left_out:,} of {len(events):,}", asked=True
    )
    account.settle()
    if counts["training_only_users"] == len(shard):
        wanted = (
            "events with two cold items after a training event" if split.cold_share else f"{rules.min_events} events"
        )
        raise InputError(f"{name}: no user has {wanted}; there is nothing to train and test on")
    popularity = popularity_from(items, rules.popularity)
    if popularity == COUNTED:
        items = items.with_columns(counted(shard, len(items), split.repeats))
    manifest = Manifest(
        name=name,
        **counts,
        **_NOTHING_READ | {"events_read": len(events)} | account.counts,
        items=len(catalogue),
        popularity=popularity,
        cold_items=int(items["cold"].sum()) if split.cold_share else 0,
        min_events=rules.min_events,
        rules=rules.recorded(),
        split=split.description,
        split_rule=split.as_record(),
        catalogue_fingerprint=catalogue.fingerprint,
        source=source,
        source_md5=md5,
        citation=citation,
        text_columns=list(texts),
    )
    with replaced_folder(out, PREPARED.check) as folder:
        Catalogue(items).save(folder)
        shard.save(folder)
        save_people(folder, ids)
        save_key(folder, published, before=out)
        keep_along(out, folder)
        (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n", "utf-8")
    return manifest


_OF_TABLES = ("bad_rows", "other_events_dropped", "items_without_text", "bad_item_rows", "item_columns_dropped")
_NOTHING_READ = dict.fromkeys(_OF_TABLES, 0)
"""Steps of reading tables, which published datasets do not take."""


def keep_along(old: Path, new: Path) -> None:
    """Copy what a folder's clients keep from round to round into the folder that takes its place."""
    if (old / CLIENT_STATE).is_dir():
        shutil.copytree(old / CLIENT_STATE, new / CLIENT_STATE, ignore=shutil.ignore_patterns(".*"))


def counts_of(shard: Shard) -> dict[str, int]:
    """What a manifest tells of a shard's users."""
    only_train = len(shard) - len(shard.ranked(range(len(shard))))
    events = int((shard.ends - shard.starts).sum()) - 2 * only_train  # who only trains has nothing in two places
    return {"users": len(shard), "interactions": events, "training_only_users": only_train}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises `InputError` where `folder` is not a prepared dataset."""
    path, remedy = folder / MANIFEST, "prepare the data again"
    try:
        manifest = read_json(path, remedy)
    except (FileNotFoundError, NotADirectoryError) as error:
        if is_unfinished(folder.resolve()):
            raise InputError(
                f"{folder} is being replaced; try again, or prepare it again if its writer was killed"
            ) from error
        raise InputError(
            f"{folder} is not a prepared dataset ({MANIFEST} is missing); make one with `fedrec data prepare NAME`"
        ) from error
    require(manifest, _TOLD, path, remedy)
    return manifest | {"split_rule": Split.from_record(manifest, str(path)).as_record()}


_TOLD = {"name": str, "items": int, "min_events": int, "split": str, "catalogue_fingerprint": str, "citation": str}
"""What every prepared folder tells, a federation's public one too."""


def _with_undescribed(frames: Frames, account: Account) -> pl.DataFrame:
    """Items that occur but are not described still belong to the catalogue: their id is all that is known."""
    items = frames.items.unique("item_id", keep="first", maintain_order=True)
    twice = frames.items.filter(~pl.col("item_id").is_first_distinct())["item_id"]
    line = f"items described again, where the first description is kept: {len(twice):,} of {len(frames.items):,} rows"
    account.note("items_described_twice", len(twice), f"{line}; one is {shortened(twice.first())}")
    ids = frames.interactions["item_id"]
    occurring = pl.DataFrame({"item_id": ids[ids.hash().arg_unique()]})
    unknown = occurring.join(items, on="item_id", how="anti", maintain_order="left")
    note_undescribed(unknown["item_id"], len(occurring), items["item_id"], account)
    named = unknown.with_columns(title=pl.col("item_id"), text=pl.col("item_id"))
    return pl.concat([items, named], how="diagonal")


def rows_of(ids: pl.Series, catalogue: pl.Series) -> np.ndarray:
    """Where each id stands in the catalogue, which holds them all: (T,). Ids, too, are told apart by their hashes."""
    rows = pl.DataFrame({"hash": catalogue.hash()}).with_row_index("row")
    return pl.DataFrame({"hash": ids.hash()}).join(rows, on="hash", how="left", maintain_order="left")["row"].to_numpy()


def shard_of(found: Histories, kept: np.ndarray, salt: Callable[[str], int]) -> tuple[pl.Series, Shard]:
    """The users to keep, in the order of their ids: the ids, and their histories."""
    users = found.users.arg_sort().to_numpy()
    users = users[kept[users]]
    ids = found.users[users]
    salts = np.fromiter(map(salt, ids.to_list()), dtype=np.uint64, count=len(users))
    ends = np.cumsum(found.lengths)[users]
    return ids, Shard(ends - found.lengths[users], ends, found.items, salts)
