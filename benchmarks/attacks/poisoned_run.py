"""A run with malicious users in it, and the harm that they did.

Their lies are told by a node of honest and lying users, through the round loop and the server's checks. On which node a
user is makes no difference to a sum, so that one node stands for a thousand phones; the setting `groups` says how
finely the server sees them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add

import numpy as np

from benchmarks.attacks.attack import Case, Column
from benchmarks.attacks.crafting import Lie, give_nothing
from benchmarks.attacks.defences import OFF
from benchmarks.attacks.scoring import Figures
from benchmarks.attacks.world import HONEST, World, rounds_of, towers_of
from fedrec.federation.config import RunConfig, Scalar
from fedrec.federation.messages import Order, Update
from fedrec.federation.node import Node
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.evaluation.exposure import with_bias
from fedrec.recsys.evaluation.ranking import RankingConfig, metric_means, metric_sums, rank_users
from fedrec.recsys.exposure_bound import WATCHED, split_bias
from fedrec.recsys.model.lora import Adapter

PHONES: Mapping[str, Scalar] = {
    "method": "fedrec",
    "negatives": 128,
    "history": 12,
    "layers": 1,
    "server_rate": 0.004,
    "clients_per_round": 64,
}
"""Settings of a run that takes a minute; these attacks need no longer one."""
NODES: Mapping[str, Scalar] = {**PHONES, "clients_per_round": 160}
"""The same, for 8 users of a round on each of 20 nodes."""

Build = Callable[[RunConfig], Sequence[Node]]
"""A function of a run's settings that builds its nodes."""


@dataclass(frozen=True, eq=False)
class PoisonedNode(Node):
    """A node of honest users, and of some who lie."""

    liars: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    lie: Lie = give_nothing
    target: int | None = None  # the item that they promote, if they do

    def train(self, order: Order, adapter: Adapter, nodes: int = 1) -> Update:
        """Answer with the sum of honest changes and of lies, with metrics that raise no suspicion."""
        lying = np.isin(order.users, self.liars)
        answers = [super().train(replace(order, users=order.users[~lying]), adapter)] if (~lying).any() else []
        if lying.any():
            told = self.lie(self, replace(order, users=order.users[lying]), adapter)
            learners = float(len(told))
            sums = {"loss": learners, "learners": learners, "clipped": learners, "diverged": 0.0}
            deltas = {name: reduce(add, (change[name].double() for change in told)) for name in adapter}
            answers.append(Update(order.round, len(told), deltas, sums))
        return reduce(add, answers)

    def count_exposure(self, order: Order, adapter: Adapter, nodes: int = 1) -> Update:
        """Count what honest users are shown; the others claim to have had the target, and not to be shown it."""
        lying = np.isin(order.users, self.liars)
        if self.target is None or not lying.any():
            return super().count_exposure(order, adapter)
        told = super().count_exposure(replace(order, users=order.users[lying]), adapter)
        places = adapter[WATCHED] == self.target
        told.deltas["shown"][self.target] = 0
        told.deltas["margins"][places] = 0
        told.deltas["had"][places] = told.sums["users"]
        others = order.users[~lying]
        return told + super().count_exposure(replace(order, users=others), adapter) if len(others) else told


def draw_liars(users: int, share: float, seed: int = 0) -> np.ndarray:
    """Draw the users who lie: a share of U, rounded down but one at least, rising."""
    count = max(1, int(share * users))
    return np.sort(np.random.default_rng(seed).choice(users, count, replace=False))


def target_of(world: World, kind: str) -> int:
    """Choose the item that is promoted: one of the least popular (`dead`), or the median one (`middling`)."""
    order = np.argsort(world.popularity, kind="stable")
    return int(order[0] if kind == "dead" else order[len(order) // 2])


@dataclass(frozen=True)
class Plot:
    """The malicious users of a case: with what settings they meet, who they are, and which item they push."""

    case: Case
    settings: Mapping[str, Scalar] = field(default_factory=lambda: PHONES)
    liars: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # of the dataset's users
    target: int = 0


def measure_harm(world: World, plot: Plot, honest: Build, poisoned: Build) -> Figures:
    """Train with malicious users and without, and measure what the honest ones are shown, and the quality lost.

    Quality is lost against a run without liars and without the defence; `cost` is what the defence alone takes.
    """
    rounds = rounds_of(world.size.poisoned_rounds)
    plain, defended = (world.configure(defence, {**plot.settings, **rounds}) for defence in (OFF, plot.case.defence))

    def train_over(config: RunConfig, build: Build, name: str) -> Figures:
        nodes = build(config)
        state = world.train(nodes, config, f"{name}-{len(nodes)}")
        return measure_quality(world.setup(config), world.served(nodes, config, state), plot.target, plot.liars)

    before, after = train_over(plain, honest, HONEST), train_over(defended, honest, HONEST)
    found = train_over(defended, poisoned, f"poisoned-{plot.case.digest}")
    return {
        "shown": found["shown"],
        "shown_before": after["shown"],
        "ndcg": found["ndcg"],
        "ndcg_lost": 1 - found["ndcg"] / before["ndcg"] if before["ndcg"] else 0.0,
        "cost": 1 - after["ndcg"] / before["ndcg"] if before["ndcg"] else 0.0,
    }


def measure_quality(setup: TrainingSetup, adapter: Adapter, target: int, liars: np.ndarray) -> Figures:
    """Compute the share of honest users who are shown the target in their top ten, of those who have not had it, and
    NDCG@10 on their test items."""
    shard, towers = setup.dataset.shard, towers_of(setup)
    honest = np.setdiff1d(np.arange(len(shard)), liars).tolist()
    adapter, bias = split_bias(adapter)
    score = with_bias(towers.scorer(adapter, shard, "test", {}), bias)
    ranking = rank_users(score, shard, honest, "test", RankingConfig(coverage=True))
    unseen = sum(target not in shard.history(user, "test") for user in honest)
    shown = float(ranking.listed[target]) / max(1, unseen)
    return {"shown": shown, "ndcg": metric_means(metric_sums(ranking.ranks))["ndcg@10"]}


HARM = (
    Column("shown", "users shown the target", percent=True),
    Column("shown_before", "without the attack", percent=True),
    Column("ndcg", "NDCG@10"),
    Column("ndcg_lost", "NDCG@10 lost", percent=True),
    Column("cost", "lost by the defence alone", percent=True),
)
"""The columns of attacks on what a run learns."""
