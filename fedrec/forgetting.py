"""`fedrec forget` and `fedrec node withdraw`: users are subtracted from a run's sums."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.data.user_ids import find_user
from fedrec.federation.config import from_nested
from fedrec.federation.revision import OpenRun, require_sums, revising
from fedrec.federation.run_checks import FITTED_TO
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.summand import Summand
from fedrec.recsys.recommender import load_feature_map


def forget_users(folder: Path, user_ids: Sequence[str], setup: TrainingSetup) -> int:
    """Subtract users of a folder by their ids, and return their number. Raises `InputError` for a user who is not in
    the sums."""
    users, shard = places_of(user_ids, setup), setup.dataset.shard
    with revising(folder, setup) as run:
        for user_id, place in zip(user_ids, run.places_of(shard.select(users).tickets()), strict=True):
            if place < 0:
                raise InputError(
                    f"`user` {user_id!r} is not in the sums of {folder}: never summed, or forgotten already; leave it "
                    "out"
                )
        for summand in summands_by_node(run, shard, users):
            run = run.subtract(summand)
        run.save(_note(len(users), setup))
    return len(users)


def forget_summand(folder: Path, path: Path, setup: TrainingSetup) -> int:
    """Subtract the users of a summand's file, and return their number. Raises `InputError`."""
    summand = Summand.load(path, setup)
    with revising(folder, setup) as run:
        run.subtract(summand).save(_note(len(summand.tickets), setup))
    return len(summand.tickets)


def write_summand(user_ids: Sequence[str], setup: TrainingSetup, out: Path) -> None:
    """Write the summand of a node's users to a file, with which the run's owner can forget them.

    Raises `InputError` if the run masked the sums of nodes, and these would be of fewer users than its sums.
    """
    secure = setup.config.secure_aggregation
    if secure.secure and len(user_ids) < secure.secure_clients:
        raise InputError(
            f"`user`: a run with secure = True learns no sums of fewer than secure_clients = {secure.secure_clients} "
            f"users, and this file would hold those of {len(user_ids)}; withdraw that many together, or have the run "
            "trained again without them"
        )
    Summand.of(setup, setup.dataset.shard, places_of(user_ids, setup)).save(out, setup)


def setup_of(folder: Path, card: Mapping[str, Any], dataset: Dataset) -> TrainingSetup:
    """Return the setup of a run on a dataset.

    If the catalogue has grown since the features of texts were fitted, they are those of the run. Raises `InputError`
    if its method keeps no sums, or if the encoder has other weights.
    """
    setup = TrainingSetup(dataset, from_nested(card["config"]))
    require_sums(folder, setup.config)
    setup.check_encoders(card, str(folder))
    kept = setup.config.closed_form.features == "text" and dataset.catalogue.fingerprint != fitted_to(card)
    return replace(setup, feature_map=load_feature_map(folder, card)) if kept else setup


def fitted_to(card: Mapping[str, Any]) -> str:
    """Return the fingerprint of the catalogue to which a run's features of texts were fitted."""
    return card["data"].get(FITTED_TO, card["data"]["catalogue_fingerprint"])


def places_of(user_ids: Sequence[str], setup: TrainingSetup) -> np.ndarray:
    """Return the places of users in the shard: (u,). Raises `InputError` for a user without an example."""
    if not user_ids or len(set(user_ids)) < len(user_ids):
        raise InputError("`user`: name at least one, and nobody twice")
    users = np.array([find_user(setup.dataset.folder, user_id) for user_id in user_ids])
    for user_id, user in zip(user_ids, users, strict=True):
        if len(setup.closed_form.summed_events(setup.dataset.shard, user)) < 2:
            raise InputError(
                f"`user` {user_id!r} has no example in the sums: of its events, at most one is not held out; leave it "
                "out"
            )
    return users


def summands_by_node(run: OpenRun, shard: Shard, users: np.ndarray) -> Iterator[Summand]:
    """Compute the summands of members (u,), one for each node that they count for."""
    nodes = run.sums.members.nodes[run.places_of(shard.select(users).tickets())]
    for node in np.unique(nodes):
        yield Summand.of(run.setup, shard, users[nodes == node])


def trains_towers(setup: TrainingSetup) -> bool:
    """Whether a run has towers that were trained on the users, which no subtraction changes."""
    return setup.config.method_row.trained


def _note(users: int, setup: TrainingSetup) -> dict[str, Any]:
    """Return the note of a card on forgotten users."""
    return {"kind": "forget", "users": users} | ({"towers": "unchanged"} if trains_towers(setup) else {})
