"""Jobs that train a run, resumed if it was interrupted, and rank every user's held-out item with it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.reproduce.jobs import RUN, Figures, Job, JobFolder, Ranked, keep_ranks
from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig, to_flat
from fedrec.federation.node import Node
from fedrec.federation.run_checks import TrainedOn
from fedrec.federation.training_run import TrainingRun, open_run
from fedrec.recsys.evaluation.evaluate import cold_items, rank_all_users, ranking_metrics
from fedrec.recsys.evaluation.ranking import Ranking, RankingConfig, rank_users, restrict_to
from fedrec.recsys.model.scoring import Scorer
from fedrec.recsys.recommender import CARD, Recommender
from fedrec.training import train_rounds


def training_job(family: str, model: str, name: str, config: RunConfig) -> Job:
    """Build the job that trains with these settings."""
    return Job(family, model, name, to_flat(config), partial(_train_and_rank, config))


def finished_run(folder: Path, command: str) -> Path:
    """Return the run of another job. Raises `InputError` with the command that makes it if there is none."""
    if not (folder / RUN / CARD).is_file():
        raise InputError(f"{folder / RUN} is not there; make it first: {command}")
    return folder / RUN


def _train_and_rank(config: RunConfig, place: JobFolder) -> Figures:
    return rank_held_out(train_or_resume(config, place).scorer(), place, config.measured)


def train_or_resume(config: RunConfig, place: JobFolder, start: Path | None = None) -> Recommender:
    """Train a job's run, or resume it if it was interrupted; `start` is a run whose adapter is the initial one."""
    train_rounds(open_or_resume(config, place, start))
    return Recommender.load(place.folder / RUN)


def open_or_resume(config: RunConfig, place: JobFolder, start: Path | None = None) -> TrainingRun:
    """Open a job's run, new or to be resumed, from an initial adapter of its own or that of another run."""
    out, dataset = place.folder / RUN, Dataset.open(place.data)
    return open_run(out, dataset, config, (out / CARD).is_file(), start, TrainedOn.of(place.data))


def rank_on_node(node: Node, run: Path, split: str, protocol: str = "full") -> Ranking:
    """Rank all users on the node that has just trained them, by the best adapter and their client states, if any."""
    state = State.load(run)
    assert state, "a finished run has a state"
    score = node.setup.method.scorer(state.best, node.shard, split, node.states.at(state.run, state.best_round))
    return rank_users(score, node.shard, range(len(node.shard)), split, RankingConfig(protocol, coverage=True))


def rank_held_out(score: Scorer, place: JobFolder, splits: Sequence[str]) -> Figures:
    """Rank all users' held-out items of these splits, the test among them; its ranks stay in the job's folder.

    If some items are cold, also rank the test items among these alone, and measure how often lists hold them.
    """
    shard, catalogue = Shard.load(place.data), Catalogue.load(place.data)
    rankings = {split: rank_all_users(score, shard, split) for split in splits}
    keep_ranks(place.folder, rankings["test"].ranks)
    listed = None
    if "cold" in catalogue.frame.columns:
        cold, counts = cold_items(catalogue, place.data), rankings["test"].listed
        rankings["cold"] = rank_all_users(restrict_to(score, cold), shard, "test")
        listed = round(float(counts[cold].sum() / counts.sum()), 4)
    metrics: dict[str, Any] = {split: metrics_of(ranking) for split, ranking in rankings.items()}
    return Figures(**metrics, cold_listed=listed)


def metrics_of(ranking: Ranking) -> Ranked:
    """Compute the means over a ranking's users."""
    return Ranked.model_validate(ranking_metrics(ranking))
