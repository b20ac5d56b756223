"""A federation's folders: a public one for the server, and one for each node that holds its own users alone.

Each is a prepared folder by itself and opens with nothing else in reach. What is private in it only its owner can read.
"""

import json
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fedrec.data.catalogue import FILE as CATALOGUE
from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.fingerprint import save_key
from fedrec.data.histories import histories
from fedrec.data.popularity import COUNTED, NONE
from fedrec.data.prepare import MANIFEST, PREPARED, counts_of, keep_along, read_manifest, rows_of, shard_of
from fedrec.data.randomness import Stream, random_stream
from fedrec.data.readers.filter import kept_users, note_repeats
from fedrec.data.readers.formats import TableFile
from fedrec.data.readers.items import POPULARITY
from fedrec.data.readers.lines import Reading
from fedrec.data.readers.reading_report import Account, shortened
from fedrec.data.readers.rows import read_table
from fedrec.data.readers.rules import Rules
from fedrec.data.readers.tables import Tables, read_tables
from fedrec.data.shard import FOLDER, Shard
from fedrec.data.split import Split
from fedrec.data.storage.atomic_files import check_place, replaced_folder
from fedrec.data.storage.contents import refuse_occupied
from fedrec.data.user_ids import FILE as PEOPLE
from fedrec.data.user_ids import load_people, save_people

SERVER = "server"
NODE = replace(PREPARED, kind="node's folder", mark=PEOPLE)

OF_THE_WHOLE = (
    *("users", "interactions", "training_only_users", "events_read", "bad_rows", "other_events_dropped"),
    *("repeats_dropped", "short_users_dropped", "long_users_dropped", "split_dropped"),
)
"""What a dataset's manifest tells of everybody: it is not handed on."""


@dataclass(frozen=True, eq=False)
class UserPartition:
    """The users that are dealt to one node."""

    about: str
    users: np.ndarray  # rows of the shard, rising


def partition_evenly(users: int, nodes: int) -> list[UserPartition]:
    """Like cards, so that node k holds what part k of as many parts of the whole dataset is."""
    _enough(users, nodes)
    return [UserPartition(f"part {part} of {nodes}", np.arange(part, users, nodes)) for part in range(nodes)]


def partition_dirichlet(users: int, nodes: int, concentration: float, seed: int) -> list[UserPartition]:
    """Shares of the users drawn from a symmetric Dirichlet distribution, but one user at least: the smaller the
    concentration, the more uneven. As in Hsu et al. 2019, arXiv:1909.06335, for sizes in place of labels."""
    _enough(users, nodes)
    rng = random_stream(Stream.PARTITION, seed)
    sizes = 1 + rng.multinomial(users - nodes, rng.dirichlet(np.full(nodes, concentration)))
    parts = np.split(rng.permutation(users), np.cumsum(sizes)[:-1])
    return [UserPartition(f"a share of {len(part) / users:.1%}", np.sort(part)) for part in parts]


def partition_by_column(
    ids: pl.Series, table: Path, user_column: str, column: str, reading: Reading
) -> list[UserPartition]:
    """A node for each value of a column of a table of users. Raises `InputError` for a user who has none, or two."""
    file = TableFile(table, reading)
    told = read_table(file, {"user_id": user_column, "group": column}, Account()).unique()
    if (twice := told["user_id"].is_duplicated()).any():
        user = told["user_id"][int(twice.arg_max() or 0)]
        raise InputError(f"{table}: user {user!r} has more than one {column}; keep one, as one node holds this user")
    groups = ids.alias("user_id").to_frame().join(told, on="user_id", how="left", maintain_order="left")["group"]
    if groups.has_nulls():
        user = ids[int(groups.is_null().arg_max() or 0)]
        raise InputError(f"{table}: user {user!r} has no {column}; add a row, so that some node holds this user")
    values = groups.unique().sort().to_list()
    return [UserPartition(f"{column} {value}", np.flatnonzero((groups == value).to_numpy())) for value in values]


def _enough(users: int, nodes: int) -> None:
    if not 1 <= nodes <= users:
        raise InputError(f"--nodes {nodes}: there are {users:,} users, and each node hosts one at least")


def split(data: Path, out: Path, hands: list[UserPartition], popularity: bool = True) -> list[Path]:
    """Write the server's folder and the nodes', in one step; returns the nodes'. Raises `InputError`.

    The catalogue in all of them tells how popular items are, if it was counted and unless `popularity` is False.
    """
    check_place(out, refuse_occupied)
    manifest, shard, ids = read_manifest(data), Shard.load(data), load_people(data)
    if not popularity and manifest.get("popularity") == COUNTED:
        manifest["popularity"] = NONE
    names = [f"node-{number:0{len(str(len(hands) - 1))}}" for number in range(len(hands))]
    with replaced_folder(out, refuse_occupied) as folder:
        publish(data, folder / SERVER, manifest, {})
        for name, hand in zip(names, hands, strict=True):
            write_node(data, folder / name, manifest, shard.of(hand.users), ids[hand.users])
    return [out / name for name in names]


