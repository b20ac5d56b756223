"""Tables → a prepared folder: the public catalogue, the private shard, and the manifest."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.fingerprint import save_key
from fedrec.data.histories import build_histories, build_shard, catalogue_rows
from fedrec.data.ids import distinct_ids
from fedrec.data.manifest import PREPARED, Manifest, copy_node_files, shard_counts, write_manifest
from fedrec.data.moments import find_range
from fedrec.data.popularity import COUNTED, count_users_per_item, popularity_source
from fedrec.data.progress import Progress
from fedrec.data.readers.download import compute_md5, download
from fedrec.data.readers.filter import (
    drop_long_users,
    filter_events,
    keep_core,
    report_repeats,
    report_undescribed,
    select_users,
)
from fedrec.data.readers.raw import Frames, Root, open_root
from fedrec.data.readers.reading_report import ReadingReport, shorten
from fedrec.data.readers.recbole import holds_atomic
from fedrec.data.readers.rules import DEFAULT_RULES, Rules
from fedrec.data.readers.source import Size, Source
from fedrec.data.readers.tables import Tables, read_tables
from fedrec.data.shard import Shard
from fedrec.data.split import LEAVE_ONE_OUT, Split
from fedrec.data.storage.atomic_files import check_place, replaced_folder
from fedrec.data.storage.names import plain_name
from fedrec.data.user_ids import save_user_ids
from fedrec.data.user_salts import salt_source

RAW = Path("var/raw")
"""The folder of downloads, below the working folder."""


@dataclass(frozen=True)
class Origin:
    """The provenance of a dataset's tables."""

    source: str = "given"
    md5: str | None = None
    citation: str = ""
    published: str | None = None  # the dataset's name, if anyone can have its histories


UNKNOWN_ORIGIN = Origin()

NO_DATES = (
    "times are no dates: if they are places in each user's history, as in some published splits, global-time is no "
    "split by time"
)
NO_TEXTS = (
    "no item has a text, so there is nothing to encode; `fedrec train DATA --set method=closed-form "
    "--set features=ids` learns from ids alone"
)


def prepare(source: Source, out: Path, given: Path | None, progress: Progress, warn: Callable[[str], None]) -> Manifest:
    """Prepare a dataset by name into `out`, from `given` (a zip or folder) or from its publisher.

    Raises `InputError`, and then leaves `out` as it was.
    """
    check_place(out, PREPARED.check)
    if source.by_hand and not given:
        raise InputError(
            f"{source.name} cannot be fetched: {source.by_hand} ({source.publisher.citation}); pass your zip or folder "
            "with `source`"
        )
    path = given or (download(source, RAW, progress) if source.url else Path())
    md5 = compute_md5(path) if path.is_file() else None
    report = ReadingReport(warn, source.rules.strict)
    root = open_root(path, warn, report)
    published = source.name
    if given and source.md5 and md5 and md5 != source.md5:
        published = published if holds_atomic(root, source.name) else None
        warn(f"{given} {_checksum_warning(source, root, md5)}; going on with your copy")
    frames = source.read(root)
    if source.texts:
        frames = _rebuild_text(frames, source.texts)
    manifest = write_dataset(
        frames,
        out,
        name=source.name + source.split.suffix,
        origin=Origin(given.name if given else source.url or "generated", md5, source.publisher.citation, published),
        split=source.split,
        texts=source.texts,
        rules=source.rules,
        report=report,
    )
    if warning := source.check_size(Size(manifest.users, manifest.items, manifest.interactions)):
        warn(warning)
    return manifest


def _rebuild_text(frames: Frames, columns: tuple[str, ...]) -> Frames:
    """Rebuild each item's text from these columns, in their order; fall back to the title if all are empty."""
    items = frames.items
    if unknown := [column for column in columns if column not in items.columns]:
        known = ", ".join(column for column in items.columns if column not in ("item_id", "text"))
        raise InputError(f"`text`: {unknown[0]!r} is no column of the items; choose from {known}")
    parts = [pl.col(c).cast(pl.String).str.replace_all("|", ", ", literal=True).replace("", None) for c in columns]
    text = pl.concat_str(parts, separator=". ", ignore_nulls=True)
    return frames._replace(items=items.with_columns(text=pl.when(text == "").then(pl.col("title")).otherwise(text)))


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
    plain_name(name, "`name`")
    check_place(out, PREPARED.check)
    path, report = tables.interactions, ReadingReport(warn, rules.strict)
    frames = read_tables(tables, rules, report)
    origin = Origin(path.name, compute_md5(path))
    return write_dataset(frames, out, name=name, origin=origin, split=split, rules=rules, report=report)


def write_dataset(
    frames: Frames,
    out: Path,
    *,
    name: str,
    origin: Origin = UNKNOWN_ORIGIN,
    split: Split = LEAVE_ONE_OUT,
    texts: tuple[str, ...] = (),
    rules: Rules = DEFAULT_RULES,
    report: ReadingReport | None = None,
) -> Manifest:
    """Build histories and catalogue from frames, and write them into `out`; nothing is written before `report` is.

    The users' salts are random, and kept from the folder before, unless `rules` want them by id. Those of a published
    dataset are always derived from ids, so that its model is the same on every machine: its histories are no secret,
    but over real nodes the server could tell its users' tickets. Raises `InputError` if the rules or the split leave no
    user to train and test on.
    """
    report = report or ReadingReport(strict=rules.strict)
    salt = salt_source("by-id" if origin.published else rules.salts, out, report.add_remark)
    built = build_dataset(
        frames, name=name, origin=origin, split=split, texts=texts, rules=rules, report=report, salt=salt
    )
    with replaced_folder(out, PREPARED.check) as folder:
        Catalogue(built.items).save(folder)
        built.shard.save(folder)
        save_user_ids(folder, built.users)
        save_key(folder, origin.published, before=out)
        copy_node_files(out, folder)
        write_manifest(folder, built.manifest)
    return built.manifest


