"""Evaluation of a scorer on a whole dataset: every user's held-out item, ranked and summed up as metrics."""

from pathlib import Path

import numpy as np

from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.recsys.evaluation.ranking import (
    PROTOCOLS,
    Ranking,
    RankingConfig,
    metric_means,
    metric_sums,
    rank,
    restrict_to,
)
from fedrec.recsys.model.scoring import Scorer

SPLITS = ("test", "validation")
"""The splits that hold a held-out item of each user."""


def rank_held_out(score: Scorer, dataset: Dataset, protocol: str, split: str) -> Ranking:
    """Rank the held-out item of every user of a dataset, under one of `PROTOCOLS`.

    Raises `InputError` for another protocol or split, and for `cold` if the dataset has no cold items.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"`protocol` = {protocol!r} is not known; choose one of {', '.join(PROTOCOLS)}")
    if split not in SPLITS:
        raise InputError(f"`split` = {split!r} is not known; choose {' or '.join(SPLITS)}")
    if protocol == "cold":
        score = restrict_to(score, cold_items(dataset.catalogue, dataset.folder))
    return rank_all_users(score, dataset.shard, split, protocol)


def rank_all_users(score: Scorer, shard: Shard, split: str, protocol: str = "full") -> Ranking:
    """Rank the held-out item of every user, and measure the coverage of their lists."""
    return rank(score, shard, range(len(shard)), split, RankingConfig(protocol, coverage=True))


def ranking_metrics(ranking: Ranking) -> dict[str, float]:
    """Compute the mean of each metric over users, and the coverage."""
    return metric_means(metric_sums(ranking.ranks)) | {"coverage@10": ranking.coverage}


def cold_items(catalogue: Catalogue, folder: Path) -> np.ndarray:
    """Return the mask (N,) of the items that no training event holds. Raises `InputError` if none was prepared."""
    if "cold" not in catalogue.frame.columns:
        raise InputError(
            f"`protocol` cold: {folder} has no cold items; make one that has, by `fedrec data prepare NAME --split "
            "cold-items`, and train on it"
        )
    return catalogue.frame["cold"].to_numpy()
