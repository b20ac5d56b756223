"""Malicious users push one item into everybody's top ten."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from benchmarks.attacks.attack import Attack, Bar, Case
from benchmarks.attacks.crafting import PROMOTIONS, forge_histories
from benchmarks.attacks.defences import (
    EXPOSURE,
    GEOMETRIC_MEDIAN,
    OFF,
    PRIVATE,
    Defence,
    over_users,
)
from benchmarks.attacks.poisoned_run import (
    HARM,
    NODES,
    PHONES,
    Plot,
    PoisonedNode,
    draw_liars,
    measure_harm,
    target_of,
)
from benchmarks.attacks.scoring import Figures
from benchmarks.attacks.world import Size, World
from fedrec.data.shard import Shard
from fedrec.federation.config import RunConfig
from fedrec.federation.node import Node
from fedrec.federation.setup import TrainingSetup

CRAFTED, DISGUISED = PROMOTIONS
FORGED = {"forged histories": True, "histories forged once": False}
"""Ways to lie about a history: with the target as every second event, which preparing would drop, or as the last."""
MANY = 20


def measure(world: World, case: Case) -> Figures:
    """Train with so many malicious users who promote a target, and measure who is shown it."""
    nodes, share, users = int(case.options["nodes"]), float(case.options["share"]), world.users
    gathered = np.arange(0, users, nodes)[: int(share * users)]  # those of the first node
    liars = draw_liars(users, share, world.seed) if nodes == 1 else gathered
    plot = Plot(case, PHONES if nodes == 1 else NODES, liars, target_of(world, str(case.options["target"])))

    def build_honest(config: RunConfig) -> Sequence[Node]:
        setup = world.setup(config)
        return [Node.host(setup, part, nodes) for part in range(nodes)]

    def build_poisoned(config: RunConfig) -> Sequence[Node]:
        first, *others = build_honest(config)
        return [lying_node(first.setup, first.shard, liars // nodes, str(case.options["how"]), plot.target), *others]

    return measure_harm(world, plot, build_honest, build_poisoned)


def lying_node(setup: TrainingSetup, shard: Shard, liars: np.ndarray, how: str, target: int) -> Node:
    """Build the node of a shard of whose users some promote a target."""
    if how in FORGED:
        return Node(forge_histories(shard, liars, target, repeats=FORGED[how]), setup)
    known = [shard.history(user, "train")[-setup.config.model.history :] for user in liars]
    lie = partial(PROMOTIONS[how], target=target, histories=known)
    return PoisonedNode(shard, setup, liars=liars, lie=lie, target=target)


def cases(size: Size) -> list[Case]:
    """List the shares of malicious users, the ways to promote, the targets, and the defences."""

    def case(
        defence: Defence = OFF, share: float = 0.05, how: str = CRAFTED, target: str = "dead", nodes: int = 1
    ) -> Case:
        who = f"{share:.1%} of the users".replace("%", " %").replace(".0 ", " ")
        where = "" if nodes == 1 else f" on one node of {nodes}"
        control = (defence, share, how, target, nodes) == (OFF, 0.05, CRAFTED, "dead", 1)
        options = {"share": share, "how": how, "target": target, "nodes": nodes}
        return Case(f"{who}{where}, {how}, a {target} item", defence, options, control)

    plain = [case(), case(how=DISGUISED)]
    milder = [case(share=0.01), case(share=0.02), case(target="middling"), *(case(how=how) for how in FORGED)]
    one_node = [case(defence, nodes=MANY) for defence in (OFF, GEOMETRIC_MEDIAN)]
    bounded = [case(EXPOSURE), case(EXPOSURE, how=DISGUISED), case(EXPOSURE, nodes=MANY)]
    bounded += [case(EXPOSURE, target="middling"), *(case(EXPOSURE, how=how) for how in FORGED)]
    return [*plain, *one_node, case(PRIVATE), *milder, case(over_users(GEOMETRIC_MEDIAN)), *bounded]


PROMOTION = Attack(
    name="promotion",
    title="One item in everybody's top ten",
    attacker="Some users who work together, on phones of their own or on one node. They receive the adapter like "
    "everyone, know histories of their own, and send what they like within the clip.",
    does="They compute the gradient of their target's probability, by both towers, scale it to the clip, and send it "
    "whenever they are asked. In disguise, each mixes it with a direction of its own, so that their changes are hardly "
    "alike (cosine 0.1). Or they follow the protocol, over histories with the target in them. Asked what they are "
    "shown, those who send crafted changes claim to have had the target, and not to be shown it.",
    conclusion="A clip bounds what one user does to a round. It does not bound what many do in the same direction, "
    "since honest changes point many ways and cancel out. Of changes that are made to look unlike each other, little "
    "of the effect is left. The bound on exposure, which is on by default, asks the users what the model would show "
    "them, of whom most are honest, and takes the item out of nearly all lists: it stops every way to promote.",
    columns=HARM,
    bar=Bar("shown", 0.1),
    cases=cases,
    measure=measure,
)
