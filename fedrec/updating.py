"""`fedrec update`: the histories of a run are replaced by newer ones in its sums."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.fingerprint import fingerprint_of
from fedrec.evaluation import check_dataset, prepared_folder
from fedrec.federation.revision import OpenRun, revising
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.summand import Summand
from fedrec.forgetting import summands_by_node, trains_towers


@dataclass(frozen=True, eq=False)
class Changes:
    """What differs between the histories in the sums and newer ones, as places in the two shards."""

    gone: np.ndarray  # places in the old shard
    changed: np.ndarray  # places in the old shard, of users whose summed events are others
    renewed: np.ndarray  # places of the same users in the new shard
    joined: np.ndarray  # places in the new shard
    left_out: int  # users who are in the old shard, and not in the sums

    @classmethod
    def between(cls, run: OpenRun, old: Dataset, new: Dataset) -> "Changes":
        """Compare the users of two datasets by their ids.

        A user who is in the old histories and not in the sums was forgotten, or the node did not answer: such a user
        stays out.
        """
        before, after = (dict(zip(data.users.to_list(), range(len(data.users)), strict=True)) for data in (old, new))
        counted = run.places_of(old.shard.tickets()) >= 0
        there = {user_id: user for user_id, user in before.items() if counted[user]}
        gone = [user for user_id, user in there.items() if user_id not in after]
        both = [(user, after[user_id]) for user_id, user in there.items() if user_id in after]
        changed = [pair for pair in both if not _same_sums(run.setup, old, new, pair)]
        joined = [user for user_id, user in after.items() if user_id not in before]
        pairs = np.array(changed, dtype=np.int64).reshape(-1, 2)
        rows = np.array(gone, dtype=np.int64), pairs[:, 0], pairs[:, 1], np.array(joined, dtype=np.int64)
        return cls(*rows, left_out=len(before) - len(there))

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of users."""
        found = {"changed": len(self.changed), "joined": len(self.joined), "gone": len(self.gone)}
        return found | {"left_out": self.left_out}


def _same_sums(setup: TrainingSetup, old: Dataset, new: Dataset, pair: tuple[int, int]) -> bool:
    """Whether a user's summed events are the same, and the salt by which their sums are coded and known."""
    closed_form, (before, after) = setup.closed_form, pair
    events = closed_form.summed_events(old.shard, before), closed_form.summed_events(new.shard, after)
    return np.array_equal(events[0], events[1]) and old.shard.salts[before] == new.shard.salts[after]


def open_before(folder: Path, card: Mapping[str, Any], before: Path | None) -> Dataset:
    """Open the dataset that is in a run's sums: in `before`, or in `var/prepared` by its name. Raises `InputError`."""
    return Dataset.open(before or prepared_folder(folder, card, "before"))


def update_run(
    folder: Path, card: Mapping[str, Any], old: Dataset, setup: TrainingSetup, other_histories: bool = False
) -> dict[str, int]:
    """Replace the old histories by those of the setup in a run's sums, and return the numbers of users by their change.

    Raises `InputError` if the items or the split are others, if the old histories are not those that the run was
    trained on (unless `other_histories` are accepted), or if nothing has changed.
    """
    new = setup.dataset
    if new.catalogue.fingerprint != card["data"]["catalogue_fingerprint"]:
        raise InputError(
            f"`data` {new.folder} holds other items than {folder} was trained on, and sums are over the features of "
            "those; prepare the new events with the same catalogue, or train again"
        )
    check_dataset(folder, card, new, other_histories=True)
    check_dataset(folder, card, old, other_histories, "before")
    with revising(folder, setup) as run:
        changes = Changes.between(run, old, new)
        counts = changes.counts
        if not any(counts[name] for name in ("changed", "joined", "gone")):
            raise InputError(f"`data` {new.folder} has the histories that are in the sums already; give newer ones")
        run = _replace(run, old, new, changes)
        run.save({"kind": "update", **counts}, _about_data(card["data"], new.folder, trains_towers(setup)))
    return counts


def _replace(run: OpenRun, old: Dataset, new: Dataset, changes: Changes) -> OpenRun:
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
        run = run.add(Summand.of(run.setup, new.shard, users), node)
    return run


def _by_node(users: np.ndarray, nodes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for node in np.unique(nodes):
        yield int(node), users[nodes == node]


def _about_data(before: Mapping[str, Any], new: Path, towers: bool) -> dict[str, Any]:
    """Return the card's entries on the histories; trained towers have also seen those before."""
    was = before.get("histories")
    if not was:  # a federation's server does not know them
        return {}
    earlier = [*before.get("earlier_histories", []), was] if towers else []
    return {"histories": fingerprint_of(new)} | ({"earlier_histories": earlier} if earlier else {})
