"""The jobs of a benchmark: each has its own folder, runs once, and resumes if it was interrupted."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, Field, ValidationError

from benchmarks.preset import Settings
from benchmarks.results_file import Environment, Machine, Metrics, Table, Tuning
from fedrec.data.storage.contents import Contents
from fedrec.data.storage.json_file import save_json
from fedrec.data.storage.locks import in_use
from fedrec.data.storage.reading import open_array, read_bytes
from fedrec.evaluation import save_ranks
from fedrec.federation.config import RunConfig, from_nested, to_flat
from fedrec.federation.training_run import RUN as RUN_FILES
from fedrec.recsys.card import EARLIER_DEFAULTS, with_present_names
from fedrec.recsys.environment import environment_info

RECORD = "part.json"
RANKS = "ranks.npy"
"""Each user's rank of the test item: private, so it stays in the job's folder."""

HISTORIES = "histories"
"""The key of the histories' fingerprint in a record's data stamp."""

RUN = "run"
"""The folder of the artifact, in the folder of a job that trains."""

CONTENTS = Contents("part of a benchmark", RECORD, (RECORD, RANKS, *(f"{RUN}/{file}" for file in RUN_FILES.patterns)))


class Measured(Metrics[float]):
    """The metrics of a split."""

    model_config = ConfigDict(extra="ignore")  # hr@k, which equals recall@k


class Ranked(Measured):
    """The metrics of one ranking, and the number of ranked users."""

    users: int


class Figures(Table):
    """What a job measured, by split. Nothing in it is about one user."""

    test: Ranked
    validation: Measured | None = None
    sampled_99: Ranked | None = None  # the test items against 99 sampled items
    cold: Ranked | None = None  # the test items among the cold items alone
    cold_listed: float | None = None  # share of cold items in the users' top 10 among all items
    before: Ranked | None = None  # the test items, before a warm start's first round
    tuning: Tuning | None = None


class JobRecord(Table):
    """The record in a job's folder. `data` is the stamp of the prepared data, None if nothing is prepared."""

    settings: Settings
    data: dict[str, Any] | None
    finished: bool
    seconds: float
    figures: Figures | None = None
    machine: Machine | None = None
    versions: dict[str, str] = Field(default={})


@dataclass(frozen=True)
class JobFolder:
    """The folders that a job reads and writes."""

    data: Path  # a prepared folder
    folder: Path  # the job's own


@dataclass(frozen=True)
class Preparation:
    """How a job wants the dataset prepared, if not as usual."""

    cold_share: float = 0.0  # share of the items that are in no training event
    texts: tuple[str, ...] = ()  # columns that form an item's text

    @property
    def suffix(self) -> str:
        """The end of the prepared folder's name."""
        cold = [f"cold-{self.cold_share:g}"] if self.cold_share else []
        return "".join(f"-{word}" for word in [*cold, *self.texts])


USUAL = Preparation()


@dataclass(frozen=True)
class Job:
    """A measurement. `settings` decide its outcome: a job that was made with other settings is rerun."""

    family: str
    model: str  # the model's name in the results; jobs of one model differ in their seed
    name: str
    settings: Mapping[str, Any]
    measure: Callable[[JobFolder], Figures]
    preparation: Preparation = USUAL


def finished_record(job: Job, folder: Path, stamp: Mapping[str, Any] | None) -> JobRecord | None:
    """Return a job's record if it finished with these settings, on data with this stamp; else None."""
    record = _load_record(folder)
    return record if record and record.finished and _matches(record, job, stamp) else None


def run_job(job: Job, place: JobFolder, stamp: Mapping[str, Any] | None) -> None:
    """Run or resume a job; remove first what it left with other settings or data.

    Raises `InputError` if its folder holds something else, or if another process runs it.
    """
    CONTENTS.check(place.folder, "--out")
    with in_use(place.folder):
        _run(job, place, stamp)


def _run(job: Job, place: JobFolder, stamp: Mapping[str, Any] | None) -> None:
    record = _load_record(place.folder)
    if not record or not _matches(record, job, stamp):
        CONTENTS.clear(place.folder)
        record = JobRecord(settings=dict(job.settings), data=dict(stamp) if stamp else None, finished=False, seconds=0)
        save_json(place.folder / RECORD, record.to_json())
    started = time.perf_counter()
    try:
        figures = job.measure(place)
        environment = Environment.model_validate(environment_info())
        record = record.model_copy(update={"finished": True, "figures": figures, **dict(environment)})
    finally:  # an interrupted job also counts its seconds
        seconds = round(record.seconds + time.perf_counter() - started, 1)
        save_json(place.folder / RECORD, record.model_copy(update={"seconds": seconds}).to_json())


def keep_ranks(folder: Path, ranks: np.ndarray) -> None:
    """Save the ranks of a job's test items in its folder."""
    save_ranks(folder / RANKS, ranks)


def load_ranks(folder: Path) -> np.ndarray:
    """Load the ranks of a job's test items, (U,). Raises `InputError` if they are damaged."""
    return open_array(folder / RANKS, f"remove {folder}, and the job is rerun")


def _load_record(folder: Path) -> JobRecord | None:
    """Load a job's record; None if it is missing or unreadable, so that the job is rerun."""
    try:
        return JobRecord.model_validate_json(read_bytes(folder / RECORD, "remove it"))
    except (OSError, ValidationError):
        return None


def _matches(record: JobRecord, job: Job, stamp: Mapping[str, Any] | None) -> bool:
    """Check whether a record is of these settings and data. A setting that it lacks had today's default, or what
    earlier versions stood for, and settings of earlier versions are read under their present names."""
    wanted = json.loads(json.dumps({"settings": job.settings, "data": stamp}))  # tuples become lists, as in the file
    settings, recorded = _comparable(wanted["settings"]), _comparable(record.settings)
    known = to_flat(from_nested(asdict(RunConfig()) | EARLIER_DEFAULTS))
    defaults = {name: value for name, value in _comparable(known).items() if name in settings}
    return defaults | recorded == settings and _same_data(record.data, wanted["data"])


def _comparable(settings: Mapping[str, Any]) -> Settings:
    """Return settings under their present names, and lists of them as flat tables have them."""
    present = with_present_names(dict(settings))
    return {name: ",".join(map(str, value)) if isinstance(value, list) else value for name, value in present.items()}


def _same_data(recorded: dict[str, Any] | None, present: dict[str, Any] | None) -> bool:
    """Check whether two stamps are of the same data. Earlier records lack the fingerprint of the histories."""
    if recorded and present and HISTORIES not in recorded:
        present = {name: value for name, value in present.items() if name != HISTORIES}
    return recorded == present
