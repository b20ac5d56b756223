"""A malicious server sends an adapter with a trap for each of some rare items."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.attacks.attack import Attack, Bar, Case, Column
from benchmarks.attacks.defences import (
    FOUR_BITS,
    LARGE_NOISE,
    MANY_NEGATIVES,
    OFF,
    POLICY,
    PRIVATE,
    SMALL_NOISE,
    Defence,
)
from benchmarks.attacks.history import ROUND, invent_users, items_of_round
from benchmarks.attacks.matching import RIDGE, fisher_discriminant
from benchmarks.attacks.scoring import Figures, auc, average
from benchmarks.attacks.world import Size, World, rounds_of, with_noise
from fedrec.federation.messages import Order, OrderRefused, Update
from fedrec.federation.node import Node
from fedrec.federation.policy.node_policy import NodePolicy
from fedrec.federation.policy.trap_neurons import check_adapter
from fedrec.recsys.model.item_tower import GELU_INPUT_SCALE
from fedrec.recsys.model.lora import Adapter

KEY = 4
THRESHOLD = 0.5
"""How much of an item's own direction a text must have to set off its trap."""
HEIGHT = 10.0
"""The activation of a trap by its own item; by other items it is 0."""
READING_RIDGE = 1e-6
"""The ridge with which combinations of neurons are found, as a share of their mean energy."""
DRAWS = 16
"""Draws of the noise that the figures are averaged over."""
HALVINGS = 12
"""The precision, in halvings, of the share of traps that the policy lets pass."""


class Sums(NamedTuple):
    """The item tower's part of some sums, and which of the trapped items are in each."""

    changes: list[Update]
    truth: np.ndarray  # (sums, n) of bool


def measure(world: World, case: Case) -> Figures:
    """Tell which rare items occur in sums over cohorts, by the change of each item's trap."""
    # The adapter and the settings are the attacker's, and so are the invented users
    users, mild = int(case.options["users"]), bool(case.options["mild"])
    negatives = NodePolicy.fewest_negatives if mild else 1
    config = world.configure(case.defence, {"negatives": negatives} | rounds_of(world.size.rounds))
    node = world.node(config, defence=case.defence)
    rare = rarest_items(world, config.model.item_rank)
    adapter = craft_traps(world, node, rare)
    adapter = soften_traps(world, node, adapter) if mild else adapter
    count = max(2, world.size.victims // 8)
    crowd = world.node(config, invent_users(world, users * count, config))

    def request_sums(asked: Node, cohorts: Sequence[np.ndarray]) -> Sums:
        changes = [asked.train(Order(ROUND, cohort, config.clip), adapter) for cohort in cohorts]
        return Sums(changes, np.stack([world.mark(items_of_round(asked, cohort))[rare] for cohort in cohorts]))

    known = request_sums(crowd, np.split(np.arange(users * count), count))
    attacked = request_sums(node, world.draw_cohorts(users, count, KEY))
    # Noise is drawn several times, so that the figures are those of the noise and not of a draw
    noise = max(case.defence.noise, world.multiplier(config)) * config.clip
    reader = Reader(readers_of(world, adapter, rare), typical_direction(world))
    rows = []
    for draw in range(DRAWS if noise else 1):
        rng = world.generator(KEY, draw)
        found, told = (reader.features(sums.changes, noise, rng) for sums in (known, attacked))
        rows.append(guess(found, known.truth.ravel(), told, attacked.truth.ravel()))
    popularity = auc(np.tile(world.popularity[rare], count), attacked.truth.ravel())
    return average(rows) | {"popularity_auc": popularity, "present": float(attacked.truth.mean())}


@dataclass(frozen=True, eq=False)
class Reader:
    """What the attacker looks at for each trapped item: how long its combination of columns is, and where it points."""

    combinations: Tensor  # (R, n)
    typical: Tensor  # (E,)

    def features(self, changes: Sequence[Update], noise: float, rng: np.random.Generator) -> np.ndarray:
        """Compute both signs of each item in each sum, with noise of a standard deviation: (sums · n, 2)."""
        rows = []
        for change in changes:
            told = with_noise(change, 1.0, noise, rng).deltas["item.up"] @ self.combinations  # (E, n)
            rows.append(torch.stack([told.norm(dim=0), self.typical @ told], dim=1).numpy())
        return np.concatenate(rows)


def guess(found: np.ndarray, known: np.ndarray, told: np.ndarray, truth: np.ndarray) -> Figures:
    """Learn from invented users who have rare items how both signs weigh, and score the guesses about real ones."""
    weights = fisher_discriminant(found, known) if 1 < known.sum() < len(known) - 1 else np.array([1.0, 0])
    return {"auc": auc(told @ weights, truth), "untrained_auc": auc(told[:, 0], truth)}


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


def soften_traps(world: World, node: Node, crafted: Adapter) -> Adapter:
    """Mix traps with the neurons of an honest start, as little as makes the default policy let them pass."""
    honest, least, most = node.setup.method.adapter()["item.down"], 0.0, 1.0
    gelu = node.config.model.item_tower == "gelu"

    def mix_in(share: float) -> Adapter:
        return crafted | {"item.down": (1 - share) * honest + share * crafted["item.down"]}

    for _ in range(HALVINGS):
        middle = (least + most) / 2
        try:
            check_adapter(NodePolicy(), mix_in(middle), world.embeddings, gelu)
            least = middle
        except OrderRefused:
            most = middle
    return mix_in(least)


def readers_of(world: World, adapter: Adapter, items: np.ndarray) -> Tensor:
    """Compute the combinations of neurons that single each item out most: (R, n) float64.

    The item tower's change is a sum over items of a direction times the item's activations a, so that (AᵀA)⁻¹ a is the
    combination with most of its energy on the item. Of sharp traps it is one neuron.
    """
    active = F.gelu(GELU_INPUT_SCALE * world.embeddings.double() @ adapter["item.down"].double().T)  # (N, R)
    gram = active.T @ active
    ridge = READING_RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    return torch.linalg.solve(gram + ridge, active[torch.from_numpy(items)].T)


def cases(size: Size) -> list[Case]:
    """List the sizes of sums, and the defences."""

    def case(users: int, defence: Defence = OFF, mild: bool = False, control: bool = False) -> Case:
        traps = ", traps that pass the policy" if mild else ""
        return Case(f"sum of {users} users{traps}", defence, {"users": users, "mild": mild}, control)

    plain = [case(16, control=True), case(128)]
    defences = (MANY_NEGATIVES, FOUR_BITS, SMALL_NOISE, LARGE_NOISE, PRIVATE, POLICY)
    mild = [case(128, defence, mild=True) for defence in (OFF, POLICY, POLICY | PRIVATE)]
    return [*plain, *(case(128, defence) for defence in defences), *mild]


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
