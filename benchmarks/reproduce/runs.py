"""Parts that train: a run, resumed if it was interrupted, then every user's held-out item ranked with it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.reproduce.jobs import RUN, Figures, Job, JobFolder, keep_ranks
from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.evaluation import cold_items, measured, score_users
from fedrec.federation.config import RunConfig, to_flat
from fedrec.federation.training_run import TrainedOn, open_run
from fedrec.recsys.evaluation.ranking import Scorer, restrict_to
from fedrec.recsys.recommender import CARD, Recommender
from fedrec.training import train_rounds


def training(family: str, model: str, name: str, config: RunConfig) -> Job:
    """The part that trains with these settings."""
    return Job(family, model, name, to_flat(config), partial(_train, config))


def finished_run(folder: Path, how: str) -> Path:
    """The run of another part, which must be there. Raises `InputError` saying how to make it."""
    if not (folder / RUN / CARD).is_file():
        raise InputError(f"{folder / RUN} is not there; make it first: {how}")
    return folder / RUN


def _train(config: RunConfig, place: JobFolder) -> Figures:
    return scored(trained(config, place).scorer(), place, config.measured)


def trained(config: RunConfig, place: JobFolder, start: Path | None = None) -> Recommender:
    """The run of a part, from its beginning or from where it was interrupted; `start` is a run to begin from."""
    out = place.folder / RUN
    train_rounds(Dataset.open(place.data), out, _opened(out, place, config, start))
    return Recommender.load(out)


def _opened(out: Path, place: JobFolder, config: RunConfig, start: Path | None) -> RunConfig:
    return open_run(out, Dataset.open(place.data), config, (out / CARD).is_file(), start, TrainedOn.of(place.data))


def scored(score: Scorer, place: JobFolder, splits: Sequence[str]) -> Figures:
    """Metrics by split over all users, the test among them; its ranks stay in the part's folder.

    Where some items are cold, `cold` holds the test's metrics in a ranking of these alone.
    """
    shard, catalogue = Shard.load(place.data), Catalogue.load(place.data)
    rankings = {split: score_users(score, shard, split) for split in splits}
    keep_ranks(place.folder, rankings["test"].ranks)
    if "cold" in catalogue.frame.columns:
        rankings["cold"] = score_users(restrict_to(score, cold_items(catalogue, place.data)), shard, "test")
    return {split: measured(ranking) for split, ranking in rankings.items()}


def measured_on(score: Scorer, place: JobFolder) -> Figures:
    """The test's metrics alone; no rank is kept."""
    return measured(score_users(score, Shard.load(place.data), "test"))
