"""A malicious server asks for what a node's policy does not allow, once for each field of it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from benchmarks.attacks.attack import Attack, Bar, Case, Column
from benchmarks.attacks.defences import OFF, POLICY, Defence
from benchmarks.attacks.scoring import Figures
from benchmarks.attacks.traps import craft_traps, rarest_items
from benchmarks.attacks.world import Size, World
from fedrec.federation.config import Scalar
from fedrec.federation.messages import Order, OrderRefused
from fedrec.federation.node import Node
from fedrec.federation.policy.node_policy import NodePolicy
from fedrec.recsys.model.lora import Adapter

ENOUGH = NodePolicy.smallest_cohort
CLOSED: Mapping[str, Scalar] = {"method": "closed-form", "feature_width": 16}

ALLOWED: Mapping[str, Scalar] = {"negatives": NodePolicy.fewest_negatives}
"""What the other settings of a world may be beyond, so that a node refuses the breach, and nothing before it."""

Ask = Callable[[World, Node], object]
"""A function that sends a node orders."""


def order_training(users: int = ENOUGH) -> Ask:
    """Return the order to train some users from the initial adapter."""
    return lambda world, node: node.train(train_order(node, users), node.setup.method.adapter())


def order_training_from(craft: Callable[[World, Node], Adapter]) -> Ask:
    """Return the order to train from a crafted adapter."""
    return lambda world, node: node.train(train_order(node, ENOUGH), craft(world, node))


def train_order(node: Node, users: int) -> Order:
    """Build the order to train the first users of a node."""
    return Order(1, np.arange(users), node.config.clip)


def order_ranking(*users: int) -> Ask:
    """Return orders to rank the held-out items of the first so many users, one order after the other."""

    def ask(world: World, node: Node) -> None:
        for some in users:
            node.evaluate(Order(1, np.arange(some), split="validation"), node.setup.method.adapter())

    return ask


def order_sums(users: int = ENOUGH, times: int = 1) -> Ask:
    """Return orders to sum the statistics of the first users."""

    def ask(world: World, node: Node) -> None:
        for _ in range(times):
            node.sum_statistics(Order(node.config.training_rounds + 1, np.arange(users)), {})

    return ask


def craft_long_rows(world: World, node: Node) -> Adapter:
    """Craft an adapter with a row that is far longer than training makes one."""
    adapter = {name: tensor.clone() for name, tensor in node.setup.method.adapter().items()}
    adapter["user.up"][0] = torch.full_like(adapter["user.up"][0], 10.0)
    return adapter


def craft_sharp_traps(world: World, node: Node) -> Adapter:
    """Craft an adapter with a trap for each of some rare items."""
    return craft_traps(world, node, rarest_items(world, node.config.model.item_rank))


@dataclass(frozen=True)
class Breach:
    """What a server asks beyond one field of a node's policy."""

    limit: str  # the field
    ask: Ask = field(default_factory=order_training)
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    policy: NodePolicy = field(default_factory=NodePolicy)


SUMS_OF_FEW = NodePolicy(smallest_open_statistics=1)
"""The policy of an owner who lets the sums of few users go."""

LONG_ROWS = NodePolicy(largest_row_norm=math.inf)
"""The policy of an owner who looks at the leverage alone."""

BREACHES = (
    Breach("smallest_cohort", order_training(ENOUGH - 1)),
    Breach("smallest_cohort", order_ranking(ENOUGH - 1)),
    Breach("smallest_cohort", order_sums(ENOUGH - 1), CLOSED),
    Breach("smallest_open_statistics", order_sums(), CLOSED),
    Breach("orders_per_user_and_day", order_sums(times=NodePolicy.orders_per_user_and_day + 1), CLOSED, SUMS_OF_FEW),
    Breach("rankings_per_user_and_day", order_ranking(*[ENOUGH] * (NodePolicy.rankings_per_user_and_day + 1))),
    Breach("memory_days", order_ranking(ENOUGH, ENOUGH + 1)),
    Breach("methods", settings={"method": "fedmf"}),
    Breach("statistic_features", order_sums(), {"method": "closed-form", "features": "ids"}),
    Breach("held_out", settings={"held_out": 1}),
    Breach("largest_clip", settings={"clip": 20.0}),
    Breach("most_local_steps", settings={"local_steps": 8}),
    Breach("fewest_negatives", settings={"negatives": 1}),
    Breach("largest_item_rank", settings={"item_rank": 300}),
    Breach("largest_user_rank", settings={"user_rank": 100}),
    Breach("largest_lora_rank", settings={"lora_rank": 32}),
    Breach("largest_leverage", order_training_from(craft_sharp_traps), policy=LONG_ROWS),
    Breach("largest_row_norm", order_training_from(craft_long_rows)),
)
"""Requests beyond the fields whose default refuses something, each to a node that refuses nothing else of it.

An encoder of other weights is not at hand here.
"""


def measure(world: World, case: Case) -> Figures:
    """Count the requests that a node obeys."""
    refusals = [refusal(world, case.defence, breach) for breach in BREACHES]
    return {"obeyed": float(sum(reason is None for reason in refusals)), "asked": float(len(BREACHES))}


def refusal(world: World, defence: Defence, breach: Breach) -> str | None:
    """Return why a node refuses what it is asked, or None if it does it; it has answered nothing before."""
    try:
        breach.ask(
            world, world.node(world.configure(OFF, {**ALLOWED, **breach.settings}), None, defence, breach.policy)
        )
    except OrderRefused as refused:
        return str(refused)
    return None


def cases(size: Size) -> list[Case]:
    """List both: a node without a policy, and one with the default."""
    return [Case("requests beyond the policy", OFF, control=True), Case("requests beyond the policy", POLICY)]


BREACHED = Attack(
    name="breaches",
    title="Requests beyond a node's policy",
    attacker="A malicious server. It writes the settings of the run, the orders and the adapters.",
    does="It asks for something beyond each field of the default policy: too few users, too often, users who differ by "
    "one, settings that hide less, a crafted adapter.",
    conclusion="A node with the default policy does nothing of this, and one without a policy does all of it.",
    columns=(Column("obeyed", "obeyed", count=True), Column("asked", "asked", count=True)),
    bar=Bar("obeyed", float(len(BREACHES))),
    cases=cases,
    measure=measure,
)
