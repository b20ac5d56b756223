"""A malicious server sends an adapter with a trap for each of some rare items."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.attacks.attack import Attack, Bar, Case, Column
from benchmarks.attacks.defences import FOUR_BITS, LARGE_NOISE, MANY_NEGATIVES, OFF, SMALL_NOISE, Defence
from benchmarks.attacks.history import ROUND, invent_users, items_of_round
from benchmarks.attacks.matching import RIDGE, fisher_discriminant
from benchmarks.attacks.scoring import Figures, auc
from benchmarks.attacks.world import Size, World, observe, rounds_of
from fedrec.federation.messages import Order
from fedrec.federation.node import Node
from fedrec.recsys.model.lora import Adapter

KEY = 4
THRESHOLD = 0.5
"""How much of an item's own direction a text must have to set off its trap."""
HEIGHT = 10.0
"""The activation of a trap by its own item; by other items it is 0."""


def measure(world: World, case: Case) -> Figures:
    """Tell which rare items occur in sums over cohorts, by the change of each item's trap."""
    users = int(case.options["users"])
    config = world.configure(case.defence, rounds_of(world.size.rounds) | {"negatives": 1})
    node = world.node(config)
    rare = rarest_items(world, config.model.item_rank)
    adapter, typical = craft_traps(world, node, rare), typical_direction(world)
    count = max(2, world.size.victims // 8)

    def look(asked: Node, cohorts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        features, truth = [], []
        for cohort in cohorts:
            change = observe(world, Order(ROUND, cohort, config.clip), adapter, case.defence, asked).deltas["item.up"]
            features.append(torch.stack([change.norm(dim=0), typical @ change], dim=1)[: len(rare)].numpy())
            truth.append(world.mark(items_of_round(asked, cohort))[rare])
        return np.concatenate(features), np.concatenate(truth)

    # How both signs of an item in a trap's change weigh is learned from invented users who have rare items
    invented = invent_users(world, users * count, config)
    features, truth = look(world.node(config, invented), np.split(np.arange(users * count), count))
    weights = fisher_discriminant(features, truth) if 1 < truth.sum() < len(truth) - 1 else np.array([1.0, 0])
    features, truth = look(node, world.draw_cohorts(users, count, KEY))
    popularity = np.tile(world.popularity[rare], count)
    return {
        "auc": auc(features @ weights, truth),
        "untrained_auc": auc(features[:, 0], truth),
        "popularity_auc": auc(popularity, truth),
        "present": float(truth.mean()),
    }


def rarest_items(world: World, traps: int) -> np.ndarray:
    """Draw items for the traps from the rarest that anybody has."""
    known = np.argsort(np.where(world.popularity > 0, world.popularity, np.inf), kind="stable")
    pool = known[: min(2 * traps, int((world.popularity > 0).sum()))]
    return np.sort(world.generator(KEY).choice(pool, min(traps, len(pool)), replace=False))


def typical_direction(world: World) -> Tensor:
    """Compute the mean embedding, weighted by popularity: about where user vectors point. (E,) float64."""
    share = torch.from_numpy(world.popularity / world.popularity.sum())
    return share @ world.embeddings.double()


def craft_traps(world: World, node: Node, items: np.ndarray) -> Adapter:
    """Craft an adapter whose inner neurons each fire for one item: `item.down` for these items (n,).

    A neuron is a filter with value 1 for its item and nearly 0 for others, less a threshold. The item tower has no
    bias; a direction in which all texts are alike, with value 1 for each, stands for it.
    """
    adapter = {name: tensor.clone() for name, tensor in node.setup.method.adapter().items()}
    embeddings = world.embeddings.double()
    power = embeddings.T @ embeddings / len(embeddings)
    ridge = RIDGE * torch.linalg.matrix_norm(power, 2) / len(power) * torch.eye(len(power), dtype=torch.float64)
    inverse = torch.linalg.inv(power + ridge)
    own = embeddings[torch.from_numpy(items)]
    filters = own @ inverse
    filters /= (filters * own).sum(1, keepdim=True)
    constant = inverse @ embeddings.mean(0)
    traps = (filters - THRESHOLD * constant) * (HEIGHT / (4 * (1 - THRESHOLD)))
    adapter["item.down"].zero_()[: len(items)] = traps.float()
    adapter["item.up"].zero_()
    return adapter


def cases(size: Size) -> list[Case]:
    """List the sizes of sums, and the defences."""

    def case(users: int, defence: Defence = OFF, control: bool = False) -> Case:
        return Case(f"sum of {users} users", defence, {"users": users}, control)

    plain = [case(16, control=True), case(128)]
    return [*plain, *(case(128, defence) for defence in (MANY_NEGATIVES, FOUR_BITS, SMALL_NOISE, LARGE_NOISE))]


TRAPS = Attack(
    name="traps",
    title="Rare items in a large sum, by trap neurons",
    attacker="A malicious server, which crafts the adapter that it sends and the settings of the run; it sees sums "
    "over many users only, as it would under secure aggregation.",
    does="Each inner neuron of the item tower is made to fire for one rare item and for no other, so that a column of "
    "the sum changes only if a user has that item, or drew it as a negative, which the setting `negatives` = 1 makes "
    "rare. Then the length and the sign of the column tell, weighed by a Fisher discriminant on invented users.",
    conclusion="A sum over many users does not protect against the server that chose what is summed. The node must "
    "check the adapter for neurons that fire for nearly nothing. A floor for `negatives` alone does not help: with "
    "many, the sign of the column tells a user who has the item. Noise on the sum hides what the traps caught.",
    columns=(
        Column("auc", "AUC"),
        Column("untrained_auc", "AUC by the length of the column"),
        Column("popularity_auc", "popularity: AUC"),
        Column("present", "items that are there", percent=True),
    ),
    bar=Bar("auc", 0.75),
    cases=cases,
    measure=measure,
)
