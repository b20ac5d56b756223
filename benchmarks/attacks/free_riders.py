"""Nodes take the model and give nothing, or invent the users that they answer for."""

from collections.abc import Sequence

import numpy as np

from benchmarks.attacks.attack import Attack, Bar, Case
from benchmarks.attacks.crafting import give_nothing, invent_crowd
from benchmarks.attacks.defences import GEOMETRIC_MEDIAN, OFF, PRIVATE, Defence
from benchmarks.attacks.poisoned_run import HARM, Plot, PoisonedNode, measure_harm
from benchmarks.attacks.scoring import Figures
from benchmarks.attacks.world import Size, World
from fedrec.federation.config import RunConfig
from fedrec.federation.node import Node

BOUNDED_SHARE = Defence("half a cohort from one node", {"node_share": 0.5})
BOUNDED_USERS = Defence("a bound on a node's users", {"node_users": 1000})
"""The largest number of users that one node may bring; a node that claims more is left out."""


def measure(world: World, case: Case) -> Figures:
    """Train beside a node that claims so many times all users, and sends changes of nothing for them."""
    crowd = invent_crowd(world.dataset.shard, round(float(case.options["times"]) * world.users))

    def build_honest(config: RunConfig) -> Sequence[Node]:
        return [world.node(config)]

    def build_poisoned(config: RunConfig) -> Sequence[Node]:
        setup = world.setup(config)
        return [*build_honest(config), PoisonedNode(crowd, setup, liars=np.arange(len(crowd)), lie=give_nothing)]

    return measure_harm(world, Plot(case), build_honest, build_poisoned)


def cases(size: Size) -> list[Case]:
    """List the numbers of invented users, and the defences."""

    def case(times: float, defence: Defence = OFF, control: bool = False) -> Case:
        who = (
            f"{times:g} times all users, all invented" if times >= 1 else f"{times:.0%} free riders".replace("%", " %")
        )
        return Case(who, defence, {"times": times}, control)

    plain = [case(0.1), case(10, control=True)]
    return [*plain, *(case(10, d) for d in (PRIVATE, GEOMETRIC_MEDIAN, BOUNDED_SHARE, BOUNDED_USERS))]


FREE_RIDERS = Attack(
    name="free-riders",
    title="Users who give nothing, and users who do not exist",
    attacker="A node. Nobody can check how many users it has: it answers the census with tickets that it drew.",
    does="It sends a change of zeros for each of its users, and counts them as learners. Its invented users are drawn "
    "in place of real ones.",
    conclusion="A few free riders cost little. A node that may bring any number of users takes every cohort over; a "
    "bound on what one node may bring, or on its share of a cohort, is set by the server (`node_users`, `node_share`).",
    columns=HARM[2:],
    bar=Bar("ndcg_lost", 0.1),
    cases=cases,
    measure=measure,
)
