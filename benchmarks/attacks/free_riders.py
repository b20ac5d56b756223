"""Nodes take the model and give nothing, or invent the users that they answer for."""

import numpy as np

from benchmarks.attacks.attack import Attack, Bar, Case
from benchmarks.attacks.defences import OFF, Defence
from benchmarks.attacks.poisoned_run import HARM, MaliciousNode, config_of, harm_of
from benchmarks.attacks.scoring import Figures
from benchmarks.attacks.world import Size, World, forge_shard

KEY = 9
BOUNDED_SHARE = Defence("half a cohort from one node", {"node_share": 0.5})
BOUNDED_USERS = Defence("a bound on a node's users", {"node_users": 1000})
"""The largest number of users that one node may bring; a node that claims more is left out."""


def measure(world: World, case: Case) -> Figures:
    """Train beside a node that claims so many times all users, and sends changes of nothing for them."""
    config = config_of(world, case.defence)
    users = round(float(case.options["times"]) * world.users)
    shard = forge_shard([np.zeros(2, dtype=np.int64)] * users, world.generator(KEY))
    return harm_of(world, config, MaliciousNode(shard, world.setup(config)), 0)


def cases(size: Size) -> list[Case]:
    """List the numbers of invented users."""

    def case(times: float, defence: Defence = OFF, control: bool = False) -> Case:
        who = (
            f"{times:g} times all users, all invented" if times >= 1 else f"{times:.0%} free riders".replace("%", " %")
        )
        return Case(who, defence, {"times": times}, control)

    return [case(0.1), case(10, control=True), case(10, BOUNDED_SHARE), case(10, BOUNDED_USERS)]


FREE_RIDERS = Attack(
    name="free-riders",
    title="Users who give nothing, and users who do not exist",
    attacker="A node. Nobody can check how many users it has: it answers the census with tickets that it drew.",
    does="It sends a change of zeros for each of its users, and counts them as learners. Its invented users are drawn "
    "in place of real ones.",
    conclusion="A few free riders cost little. A node that may bring any number of users takes every cohort over; a "
    "bound on what one node may bring, or on its share of a cohort, is set by the server (`node_users`, `node_share`).",
    columns=HARM[2:],
    bar=Bar("ndcg_lost", 0.2),
    cases=cases,
    measure=measure,
)
