"""Models beside each other, user by user: which difference is more than chance, and for whom a model is good.

Each user's ranks are read where the parts left them; only figures over users come out.
"""

from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.reproduce.collect import APART, OURS, RATIOS, Records, rounded
from benchmarks.reproduce.jobs import RANKS, Figures, load_ranks
from fedrec.data.shard import Shard
from fedrec.recsys.evaluation.groups import by_length
from fedrec.recsys.evaluation.ranking import per_user
from fedrec.recsys.evaluation.significance import compare

METRIC = "ndcg@10"

OF_FIRST_SEED = ("personal",)
"""Models that begin where the first seed's federated run ended, and are compared with that one."""

Ranks = dict[str, list[np.ndarray]]
"""Model → its ranks of every user's test item, (U,) for each seed."""


def ranks_of(records: Records, out: Path) -> Ranks:
    """The ranks of all models that left some."""
    found: Ranks = {}
    for name, record in records.items():
        if record["family"] not in APART and (out / name / RANKS).is_file():
            found.setdefault(record["model"], []).append(load_ranks(out / name))
    return found


def comparisons(ranks: Ranks) -> list[Figures]:
    """Ours against each other model: paired over users, each user's metric being the mean over the seeds."""
    return [_compared(ranks, other, metric) for other in ranks if OURS in ranks and other != OURS for metric in RATIOS]


def _compared(ranks: Ranks, other: str, metric: str) -> Figures:
    pair = (ranks[OURS][: 1 if other in OF_FIRST_SEED else None], ranks[other])
    ours, theirs = (np.mean([per_user(seed, metric) for seed in seeds], axis=0) for seeds in pair)
    found = compare(ours, theirs, np.random.default_rng(0))
    return {
        "a": OURS,
        "b": other,
        "metric": metric,
        "difference": rounded(found.difference),
        "interval": [rounded(found.low), rounded(found.high)],
        "p": rounded(found.p),
    }


def by_history(ranks: Ranks, data: Path) -> list[Figures]:
    """Users in groups by how many events they have before the test item, and each model's mean NDCG@10 in them."""
    shard = Shard.load(data)
    users = shard.ranked(range(len(shard)))
    lengths = np.array([len(shard.history(user, "test")) for user in users])
    groups = {name: [by_length(lengths, seed) for seed in seeds] for name, seeds in ranks.items()}
    return [
        {
            "group": group.name,
            "from": group.shortest,
            "to": group.longest,
            "users": group.users,
            METRIC: {
                name: rounded(fmean(seed[number].metrics[METRIC] for seed in seeds)) for name, seeds in groups.items()
            },
        }
        for number, group in enumerate(next(iter(groups.values()), [[]])[0])
    ]
