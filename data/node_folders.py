"""The folders of a federation: a public one for the server, and one for each node with its own users alone.

Each is a prepared folder by itself, and needs no other. Only its owner can read its private part.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from fedrec.data.catalogue import FILE as CATALOGUE
from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.fingerprint import save_key
from fedrec.data.histories import build_histories, build_shard, catalogue_rows
from fedrec.data.manifest import ITEM_VECTORS, PREPARED, copy_node_files, read_manifest, shard_counts, write_manifest
from fedrec.data.partition import UserPartition
from fedrec.data.popularity import COUNTED, NONE, POPULARITY
from fedrec.data.readers.filter import drop_long_users, filter_events, report_repeats, select_users
from fedrec.data.readers.reading_report import ReadingReport, shorten
from fedrec.data.readers.rules import Rules
from fedrec.data.readers.tables import Tables, read_tables
from fedrec.data.shard import FOLDER, Shard
from fedrec.data.split import Split
from fedrec.data.storage.atomic_files import check_place, replaced_folder
from fedrec.data.storage.contents import refuse_occupied
from fedrec.data.user_ids import FILE as USER_IDS
from fedrec.data.user_ids import save_user_ids
from fedrec.data.user_salts import salt_source, without_guessable

SERVER = "server"
NODE_FOLDER = replace(PREPARED, kind="node's folder", mark=USER_IDS)

USER_COUNTS = (
    *("users", "interactions", "training_only_users", "events_read", "bad_rows", "other_events_dropped"),
    *("rating_dropped", "dates_dropped", "repeats_dropped", "short_users_dropped", "long_users_dropped"),
    *("core_dropped", "split_dropped", "ranked_users", "time_range", "steps"),
)
"""The counts over all users in a dataset's manifest, which its federation's folders do not repeat."""


def partition_dataset(
    dataset: Dataset, out: Path, partitions: list[UserPartition], popularity: bool = True, keep_salts: bool = False
) -> list[Path]:
    """Write the folders of the server and of the nodes in one step; returns the nodes' folders.

    The catalogue in all of them keeps its counted popularity, unless `popularity` is False. Salts that were derived
    from ids are replaced by random ones, unless `keep_salts`: the model is then that of the whole dataset, to the bit,
    and a server that guesses ids knows whose tickets it sees. Raises `InputError` if `out` is not empty.
    """
    check_place(out, refuse_occupied)
    shard, ids = dataset.shard, dataset.users
    if not keep_salts:
        shard = replace(shard, salts=without_guessable(ids, shard.salts))
    if not popularity and dataset.manifest.get("popularity") == COUNTED:
        dataset = replace(dataset, manifest={**dataset.manifest, "popularity": NONE})
    names = [f"node-{number:0{len(str(len(partitions) - 1))}}" for number in range(len(partitions))]
    with replaced_folder(out, refuse_occupied) as folder:
        write_public_folder(dataset, folder / SERVER)
        for name, partition in zip(names, partitions, strict=True):
            write_node_folder(dataset, folder / name, shard.select(partition.users), ids[partition.users])
    return [out / name for name in names]


def write_public_folder(dataset: Dataset, folder: Path, counts: Mapping[str, int] | None = None) -> None:
    """Write the public part of a dataset: the catalogue, its cached embeddings if any, and the manifest.

    The manifest has the folder's own `counts` in place of the counts over all users.
    """
    folder.mkdir(exist_ok=True)
    vectors = (path for pattern in ITEM_VECTORS for path in sorted(dataset.folder.glob(pattern)))
    for path in [dataset.folder / CATALOGUE, *vectors]:
        shutil.copy2(path, folder)
    if dataset.manifest.get("popularity") == NONE:
        Catalogue(dataset.catalogue.frame.drop(POPULARITY, strict=False)).save(folder)
    public = {name: value for name, value in dataset.manifest.items() if name not in USER_COUNTS}
    write_manifest(folder, public | dict(counts or {}))


def write_node_folder(
    public: Dataset,
    folder: Path,
    shard: Shard,
    ids: pl.Series,
    steps: Mapping[str, int] | None = None,
    before: Path | None = None,
) -> None:
    """Write a node's folder: the public part, and the histories of its own users, readable by its owner alone.

    The manifest counts these users and, if their table was read here, the `steps` of reading it. The key for
    fingerprints is that of the folder `before`, which this folder replaces, or a new one.
    """
    write_public_folder(public, folder, shard_counts(shard) | dict(steps or {}))
    folder.chmod(0o700)
    shard.save(folder)
    save_user_ids(folder, ids)
    save_key(folder, before=before)
    for path in (folder / FOLDER).iterdir():
        path.chmod(0o600)


def prepare_node(
    public: Path, tables: Tables, out: Path, warn: Callable[[str], None], strict: bool = False
) -> dict[str, Any]:
    """Prepare a node's folder from its own table, by the rules of the public folder; returns the node's manifest.

    The users' salts are random, and are kept if the folder is prepared again with later events. Raises `InputError`
    if the table has no usable history, or if the public folder's split is by cold items.
    """
    dataset, report = Dataset.open(public), ReadingReport(warn, strict)
    split, rules = _split_by_own_events(dataset), Rules.from_manifest(dataset.manifest)
    rules = replace(rules, min_events=max(rules.min_events, rules.user_core))  # a core of items takes all nodes' events
    check_place(out, NODE_FOLDER.check)
    # events → histories
    events = filter_events(read_tables(tables, rules, report).interactions, rules, report)
    events = _with_known_items(events, dataset.catalogue, tables.interactions, report)
    rows = catalogue_rows(events["item_id"], dataset.catalogue.frame["item_id"])
    histories = build_histories(events, rows, split.repeats, times=split.time_cuts is not None)
    report_repeats(events, histories, report)
    histories = drop_long_users(histories, rules, report)
    cut = split.cut_histories(histories, dataset.catalogue.frame)
    selected = select_users(histories, cut, rules, report)
    report.finish()
    if not selected.any():
        raise InputError(
            f"{tables.interactions}: no user has {rules.min_events} events with items of the catalogue; "
            "there is nothing to train on"
        )
    # histories → folder
    ids, shard = build_shard(cut, selected, salt_source("random", out, warn))
    with replaced_folder(out, NODE_FOLDER.check) as folder:
        write_node_folder(dataset, folder, shard, ids, report.counts, before=out)
        copy_node_files(out, folder)
    return read_manifest(out)


def _with_known_items(events: pl.DataFrame, catalogue: Catalogue, path: Path, report: ReadingReport) -> pl.DataFrame:
    """Return the events with items of the catalogue. Raises `InputError` if there are none."""
    known = events["item_id"].is_in(catalogue.ids)
    unknown = events["item_id"].filter(~known)
    looks = f"its ids look like {shorten(unknown.first())}, the catalogue's like {shorten(catalogue.ids[0])}"
    if not known.any():
        raise InputError(f"{path}: none of its items is in the catalogue; {looks}")
    line = f"events of items that the catalogue lacks, left out: {len(unknown):,} of {len(events):,}; {looks}"
    report.add_step("unknown_events_dropped", len(unknown), line)
    return events.filter(known)


def _split_by_own_events(public: Dataset) -> Split:
    """Return the split of a federation's data. Raises `InputError` if a node cannot cut its own table by it."""
    if public.split.cold_share:
        raise InputError(
            f"a node's own table is split by its users' events alone; the catalogue's data are split by "
            f"{public.split.description}"
        )
    return public.split