def publish(data: Path, folder: Path, manifest: dict[str, Any], own: dict[str, int]) -> None:
    """The public side of a prepared folder: the catalogue, its embeddings where they are made, and its manifest, with
    the folder's own counts in place of everybody's."""
    folder.mkdir(exist_ok=True)
    for path in [data / CATALOGUE, *sorted(data.glob("embeddings-*.safetensors"))]:
        shutil.copy2(path, folder)
    if manifest.get("popularity") == NONE:
        without = Catalogue.load(data).frame.drop(POPULARITY, strict=False)
        Catalogue(without).save(folder)
    told = {name: value for name, value in manifest.items() if name not in OF_THE_WHOLE}
    (folder / MANIFEST).write_text(json.dumps(told | own, indent=2) + "\n", "utf-8")


def write_node(
    public: Path,
    folder: Path,
    manifest: dict[str, Any],
    shard: Shard,
    ids: pl.Series,
    steps: dict[str, int] | None = None,
    before: Path | None = None,
) -> None:
    """A node's folder: the public side, and the histories of its own users, for its owner's eyes only. The manifest
    counts these users and, if their table was read here, the steps of reading it.

    Its key for fingerprints is its own: that of the folder `before`, which it takes the place of, or a new one.
    """
    publish(public, folder, manifest, counts_of(shard) | (steps or {}))
    folder.chmod(0o700)
    shard.save(folder)
    save_people(folder, ids)
    save_key(folder, before=before)
    for path in (folder / FOLDER).iterdir():
        path.chmod(0o600)


def prepare_node(
    public: Path, tables: Tables, out: Path, warn: Callable[[str], None], strict: bool = False
) -> dict[str, Any]:
    """A node's folder from its own table and a public catalogue, by the rules of the catalogue's data; its manifest.

    What it draws with, each user's salt, is random, and stays the same when the folder is made anew with later events.
    Raises `InputError`.
    """
    manifest, catalogue = read_manifest(public), Catalogue.load(public)
    split, rules, account = _leave_one_out(manifest, public), Rules.of_manifest(manifest), Account(warn, strict)
    if catalogue.fingerprint != manifest["catalogue_fingerprint"]:
        raise InputError(f"{public}: the catalogue is not the one that was prepared; copy it again")
    check_place(out, NODE.check)
    known = _known(read_tables(tables, rules, account).interactions, catalogue, tables.interactions, account)
    found = histories(known, rows_of(known["item_id"], catalogue.frame["item_id"]), split.repeats)
    note_repeats(known, found, account)
    kept = kept_users(found, found, rules, account)
    account.settle()
    if not kept.any():
        raise InputError(
            f"{tables.interactions}: no user has {rules.min_events} events with items of the catalogue; "
            "there is nothing to train on"
        )
    known_salts = _salts(out)
    ids, shard = shard_of(found, kept, lambda user: known_salts.get(user) or secrets.randbits(64))
    with replaced_folder(out, NODE.check) as folder:
        write_node(public, folder, manifest, shard, ids, account.counts, before=out)
        keep_along(out, folder)
    return read_manifest(out)


def _known(events: pl.DataFrame, catalogue: Catalogue, path: Path, account: Account) -> pl.DataFrame:
    """The events with items of the catalogue. Raises `InputError` if there are none."""
    known = events["item_id"].is_in(catalogue.ids)
    unknown = events["item_id"].filter(~known)
    looks = f"its ids look like {shortened(unknown.first())}, the catalogue's like {shortened(catalogue.ids[0])}"
    if not known.any():
        raise InputError(f"{path}: none of its items is in the catalogue; {looks}")
    line = f"events of items that the catalogue lacks, left out: {len(unknown):,} of {len(events):,}; {looks}"
    account.note("unknown_events_dropped", len(unknown), line)
    return events.filter(known)


def _leave_one_out(manifest: dict[str, Any], public: Path) -> Split:
    """Return the split of a federation's data. Raises `InputError` if a node cannot cut its own table by it."""
    split = Split.from_record(manifest, str(public))
    if split.cold_share:
        raise InputError(
            f"a node's own table is split leave-one-out; the catalogue's data are split by {split.description}"
        )
    return split


def _salts(folder: Path) -> dict[str, int]:
    """Of the users that a node's folder already holds; none where there is no such folder."""
    if not (folder / FOLDER).is_dir():
        return {}
    return dict(zip(load_people(folder).to_list(), Shard.load(folder).salts.tolist(), strict=True))
