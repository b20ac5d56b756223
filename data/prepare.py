"""Frames → a prepared folder: the public catalogue, one private shard, and a manifest that says how it was made."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from data.catalogue import Catalogue
from data.download import Progress, download, md5_of
from data.errors import InputError
from data.files import replaced_folder
from data.shard import Shard, salt_of
from data.sources import Frames, Source, open_root

MANIFEST = "manifest.json"
RAW = Path("var/raw")
"""Where downloads are kept, below the working folder."""

SPLIT = (
    "leave-one-out by time: stable sort by timestamp, ties in file order; "
    "the last event is the test item, the one before it the validation item"
)


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder holds and how it came to be."""

    name: str
    users: int
    items: int
    interactions: int
    repeats_dropped: int  # later events of a user with an item that the user already has
    short_users_dropped: int  # users with fewer than `min_events` events
    items_without_description: int
    min_events: int
    split: str
    catalogue_fingerprint: str
    source: str
    source_md5: str | None
    citation: str


def prepare(source: Source, out: Path, given: Path | None, progress: Progress, warn: Callable[[str], None]) -> Manifest:
    """Prepare a dataset by name into `out`, from `given` (a zip or folder) or from its publisher.

    Raises `InputError`, and then leaves `out` as it was.
    """
    if out.exists() and not (out / MANIFEST).is_file() and any(out.iterdir() if out.is_dir() else [out]):
        raise InputError(f"--out {out} exists and is no prepared dataset; choose another folder")
    path = given or (download(source, RAW, progress) if source.url else Path())
    md5 = md5_of(path) if path.is_file() else None
    if given and source.md5 and md5 and md5 != source.md5:
        warn(f"{given} has MD5 {md5}, not the publisher's {source.md5}; going on with your copy")
    frames = source.read(open_root(path))
    origin = given.name if given else source.url or "generated"
    return write(
        frames,
        out,
        name=source.name,
        source=origin,
        md5=md5,
        citation=source.citation,
    )


def write(
    frames: Frames,
    out: Path,
    *,
    name: str,
    source: str = "given",
    md5: str | None = None,
    citation: str = "",
    min_events: int = 3,
) -> Manifest:
    """Filter, order and write frames. A user needs a training, a validation and a test event: three at least."""
    if min_events < 3:
        raise InputError(f"min_events = {min_events}; a user needs three: to train, to validate and to test")
    described, missing = _with_undescribed(frames)
    catalogue = Catalogue(described)
    kept, repeats = _without_repeats(frames.interactions)
    shard, short = _shard(kept, catalogue, min_events)
    if not len(shard):
        raise InputError(f"{name}: no user has {min_events} events; there is nothing to train and test on")
    manifest = Manifest(
        name=name,
        users=len(shard),
        items=len(catalogue),
        interactions=len(shard.items),
        repeats_dropped=repeats,
        short_users_dropped=short,
        items_without_description=missing,
        min_events=min_events,
        split=SPLIT,
        catalogue_fingerprint=catalogue.fingerprint,
        source=source,
        source_md5=md5,
        citation=citation,
    )
    with replaced_folder(out) as folder:
        catalogue.save(folder)
        shard.save(folder)
        (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises `InputError` where `folder` is not a prepared dataset."""
    try:
        return json.loads((folder / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{folder} is not a prepared dataset ({MANIFEST} is missing); make one with `fedrec data prepare NAME`"
        ) from error
    except ValueError as error:
        raise InputError(f"{folder / MANIFEST} is not JSON ({error}); prepare the data again") from error


def _with_undescribed(frames: Frames) -> tuple[pl.DataFrame, int]:
    """Items that occur but are not described still belong to the catalogue: their id is all that is known."""
    items = frames.items.unique("item_id", keep="first", maintain_order=True)
    unknown = frames.interactions.select("item_id").unique(maintain_order=True).join(items, on="item_id", how="anti")
    named = unknown.with_columns(title=pl.col("item_id"), text=pl.col("item_id"))
    return pl.concat([items, named], how="diagonal"), named.height


def _without_repeats(interactions: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Events in time order, ties in file order, the first of each user with each item."""
    ordered = interactions.sort("timestamp", maintain_order=True)
    kept = ordered.unique(["user_id", "item_id"], keep="first", maintain_order=True)
    return kept, interactions.height - kept.height


def _shard(interactions: pl.DataFrame, catalogue: Catalogue, min_events: int) -> tuple[Shard, int]:
    rows = catalogue.frame.select("item_id").with_row_index("row")
    histories = (
        interactions.join(rows, on="item_id", how="left", maintain_order="left")
        .group_by("user_id", maintain_order=True)
        .agg("row")
        .sort("user_id")
    )
    kept = histories.filter(pl.col("row").list.len() >= min_events)
    lengths = kept["row"].list.len().to_numpy()
    shard = Shard(
        starts=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        items=kept["row"].explode().to_numpy(),
        salts=np.array([salt_of(user_id) for user_id in kept["user_id"]], dtype=np.uint64),
    )
    return shard, histories.height - kept.height
