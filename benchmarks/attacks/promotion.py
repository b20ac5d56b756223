"""Malicious users push one item into everybody's top ten."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from benchmarks.attacks.attack import Attack, Bar, Case
from benchmarks.attacks.defences import OFF, SMALL_CLIP, Defence
from benchmarks.attacks.poisoned_run import (
    HARM,
    MaliciousNode,
    config_of,
    count_intruders,
    harm_of,
    scale_to_clip,
    target_of,
)
from benchmarks.attacks.scoring import Figures
from benchmarks.attacks.world import Size, World, forge_shard, towers_of
from fedrec.data.randomness import DrawKey
from fedrec.data.shard import Cohort
from fedrec.federation.config import RunConfig
from fedrec.federation.node import Node
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.training.local_training import LocalTrainer

KEY = 8
EXAMPLES = 64
"""Invented contexts that the target is to follow, in the computation of a crafted change."""
LENGTH = 20
"""Events of a forged history."""


def measure(world: World, case: Case) -> Figures:
    """Train with so many malicious users who promote a target, and measure who is shown it."""
    config = config_of(world, case.defence)
    target = target_of(world, str(case.options["target"]))
    users = count_intruders(world, float(case.options["share"]))
    intruders = INTRUDERS[str(case.options["how"])](world, config, target, users)
    return harm_of(world, config, intruders, target)


def crafted_updates(world: World, config: RunConfig, target: int, users: int) -> Node:
    """Build a node whose users send the change that promotes the target most, as long as the clip allows."""
    craft = partial(craft_promotion, world, config)
    shard = forge_shard(forge_histories(world, target, users), world.generator(KEY, users))
    return MaliciousNode(shard, world.setup(config), craft=craft, target=target)


def craft_promotion(world: World, config: RunConfig, adapter: Adapter, clip: float, target: int) -> Adapter:
    """Compute the step by which the target follows any popular item, scaled to the clip.

    The examples are those of one client with many short histories: (popular item, target).
    """
    trainer = LocalTrainer(towers_of(world.setup(config)).model, world.embeddings, config.fit)
    before = popular_items(world, world.generator(KEY, 1), EXAMPLES)
    items = np.stack([before, np.full(EXAMPLES, target)], axis=1)[None]  # (1, B, 2)
    there = np.ones(items.shape, dtype=bool)
    update = trainer.train_clients(adapter, Cohort(items, there, there, np.zeros(1, dtype=np.uint64)), DrawKey(0, 0))
    return scale_to_clip({name: tensor[0] for name, tensor in update.deltas.items()}, clip)


def forged_histories(world: World, config: RunConfig, target: int, users: int) -> Node:
    """Build an honest node over forged histories: the protocol is followed, the data are lies."""
    return world.node(config, forge_shard(forge_histories(world, target, users), world.generator(KEY, users)))


def forge_histories(world: World, target: int, users: int) -> Sequence[np.ndarray]:
    """Forge histories in which the target follows popular items: every second event."""
    drawn = [popular_items(world, world.generator(KEY, 2, user), LENGTH // 2) for user in range(users)]
    return [np.stack([some, np.full(len(some), target)], axis=1).ravel() for some in drawn]


def popular_items(world: World, rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw items by popularity."""
    return rng.choice(len(world.popularity), count, p=world.popularity / world.popularity.sum())


INTRUDERS = {"crafted changes": crafted_updates, "forged histories": forged_histories}


def cases(size: Size) -> list[Case]:
    """List the shares of malicious users, the targets, and the defences."""

    def case(share: float, how: str, target: str = "dead", defence: Defence = OFF, control: bool = False) -> Case:
        about = f"{share:.1%} of the users, {how}, a {target} item".replace("%", " %").replace(".0 ", " ")
        return Case(about, defence, {"share": share, "how": how, "target": target}, control)

    crafted, forged = INTRUDERS
    shares = [case(share, crafted, control=share == 0.05) for share in (0.001, 0.01, 0.05)]
    return [*shares, case(0.05, crafted, "middling"), case(0.05, forged), case(0.05, crafted, "dead", SMALL_CLIP)]


PROMOTION = Attack(
    name="promotion",
    title="One item in everybody's top ten",
    attacker="Some users who work together. They receive the adapter like everyone, and send what they like within the "
    "clip.",
    does="They compute the step by which their target would follow any popular item, scale it to the clip, and send it "
    "whenever they are asked. Or they follow the protocol, over histories in which the target is every second event.",
    conclusion="A clip bounds what one user does to a round. It does not bound what many do in the same direction, "
    "since honest changes point many ways and cancel out. Crafted changes are far stronger than forged histories.",
    columns=HARM,
    bar=Bar("shown", 0.02),
    cases=cases,
    measure=measure,
)
