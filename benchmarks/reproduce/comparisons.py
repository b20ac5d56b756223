"""Comparisons of models user by user: which differences are more than chance, and how history length matters.

The jobs' folders hold each user's ranks; only figures over users leave this module.
"""

from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.reproduce.collect import OURS, SEPARATE, Records, round_figure
from benchmarks.reproduce.jobs import RANKS, load_ranks
from benchmarks.results_file import Comparison, UserGroup
from fedrec.data.shard import Shard
from fedrec.recsys.evaluation.groups import by_length
from fedrec.recsys.evaluation.ranking import per_user
from fedrec.recsys.evaluation.significance import compare

METRIC = "ndcg@10"
COMPARED = (METRIC, "recall@10")

HEADLINES = ("hybrid", OURS)
"""Our models, of which each is compared with every other model."""

FROM_FIRST_SEED = ("personal",)
"""Models that start from the first seed's federated run, and are compared with that run alone."""

Ranks = dict[str, list[np.ndarray]]
"""Model → the ranks of every user's test item, (U,) for each seed."""


def load_all_ranks(records: Records, out: Path) -> Ranks:
    """Load the ranks of all models that have some."""
    ranks: Ranks = {}
    for name, record in records.items():
        if record.job.family not in SEPARATE and (out / name / RANKS).is_file():
            ranks.setdefault(record.job.model, []).append(load_ranks(out / name))
    return ranks


def compare_models(ranks: Ranks) -> tuple[Comparison, ...]:
    """Compare each of ours with each other model: paired over users, on each user's mean over the seeds."""
    present = [model for model in HEADLINES if model in ranks]
    pairs = [(ours, other) for ours in present for other in ranks if other not in present[: present.index(ours) + 1]]
    return tuple(_compare(ranks, ours, other, metric) for ours, other in pairs for metric in COMPARED)


def _compare(ranks: Ranks, model: str, other: str, metric: str) -> Comparison:
    pair = (ranks[model][: 1 if other in FROM_FIRST_SEED else None], ranks[other])
    ours, theirs = (np.mean([per_user(seed, metric) for seed in seeds], axis=0) for seeds in pair)
    bootstrap = compare(ours, theirs, np.random.default_rng(0))
    return Comparison(
        a=model,
        b=other,
        metric=metric,
        difference=round_figure(bootstrap.difference),
        interval=(round_figure(bootstrap.low), round_figure(bootstrap.high)),
        p=round_figure(bootstrap.p),
    )


def group_by_history(ranks: Ranks, data: Path) -> tuple[UserGroup, ...]:
    """Group users by their number of events before the test item, and compute each model's mean NDCG@10 per group."""
    shard = Shard.load(data)
    users = shard.ranked(range(len(shard)))
    lengths = np.array([len(shard.history(user, "test")) for user in users])
    groups = {name: [by_length(lengths, seed) for seed in seeds] for name, seeds in ranks.items()}
    return tuple(
        UserGroup(
            group=group.name,
            from_=group.shortest,
            to=group.longest,
            users=group.users,
            ndcg_10={
                name: round_figure(fmean(seed[number].metrics[METRIC] for seed in seeds))
                for name, seeds in groups.items()
            },
        )
        for number, group in enumerate(next(iter(groups.values()), [[]])[0])
    )
