"""`fedrec update`: the histories of a run are replaced by newer ones in its sums."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.fingerprint import fingerprint_of
from fedrec.data.shard import NO_ITEM, Shard
from fedrec.evaluation import check_dataset, check_split, prepared_folder
from fedrec.federation.revision import OpenRun, revising
from fedrec.federation.run_checks import FITTED_TO
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.summand import Summand
from fedrec.forgetting import fitted_to, summands_by_node, trains_towers
from fedrec.recsys.closed_form.config import check_catalogue


@dataclass(frozen=True, eq=False)
class PastHistories:
    """The histories that are in a run's sums, in the rows of a newer catalogue."""

    folder: Path
    users: Sequence[str]
    shard: Shard

    @classmethod
    def of(cls, old: Dataset, rows: np.ndarray) -> Self:
        """Read the histories of a dataset whose items have the rows (N,) in the newer catalogue."""
        shard = old.shard
        items = np.where(shard.items == NO_ITEM, NO_ITEM, rows[shard.items]).astype(shard.items.dtype)
        return cls(old.folder, old.users.to_list(), replace(shard, items=items))


@dataclass(frozen=True, eq=False)
class Changes:
    """What differs between the histories in the sums and newer ones, as places in the two shards."""

    gone: np.ndarray  # places in the old shard
    changed: np.ndarray  # places in the old shard, of users whose summed events are others
    renewed: np.ndarray  # places of the same users in the new shard
    joined: np.ndarray  # places in the new shard
    left_out: int  # users who are in the old shard, and not in the sums

    @classmethod
    def between(cls, run: OpenRun, old: PastHistories, new: Dataset) -> "Changes":
        """Compare the users of two datasets by their ids.

        A user who is in the old histories and not in the sums was forgotten, or the node did not answer: such a user
        stays out.
        """
        before, after = ({user_id: user for user, user_id in enumerate(data.users)} for data in (old, new))
        counted = run.places_of(old.shard.tickets()) >= 0
        there = {user_id: user for user_id, user in before.items() if counted[user]}
        gone = [user for user_id, user in there.items() if user_id not in after]
        both = [(user, after[user_id]) for user_id, user in there.items() if user_id in after]
        changed = [pair for pair in both if not _same_sums(run.setup, old.shard, new.shard, pair)]
        joined = [user for user_id, user in after.items() if user_id not in before]
        pairs = np.array(changed, dtype=np.int64).reshape(-1, 2)
        rows = np.array(gone, dtype=np.int64), pairs[:, 0], pairs[:, 1], np.array(joined, dtype=np.int64)
        return cls(*rows, left_out=len(before) - len(there))

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of users."""
        found = {"changed": len(self.changed), "joined": len(self.joined), "gone": len(self.gone)}
        return found | {"left_out": self.left_out}


def _same_sums(setup: TrainingSetup, old: Shard, new: Shard, pair: tuple[int, int]) -> bool:
    """Whether a user's summed events are the same, and the salt by which their sums are coded and known."""
    closed_form, (before, after) = setup.closed_form, pair
    events = closed_form.summed_events(old, before), closed_form.summed_events(new, after)
    return np.array_equal(events[0], events[1]) and old.salts[before] == new.salts[after]


def open_before(folder: Path, card: Mapping[str, Any], before: Path | None) -> Dataset:
    """Open the dataset that is in a run's sums: in `before`, or in `var/prepared` by its name. Raises `InputError`."""
    return Dataset.open(before or prepared_folder(folder, card, "before"))


def update_run(
    folder: Path, card: Mapping[str, Any], old: Dataset, setup: TrainingSetup, other_histories: bool = False
) -> dict[str, int]:
    """Replace the old histories by those of the setup in a run's sums, and return the numbers of users by their change,
    and of new items.

    The setup's catalogue may have more items. Sums over texts then keep the features that the run has, and sums over
    ids get rows of zeros. Raises `InputError` if an item is gone or has another text, if the split is another, if the
    old histories are not those that the run was trained on (unless `other_histories` are accepted), or if nothing has
    changed.
    """
    new = setup.dataset
    check_split(folder, card, new)
    check_dataset(folder, card, old, other_histories, "before")
    check_catalogue(setup.config.closed_form, len(new.catalogue))
    rows = _rows_in(old.catalogue, new)
    with revising(folder, setup) as run:
        past, run = PastHistories.of(old, rows), run.with_more_items(rows)
        changes = Changes.between(run, past, new)
        counts = changes.counts | {"new_items": len(new.catalogue) - len(rows)}
        if not any(counts[name] for name in ("changed", "joined", "gone", "new_items")):
            raise InputError(f"`data` {new.folder} has the histories that are in the sums already; give newer ones")
        run = _replace(run, past, new.shard, changes)
        run.save({"kind": "update", **counts}, _about_data(card, new, trains_towers(setup)))
    return counts


def _rows_in(old: Catalogue, new: Dataset) -> np.ndarray:
    """Return the row of each old item in the new catalogue: (N,). Raises `InputError` if one is gone or is another."""
    if gone := [item_id for item_id in old.ids if item_id not in new.catalogue]:
        raise InputError(
            f"`data` {new.folder} lacks {len(gone):,} items of the run, as {gone[0]!r}, and sums cannot lose an item; "
            "prepare the new events with all items that the run has"
        )
    rows = new.catalogue.rows(old.ids)
    if changed := [row for row, text in zip(rows, old.texts, strict=True) if new.catalogue.texts[row] != text]:
        raise InputError(
            f"`data` {new.folder}: {len(changed):,} items have other texts than in the run, as "
            f"{new.catalogue.ids[changed[0]]!r}, and sums are over their features; keep the texts, or train again"
        )
    return rows


def _replace(run: OpenRun, old: PastHistories, new: Shard, changes: Changes) -> OpenRun:
    """Subtract and add what has changed, node by node."""
    members = run.sums.members
    places = run.places_of(old.shard.tickets())
    hosts = np.unique(members.nodes[places[places >= 0]])
    nodes = members.nodes[run.places_of(old.shard.select(changes.changed).tickets())]
    leaving = np.concatenate([changes.gone, changes.changed])
    if len(hosts) == 0:
        raise InputError(f"nobody in {old.folder} is in the sums of {run.folder}; name its own folder with `before`")
    dealt = hosts[np.arange(len(changes.joined)) % len(hosts)]
    for summand in summands_by_node(run, old.shard, leaving):
        run = run.subtract(summand)
    coming = np.concatenate([changes.renewed, changes.joined])
    for node, users in _by_node(coming, np.concatenate([nodes, dealt])):
        run = run.add(Summand.of(run.setup, new, users), node)
    return run


def _by_node(users: np.ndarray, nodes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for node in np.unique(nodes):
        yield int(node), users[nodes == node]


def _about_data(card: Mapping[str, Any], new: Dataset, towers: bool) -> dict[str, Any]:
    """Return the card's entries on the items and the histories; trained towers have also seen the histories before."""
    before, about = card["data"], dict[str, Any]()
    if new.catalogue.fingerprint != before["catalogue_fingerprint"]:
        about = {name: new.manifest[name] for name in ("items", "catalogue_fingerprint")} | {FITTED_TO: fitted_to(card)}
    was = before.get("histories")
    if not was:  # a federation's server does not know them
        return about
    earlier = [*before.get("earlier_histories", []), was] if towers else []
    return about | {"histories": fingerprint_of(new.folder)} | ({"earlier_histories": earlier} if earlier else {})
