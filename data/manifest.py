"""A prepared folder: which files it holds, and the manifest that records how they were made."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.data.catalogue import FILE as CATALOGUE
from fedrec.data.errors import InputError
from fedrec.data.fingerprint import FILE as KEY
from fedrec.data.moments import Moment
from fedrec.data.readers.reading_report import State
from fedrec.data.shard import FILES, HELD, Shard
from fedrec.data.split import Split
from fedrec.data.storage.contents import Contents
from fedrec.data.storage.reading import read_json, require
from fedrec.data.storage.swap import is_unfinished
from fedrec.data.user_ids import FILE as USER_IDS

MANIFEST = "manifest.json"
CLIENT_STATE = "keep"
"""The folder, within a node's folder, of the state that its clients keep from round to round."""

NODE_POLICY = "node.toml"
"""The file, within a node's folder, of the limits of what the node answers."""

NODE_KEYS, KNOWN_NODES = "secure", "known-nodes.txt"
"""The folder, within a node's folder, of its keys for secure aggregation, and its owner's list of other nodes' keys."""

ITEM_VECTORS = "embeddings-*.safetensors", "vectors-*.safetensors"
"""The files, within a prepared folder, of cached embeddings and of vectors that were brought; all are public."""

PREPARED = Contents(
    "prepared dataset",
    MANIFEST,
    (
        *(MANIFEST, CATALOGUE, *ITEM_VECTORS, *FILES, HELD, USER_IDS, KEY, NODE_POLICY),
        *(f"{CLIENT_STATE}/part-*-of-*.pt", f"{CLIENT_STATE}/orders.db*"),
        *(f"{NODE_KEYS}/part-*-of-*.json", f"{NODE_KEYS}/{KNOWN_NODES}"),
    ),
)


@dataclass(frozen=True)
class Manifest:
    """The contents of a prepared folder, and how they were made."""

    name: str
    users: int
    items: int
    interactions: int  # training events and held-out items
    events_read: int  # rows of interactions, bad rows included
    bad_rows: int  # rows without an id, without a time, or broken
    other_events_dropped: int  # events of kinds that do not count
    rating_dropped: int  # events with a rating below `min_rating`, or with none
    dates_dropped: int  # events before `since`, or not before `until`
    repeats_dropped: int  # later events of a user with an item that the user already has
    short_users_dropped: int  # users with fewer than `min_events` events, or none to train on
    long_users_dropped: int  # users with more than `max_events`
    core_dropped: int  # events outside the k-core
    split_dropped: int  # events of the remaining users that the split leaves out
    training_only_users: int  # users without held-out items
    ranked_users: dict[str, int]  # users with a held-out item, by split
    time_range: list[Moment] | None  # of the first and the last event that the filters leave
    steps: list[State]  # what is left after each filter, in their order
    items_without_description: int  # items that occur and are known by their id alone
    items_without_text: int  # items described by nothing but an id
    items_described_twice: int  # later rows of an item that is already described
    bad_item_rows: int  # rows of the items table without an id, or broken
    item_columns_dropped: int  # columns of the items table
    popularity: str  # the catalogue's column: "counted" from training events, "given" by the items table, or "none"
    cold_items: int
    min_events: int
    rules: dict[str, Any]  # a node reads its own table by them, too
    split: str  # in words
    split_rule: dict[str, Any]  # as data
    split_asked: dict[str, Any]  # as it was asked for: moments of a global time split may be left to the events
    catalogue_fingerprint: str
    source: str
    source_md5: str | None
    citation: str
    text_columns: list[str]  # the columns that the items' text was made of; empty: the reader's own choice


REQUIRED = {"name": str, "items": int, "min_events": int, "split": str, "catalogue_fingerprint": str, "citation": str}
"""Fields of every manifest, also of a federation's public folder."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a prepared folder; `split_rule`, which version 0.1 did not write, is filled in.

    Raises `InputError` if `folder` is not a prepared dataset, or if the manifest is damaged.
    """
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
    require(manifest, REQUIRED, path, remedy)
    return manifest | {"split_rule": Split.from_record(manifest, str(path)).as_record()}


def write_manifest(folder: Path, manifest: Manifest | Mapping[str, Any]) -> None:
    """Write a manifest into a folder that is being prepared."""
    record = asdict(manifest) if isinstance(manifest, Manifest) else dict(manifest)
    (folder / MANIFEST).write_text(json.dumps(record, indent=2) + "\n", "utf-8")


def shard_counts(shard: Shard) -> dict[str, Any]:
    """Count the users and events of a shard, for a manifest."""
    users = range(len(shard))
    ranked = {split: shard.ranked(users, split) for split in ("validation", "test")}
    training_only = len(shard) - len(np.union1d(*ranked.values()))
    empty = 2 * training_only if shard.held is None else 0  # held-out places
    return {
        "users": len(shard),
        "interactions": int(shard.lengths().sum()) - empty,
        "training_only_users": training_only,
        "ranked_users": {split: len(some) for split, some in ranked.items()},
    }


def copy_node_files(old: Path, new: Path) -> None:
    """Copy a node's policy, the orders that it has answered, its client state and its keys into the folder that
    replaces it."""
    if (old / NODE_POLICY).is_file():
        shutil.copy2(old / NODE_POLICY, new)
    for name in (CLIENT_STATE, NODE_KEYS):
        if (old / name).is_dir():
            shutil.copytree(old / name, new / name, ignore=shutil.ignore_patterns(".*"))
