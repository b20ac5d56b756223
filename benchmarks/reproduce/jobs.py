"""A benchmark's parts: each has a folder of its own, is made once, and goes on where it was interrupted."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.data.storage.contents import Contents
from fedrec.data.storage.locks import in_use
from fedrec.data.storage.reading import open_array, read_bytes
from fedrec.evaluation import save_ranks
from fedrec.federation.config import RunConfig, to_flat
from fedrec.federation.training_run import RUN as OF_A_RUN
from fedrec.recsys.environment import environment_info
from fedrec.recsys.recommender import save_json

RECORD = "part.json"
RANKS = "ranks.npy"
"""Each user's rank of the test item: private, so it stays in the part's folder."""

HISTORIES = "histories"
"""In a record's stamp of its data: their fingerprint."""

RUN = "run"
"""Below a training part's folder: the artifact."""

CONTENTS = Contents("part of a benchmark", RECORD, (RECORD, RANKS, *(f"{RUN}/{file}" for file in OF_A_RUN.patterns)))

Figures = dict[str, Any]
"""What a part found out, ready for JSON. Nothing in it is about one user."""


@dataclass(frozen=True)
class JobFolder:
    """Where a part works."""

    data: Path  # a prepared folder
    folder: Path  # the part's own


@dataclass(frozen=True)
class Preparation:
    """How a part wants the dataset prepared, where that is not as usual."""

    cold_share: float = 0.0  # of the items, that are in no training event
    texts: tuple[str, ...] = ()  # columns that the encoder reads of an item

    @property
    def suffix(self) -> str:
        """What tells its folder from the usual one."""
        cold = [f"cold-{self.cold_share:g}"] if self.cold_share else []
        return "".join(f"-{word}" for word in [*cold, *self.texts])


USUAL = Preparation()


@dataclass(frozen=True)
class Job:
    """One thing to find out. `settings` decide what comes out: a part made with others is made anew."""

    family: str
    model: str  # what results call it; parts of one model differ in their seed
    name: str
    settings: Mapping[str, Any]
    make: Callable[[JobFolder], Figures]
    preparation: Preparation = USUAL


def finished(part: Job, folder: Path, stamp: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The record of a part that is there, made with its settings on data of this stamp; None where there is none."""
    record = _record(folder)
    return record if record.get("finished") and _same(record, part, stamp) else None


def run_job(part: Job, place: JobFolder, stamp: Mapping[str, Any] | None) -> None:
    """Make a part, or go on making it; what was begun with other settings or data is thrown away.

    Raises `InputError` if its folder holds something else, or if another process makes it.
    """
    CONTENTS.check(place.folder, "--out")
    with in_use(place.folder):
        _perform(part, place, stamp)


def _perform(part: Job, place: JobFolder, stamp: Mapping[str, Any] | None) -> None:
    record = _record(place.folder)
    if not _same(record, part, stamp):
        CONTENTS.clear(place.folder)
        record = {"settings": part.settings, "data": stamp, "finished": False, "seconds": 0.0}
        save_json(place.folder / RECORD, record)
    started = time.perf_counter()
    try:
        figures = part.make(place)
        record |= {"finished": True, "figures": figures, **environment_info()}
    finally:  # an interrupted part keeps count of its seconds
        record["seconds"] = round(record["seconds"] + time.perf_counter() - started, 1)
        save_json(place.folder / RECORD, record)


def keep_ranks(folder: Path, ranks: np.ndarray) -> None:
    save_ranks(folder / RANKS, ranks)


def load_ranks(folder: Path) -> np.ndarray:
    return open_array(folder / RANKS, f"remove {folder}, and it is made anew")


def _record(folder: Path) -> dict[str, Any]:
    """Empty where there is none, or where a hand has damaged it: the part is then made anew."""
    try:
        record = json.loads(read_bytes(folder / RECORD, "remove it"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _same(record: Mapping[str, Any], part: Job, stamp: Mapping[str, Any] | None) -> bool:
    """Whether it is of these settings and data. A setting that it does not know had what is its default today."""
    asked = json.loads(json.dumps({"settings": part.settings, "data": stamp}))  # as JSON gives it back
    settings = record.get("settings", {})
    since = {name: value for name, value in to_flat(RunConfig()).items() if name in asked["settings"]}
    return since | settings == asked["settings"] and _same_data(record.get("data"), asked["data"])


def _same_data(told: dict[str, Any] | None, asked: dict[str, Any] | None) -> bool:
    """Whether two stamps are of the same data. Earlier records do not tell of the histories."""
    if told and asked and HISTORIES not in told:
        asked = {name: value for name, value in asked.items() if name != HISTORIES}
    return told == asked