class BuiltDataset(NamedTuple):
    """The parts of a prepared folder, before they are written."""

    manifest: Manifest
    items: pl.DataFrame
    users: pl.Series
    shard: Shard


def build_dataset(
    frames: Frames,
    *,
    name: str,
    origin: Origin = UNKNOWN_ORIGIN,
    split: Split,
    texts: tuple[str, ...] = (),
    rules: Rules,
    report: ReadingReport,
    salt: Callable[[str], int],
) -> BuiltDataset:
    """Build histories and catalogue from frames. Raises `InputError` as `write_dataset` does."""
    # histories
    read = len(frames.interactions)
    frames = frames._replace(interactions=filter_events(frames.interactions, rules, report))
    asked, split = split, split.at_moments_of(frames.interactions["timestamp"])
    frames = frames._replace(items=split.mark_cold_items(_add_undescribed(frames, report)))
    ids, shard, items = _build_histories(frames, split, rules, report, salt)
    catalogue = Catalogue(items)
    if split.time_cuts and not isinstance(split.time_cuts.validation_from, str):
        report.add_remark(NO_DATES)
    if (items["text"] == items["item_id"]).all():
        report.add_remark(NO_TEXTS)
    report.finish()
    _check_ranked(name, shard, split, rules)
    # the catalogue
    popularity = popularity_source(items, rules.popularity)
    if popularity == COUNTED:
        items = items.with_columns(count_users_per_item(shard, len(items), split.repeats))
    counts: dict[str, Any] = {**shard_counts(shard), **_NOTHING_READ, "events_read": read, **report.counts}
    manifest = Manifest(
        name=name,
        **counts,
        time_range=find_range(frames.interactions["timestamp"]) if rules.times else None,
        steps=report.states,
        items=len(catalogue),
        popularity=popularity,
        cold_items=int(items["cold"].sum()) if split.cold_share else 0,
        min_events=rules.min_events,
        rules=rules.as_record(),
        split=split.description,
        split_rule=split.as_record(),
        split_asked=asked.as_record(),
        catalogue_fingerprint=catalogue.fingerprint,
        source=origin.source,
        source_md5=origin.md5,
        citation=origin.citation,
        text_columns=list(texts),
    )
    return BuiltDataset(manifest, items, ids, shard)


_NOTHING_READ = dict.fromkeys(
    (
        *("bad_rows", "other_events_dropped", "rating_dropped", "dates_dropped"),
        *("items_without_text", "bad_item_rows", "item_columns_dropped"),
    ),
    0,
)
"""Counts of steps that not every dataset needs."""


def _build_histories(
    frames: Frames, split: Split, rules: Rules, report: ReadingReport, salt: Callable[[str], int]
) -> tuple[pl.Series, Shard, pl.DataFrame]:
    """Build the histories that the rules select, cut by the split: the users' ids, their shard, and the items."""
    # repeats, bots, the core
    events, items = frames.interactions, frames.items
    rows = catalogue_rows(events["item_id"], items["item_id"])
    histories = build_histories(events, rows, split.repeats, times=split.time_cuts is not None)
    report_repeats(events, histories, report)
    histories, items = keep_core(drop_long_users(histories, rules, report), items, rules, report)
    # the split, and the users who have enough events for it
    cut = split.cut_histories(histories, items)
    selected = select_users(histories, cut, rules, report)
    report.add_state(f"users of at least {rules.min_events} events", *histories.keep_users(selected).counts)
    ids, shard = build_shard(cut, selected, salt)
    dropped = int(histories.lengths[selected].sum()) - shard_counts(shard)["interactions"]
    line = f"events that the split leaves out: {dropped:,} of {len(events):,}"
    report.add_step("split_dropped", dropped, line, requested=True)
    report.add_state(f"split: {split.rule}", *cut.keep_users(selected).counts)
    return ids, shard, items


def _check_ranked(name: str, shard: Shard, split: Split, rules: Rules) -> None:
    """Raise `InputError` if a split has no user with a held-out item."""
    empty = [part for part in ("validation", "test") if not len(shard.ranked(range(len(shard)), part))]
    if not empty:
        return
    needed = "events with two cold items after a training event" if split.cold_share else f"{rules.min_events} events"
    if split.time_cuts and len(shard):
        needed = f"a {empty[0]} event by {vars(split.time_cuts)} after one to train on"
    raise InputError(f"{name}: no user has {needed}; there is nothing to train and test on")


def _add_undescribed(frames: Frames, report: ReadingReport) -> pl.DataFrame:
    """Return the items, one row each, with those that occur without a description: their id stands for it."""
    items = frames.items.unique("item_id", keep="first", maintain_order=True)
    repeated = frames.items.filter(~pl.col("item_id").is_first_distinct())["item_id"]
    line = f"items described again, where the first description is kept: {len(repeated):,} of {len(frames.items):,}"
    report.add_step("items_described_twice", len(repeated), f"{line} rows; one is {shorten(repeated.first())}")
    occurring = pl.DataFrame({"item_id": distinct_ids(frames.interactions["item_id"])})
    undescribed = occurring.join(items, on="item_id", how="anti", maintain_order="left")
    report_undescribed(undescribed["item_id"], len(occurring), items["item_id"], report)
    named = undescribed.with_columns(title=pl.col("item_id"), text=pl.col("item_id"))
    return pl.concat([items, named], how="diagonal")
