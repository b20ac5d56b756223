"""Runs on data: the prepared folder that a run was trained on, and its rankings of held-out items there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedrec import console
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.fingerprint import fingerprint_of, same_key
from fedrec.data.split import Split
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.data.storage.names import name_fault
from fedrec.datasets import PREPARED


def prepared_folder(run: Path, card: Mapping[str, Any], option: str = "data") -> Path:
    """Return the folder where the dataset of a run is prepared by default, by the dataset's name in the run's card.

    Raises `InputError` if that name, which may come from anywhere, is no folder's, or if the folder is absent.
    """
    name = str(card["data"]["name"])
    if fault := name_fault(name):
        raise InputError(f"{run}: the dataset's name {name!r} {fault}; name the prepared folder with `{option}`")
    if not (PREPARED / name).is_dir():
        raise InputError(f"{PREPARED / name} is not there; name the prepared folder with `{option}`")
    return PREPARED / name


def check_dataset(
    run: Path, card: Mapping[str, Any], dataset: Dataset, other_histories: bool, option: str = "data"
) -> None:
    """Raise `InputError` unless a dataset is the one that a run was trained on.

    With `other_histories`, other histories of the same items in the same split are accepted. `option` is the parameter
    that names another folder.
    """
    trained_on, data = card["data"], dataset.folder
    if dataset.catalogue.fingerprint != trained_on["catalogue_fingerprint"]:
        raise InputError(f"{run} was trained on other items than {data} holds; name its own with `{option}`")
    check_split(run, card, dataset, option)
    if not other_histories:
        check_histories(run, trained_on, data, option)


def check_split(run: Path, card: Mapping[str, Any], dataset: Dataset, option: str = "data") -> None:
    """Raise `InputError` if a run was trained in another split than a dataset has."""
    if dataset.split != Split.from_record(card["data"], str(run)):
        raise InputError(f"{run} was trained in another split than {dataset.folder} has; name its own with `{option}`")


def check_histories(run: Path, trained_on: Mapping[str, Any], data: Path, option: str = "data") -> None:
    """Raise `InputError` if a run was trained on other histories than `data` holds; warn if that is unknown."""
    was, now = trained_on.get("histories"), fingerprint_of(data)
    if not was:
        console.warn(f"{run} does not tell which histories it was trained on; make sure that they are those in {data}")
    elif not now:
        console.warn(f"{data} has no key to tell its histories by; make sure that {run} was trained on them")
    elif was == now and trained_on.get("earlier_histories"):
        console.warn(f"{run} was also trained on others than the histories in {data}; its metrics may be too high")
    elif was != now and same_key(was, now):
        raise InputError(
            f"{run} was trained on other histories than {data} holds, maybe on what is held out there; name its own "
            f"with `{option}`, or add `other_histories` if these are meant"
        )
    elif was != now:
        raise InputError(
            f"whether {run} was trained on the histories in {data} cannot be told, as they were prepared anew or "
            f"elsewhere; name its own folder, or a copy, with `{option}`, or add `other_histories` if these are meant"
        )


def refuse_ranks_in_run(ranks: Path, run: Path) -> None:
    """Raise `InputError` if a file for users' ranks would lie in a run, which may be shared."""
    if ranks.resolve().is_relative_to(run.resolve()):
        raise InputError(f"`ranks` {ranks} lies in the run; ranks are private and stay out of the artifact")


def save_ranks(path: Path, ranks: np.ndarray) -> None:
    """Write each user's rank, without ids: private, so never in an artifact."""
    with replaced_file(path) as partial, partial.open("wb") as file:
        np.save(file, ranks, allow_pickle=False)
