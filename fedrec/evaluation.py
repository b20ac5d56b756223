"""`fedrec evaluate`: rank a run's held-out items where the prepared histories are at hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedrec import console
from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.fingerprint import fingerprint_of, same_key
from fedrec.data.manifest import read_manifest
from fedrec.data.shard import Shard
from fedrec.data.split import Split
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.data.storage.names import name_fault
from fedrec.federation.config import from_nested
from fedrec.recsys.card import load_card
from fedrec.recsys.evaluation.evaluate import cold_items, rank_all_users, ranking_metrics
from fedrec.recsys.evaluation.ranking import restrict_to
from fedrec.recsys.recommender import Recommender


@dataclass(frozen=True)
class Given:
    """The data to measure a run on."""

    folder: Path | None  # None: the dataset of the card's name below `prepared`
    prepared: Path
    other_histories: bool = False  # they may be others than those that the run was trained on


def evaluate_run(run: Path, given: Given, protocol: str, ranks: Path | None) -> dict[str, Any]:
    """Metrics by split and protocol. Raises `InputError` where run and data do not belong together."""
    recommender, data = opened(run, given)
    if ranks and ranks.resolve().is_relative_to(run.resolve()):
        raise InputError(f"--ranks {ranks} lies in the run; ranks are private and stay out of the artifact")
    splits = measured_splits(recommender, run)
    shard, scorer = Shard.load(data), recommender.scorer()
    if protocol == "cold":
        scorer = restrict_to(scorer, cold_items(recommender.catalogue, data))
    rankings = {split: rank_all_users(scorer, shard, split, protocol) for split in splits}
    if ranks:
        save_ranks(ranks, rankings["test"].ranks)
    return {split: {protocol: ranking_metrics(ranking)} for split, ranking in rankings.items()}


def measured_splits(recommender: Recommender, run: Path) -> tuple[str, ...]:
    """The splits that a run was not trained on. Raises `InputError` where there is none."""
    splits = from_nested(recommender.card["config"]).measured
    if not splits:
        raise InputError(
            f"{run} was trained on every event (held_out = 0): nothing is left to measure it with; train "
            "with held_out = 2 or 1 to measure, and with 0 to serve"
        )
    return splits


def save_ranks(path: Path, ranks: np.ndarray) -> None:
    """Each user's rank, without ids: private, so never in an artifact."""
    with replaced_file(path) as partial, partial.open("wb") as file:
        np.save(file, ranks, allow_pickle=False)


def opened(run: Path, given: Given) -> tuple[Recommender, Path]:
    """A run, and the prepared folder it was trained on. Raises `InputError` where they do not belong together."""
    recommender = Recommender.load(run)
    data = folder_of(run, given)
    if not data.is_dir():
        raise InputError(f"{data} is not there; name the prepared folder with --data")
    if Catalogue.load(data).fingerprint != recommender.catalogue.fingerprint:
        raise InputError(f"{run} was trained on other items than {data} holds; name its own with --data")
    if Split.from_record(read_manifest(data), str(data)) != Split.from_record(recommender.card["data"], str(run)):
        raise InputError(f"{run} was trained in another split than {data} has; name its own with --data")
    if not given.other_histories:
        refuse_other_histories(run, recommender.card["data"], data)
    return recommender, data


def folder_of(run: Path, given: Given) -> Path:
    """Return the prepared folder to measure a run on: the one that is given, or that of the name in the run's card.

    Raises `InputError` if that name, which may come from anywhere, is no folder's.
    """
    if given.folder:
        return given.folder
    name = str(load_card(run)["data"]["name"])
    if fault := name_fault(name):
        raise InputError(f"{run}: the dataset's name {name!r} {fault}; name the prepared folder with --data")
    return given.prepared / name


def refuse_other_histories(run: Path, told: Mapping[str, Any], data: Path) -> None:
    """Raise `InputError` if a card's data are known to be other histories than those in `data`; say so if that cannot
    be known."""
    was, now = told.get("histories"), fingerprint_of(data)
    if not was:
        console.warn(f"{run} does not tell which histories it was trained on; see to it that they are those in {data}")
    elif not now:
        console.warn(f"{data} has no key to tell its histories by; see to it that {run} was trained on them")
    elif was == now and told.get("earlier_histories"):
        console.warn(f"{run} was also trained on others than the histories in {data}; its metrics may be too high")
    elif was != now and same_key(was, now):
        raise InputError(
            f"{run} was trained on other histories than {data} holds, maybe on what is held out there; name its own "
            "with --data, or add --other-histories if these are meant"
        )
    elif was != now:
        raise InputError(
            f"whether {run} was trained on the histories in {data} cannot be told, as they were prepared anew or "
            "elsewhere; name its own folder or a copy of it with --data, or add --other-histories if these are meant"
        )
