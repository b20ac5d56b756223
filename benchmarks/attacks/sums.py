"""A server reads items from the closed form's statistics."""

from typing import NamedTuple

import numpy as np
import torch

from benchmarks.attacks.attack import RECOVERY, Attack, Bar, Case
from benchmarks.attacks.defences import LARGE_NOISE, OFF, POLICY, PRIVATE, SMALL_NOISE, Defence
from benchmarks.attacks.matching import soft_span_share
from benchmarks.attacks.scoring import Figures, average, compare_to_popularity
from benchmarks.attacks.world import Size, World, with_noise
from fedrec.federation.messages import Order, Update
from fedrec.federation.node import Node
from fedrec.recsys.closed_form.packing import unpack
from fedrec.recsys.closed_form.statistics import CROSS, GRAM

KEY = 2
EVERYBODY = 10**6
"""More users than a dataset of the lab has: a sum over all."""
EIGHT_BITS, ONE_BIT = Defence("8 bits", {"bits": 8}), Defence("1 bit", {"bits": 1})


def measure(world: World, case: Case) -> Figures:
    """Recover the items of cohorts of so many users from their sums, or of one user from a difference of sums."""
    users, features = int(case.options["users"]), str(case.options["features"])
    config = world.configure(case.defence, {"method": "closed-form", "features": features})
    node, rows = world.node(config, defence=case.defence), []
    noise, closed_form = NoiseOnSums.of(world, node, case.defence), node.setup.closed_form
    for cohort in world.draw_cohorts(users, max(2, world.size.victims // 8), KEY):
        seen = noise.add(sums_of(node, cohort), world.generator(KEY, *cohort))
        victims = list(cohort.reshape(-1, 1)) if case.options["of one"] else [cohort]
        if case.options["differencing"]:
            without = noise.add(sums_of(node, cohort[1:]), world.generator(KEY, 1, *cohort))
            seen, victims = subtract(seen, without), [cohort[:1]]
        scores = guess(node, seen)
        for some in victims:
            items = np.concatenate([closed_form.summed_events(node.shard, user) for user in some])
            rows.append(compare_to_popularity(scores, world.popularity, world.mark(items)))
    return average(rows)


class NoiseOnSums(NamedTuple):
    """The noise on each number of a closed form's sums."""

    multiplier: float
    unit: float  # what one user may add, or typically adds where no clip bounds it

    @classmethod
    def of(cls, world: World, node: Node, defence: Defence) -> "NoiseOnSums":
        """Find the noise of a defence."""
        clipped = node.setup.closed_form.clipped
        multiplier = defence.noise or world.multiplier(node.config)
        return cls(multiplier, clipped.longest if clipped else sums_norm(world, node) if multiplier else 0.0)

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        return self.multiplier * self.unit

    def add(self, sums: Update, generator: np.random.Generator) -> Update:
        """Add the noise to some sums."""
        return with_noise(sums, self.unit, self.multiplier, generator)


def sums_of(node: Node, users: np.ndarray) -> Update:
    """Request the sums of users, as a server does."""
    return node.sum_statistics(Order(node.config.training_rounds + 1, users), {})


def subtract(total: Update, without: Update) -> Update:
    """Return the sums of the users who are in the first sum alone."""
    left = {name: tensor - without.deltas[name] for name, tensor in total.deltas.items()}
    return Update(total.round, total.users - without.users, left, {})


def guess(node: Node, seen: Update) -> np.ndarray:
    """Score the items: over ids by their own place in the sums; over texts by their share in the span of rows, which
    are sums of targets, or in that of the columns, which are sums of contexts."""
    statistics, features = unpack(seen.deltas), node.setup.closed_form.features
    if features is None:
        return (statistics[GRAM].diagonal().abs() + statistics[CROSS].abs().sum(0)).numpy()
    targets, contexts = statistics[CROSS], statistics[CROSS].T
    return torch.maximum(soft_span_share(features, targets), soft_span_share(features, contexts)).numpy()


def sums_norm(world: World, node: Node) -> float:
    """Compute the median length of a user's sums: the unit of the noise, as no clip bounds them yet."""
    free = Node(node.shard, node.setup)  # without a policy: the attacker has histories of its own
    lone = [sums_of(free, np.array([user])).deltas for user in world.generator(KEY, 0).integers(world.users, size=5)]
    return float(np.median([torch.cat([part.flatten() for part in sums.values()]).norm() for sums in lone]))


def cases(size: Size) -> list[Case]:
    """List the sums over texts and over ids, and the defences."""

    def case(
        users: int, features: str = "text", defence: Defence = OFF, differencing: bool = False, of_one: bool = False
    ) -> Case:
        options = {"users": users, "features": features, "differencing": differencing, "of one": of_one}
        many = "all users" if users == EVERYBODY else f"{users} {'users' if users > 1 else 'user'}"
        who = f"{'one user in a ' if of_one else ''}sum of {many}"
        who = f"one user, by two sums of {users} and {users - 1} users" if differencing else who
        return Case(f"{who}, features {features}", defence, options, users == 1 and defence is OFF)

    texts = [case(users) for users in (1, 4, 16, 128)] + [case(128, differencing=True)]
    ids = [case(users, "ids") for users in (1, 16, 128)] + [case(128, "ids", differencing=True)]
    coded = [case(1, defence=bits) for bits in (EIGHT_BITS, ONE_BIT)]
    noisy = [case(1, defence=SMALL_NOISE), case(128, "text", SMALL_NOISE, True), case(1, defence=LARGE_NOISE)]
    of_one = [case(users, defence=defence, of_one=True) for defence in (OFF, PRIVATE) for users in (128, EVERYBODY)]
    private = [case(1, defence=PRIVATE), case(128, "text", PRIVATE, True)]
    refusing = [case(1, defence=POLICY), case(128, "text", POLICY, True), case(16, "ids", POLICY)]
    return [*texts, *ids, *coded, *noisy, *of_one, *private, *refusing]


SUMS = Attack(
    name="sums",
    title="Items, from the closed form's statistics",
    attacker="The same server, with a method that has a closed form. It receives sums of products once, and knows the "
    "features of every item.",
    does="Over ids, every number of a sum belongs to two items, and the attack reads them. Over texts, the rows of "
    "`cross` are sums of the features of the user's items: an item is in the history if its features lie in the span "
    "of the rows (the test of the MUSIC algorithm), weighted by the singular values so that noise counts little. Two "
    "sums that differ by one user give that user's sums by a subtraction; so does what a node sends to withdraw one.",
    conclusion="The sums of one user are the user's history, over ids and over texts, and few bits do not change that. "
    "Those of many users are the set of their items. The difference of two large sums is the sums of one user again: a "
    "smallest cohort does not protect against that without noise, or without a promise to answer once.",
    columns=RECOVERY,
    bar=Bar("auc", 0.95),
    cases=cases,
    measure=measure,
)
