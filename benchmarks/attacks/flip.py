"""Malicious users send the opposite of what they learn."""

from functools import partial

import numpy as np

from benchmarks.attacks.attack import Attack, Bar, Case
from benchmarks.attacks.defences import OFF
from benchmarks.attacks.history import invent_users
from benchmarks.attacks.poisoned_run import HARM, MaliciousNode, config_of, count_intruders, harm_of, scale_to_clip
from benchmarks.attacks.scoring import Figures
from benchmarks.attacks.world import Size, World
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order
from fedrec.recsys.model.lora import Adapter

OWN = 16
"""Users whose changes the attackers compute honestly, and turn around."""


def measure(world: World, case: Case) -> Figures:
    """Train with so many users who work against the others, and measure the quality lost."""
    config = config_of(world, case.defence)
    users = count_intruders(world, float(case.options["share"]))
    shard, craft = invent_users(world, users, config), partial(craft_flip, world, config)
    return harm_of(world, config, MaliciousNode(shard, world.setup(config), craft=craft), 0)


def craft_flip(world: World, config: RunConfig, adapter: Adapter, clip: float, target: int) -> Adapter:
    """Compute the mean change of a few invented users, and turn it around, as long as the clip allows."""
    own = world.node(config, invent_users(world, OWN, config))
    change = own.train(Order(1, np.arange(OWN), clip), adapter).deltas
    return scale_to_clip({name: -tensor for name, tensor in change.items()}, clip)


def cases(size: Size) -> list[Case]:
    """List the shares of malicious users."""

    def case(share: float, control: bool = False) -> Case:
        return Case(f"{share:.0%} of the users".replace("%", " %"), OFF, {"share": share}, control)

    return [case(0.01), case(0.05), case(0.5, control=True)]


FLIP = Attack(
    name="flip",
    title="Changes with the opposite sign",
    attacker="Some users who want the model to be bad. They have data of their own, and send what they like within the "
    "clip.",
    does="They compute what users like them would learn, and send the opposite, scaled to the clip.",
    conclusion="Few users cannot spoil a run by this: honest changes are clipped to the same length, and are many. "
    "Half of the users can.",
    columns=HARM[2:],
    bar=Bar("ndcg_lost", 0.2),
    cases=cases,
    measure=measure,
)
