"""An honest-but-curious server reads the items of a round from a sum of clipped changes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.attacks.attack import RECOVERY, Attack, Bar, Case
from benchmarks.attacks.defences import FOUR_BITS, LARGE_NOISE, OFF, ONE_BIT, POLICY, PRIVATE, SMALL_NOISE, Defence
from benchmarks.attacks.matching import Dictionary, fisher_discriminant, leading_direction, standardise
from benchmarks.attacks.scoring import Figures, average, compare_to_popularity
from benchmarks.attacks.world import Size, World, forge_shard, observe, rounds_of
from fedrec.data.shard import Shard
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order
from fedrec.federation.node import Node
from fedrec.recsys.model.item_tower import GELU_INPUT_SCALE
from fedrec.recsys.model.lora import Adapter

ROUND = 1
KEY = 1
USERS_AT_MOST = 192
"""Users whose changes are computed for the sums of one case, at most, unless a single sum has more."""


class Reader:
    """The attacker: it knows the adapter that it sent, so that it knows what each item would do to a change."""

    def __init__(self, world: World, adapter: Adapter, config: RunConfig) -> None:
        embeddings, down = world.embeddings, adapter["item.down"]
        low = GELU_INPUT_SCALE * embeddings @ down.T
        self._low = F.gelu(low) if config.model.item_tower == "gelu" else low  # (N, R)
        vectors = F.normalize(embeddings + self._low @ adapter["item.up"].T, dim=-1)
        self._items, self._inner = Dictionary.of(vectors), Dictionary.of(self._low)
        popularity = torch.from_numpy(world.popularity)
        weights = popularity / popularity.sum() - 1 / len(popularity)
        self._typical = vectors.double().T @ weights  # (E,) what a target looks like, beside the mean item
        self._prior = standardise(torch.log1p(popularity))

    def features(self, change: Adapter) -> Tensor:
        """Compute what speaks for each item in a sum of changes: (N, 5).

        The change of the user tower's last matrix is a sum over events of (next item's vector - expected one) times
        hidden states: the item vectors that occur in it are of the events that were predicted. That of the item
        tower's is a sum over items of a direction times the item's inner activation.
        """
        user, item = change["user.up"], change["item.up"]
        towards = leading_direction(user, self._typical)
        found = (
            self._items.subspace(user),
            self._items.signed(towards),
            self._inner.energy(item.T),
            self._inner.signed(item.double().T @ towards),
        )
        return torch.stack([*(standardise(scores) for scores in found), self._prior], dim=1)


def measure(world: World, case: Case) -> Figures:
    """Recover the items of a round from sums over cohorts of so many users."""
    users, config = int(case.options["users"]), world.configure(case.defence, rounds_of(world.size.rounds))
    adapter = world.trained() if case.options["after"] else world.setup(config).method.adapter()
    reader, count = Reader(world, adapter, config), max(2, min(world.size.victims, USERS_AT_MOST // users))

    def look(node: Node, cohorts: Sequence[np.ndarray]) -> list[tuple[Tensor, np.ndarray]]:
        seen = []
        for cohort in cohorts:
            update = observe(world, Order(ROUND, cohort, config.clip), adapter, case.defence, node)
            found = reader.features(update.deltas)
            victims = cohort.reshape(-1, 1) if case.options["of one"] else [cohort]
            seen += [(found, world.mark(items_of_round(node, some))) for some in victims]
        return seen

    # The attacker learns how to weigh its evidence from users that it invents
    weights = np.array([1.0, 0, 0, 0, 0])
    if case.options["trained"]:
        invented = invent_users(world, users * count, config)
        own = np.split(np.arange(users * count), count)
        features, truth = (np.concatenate(part) for part in zip(*look(world.node(config, invented), own), strict=True))
        weights = fisher_discriminant(features, truth)
    # and attacks real ones
    seen = look(world.node(config, defence=case.defence), world.draw_cohorts(users, count, KEY))
    return average([compare_to_popularity(found.numpy() @ weights, world.popularity, truth) for found, truth in seen])


def invent_users(world: World, users: int, config: RunConfig) -> Shard:
    """Invent users whose items are drawn by popularity, with histories as long as real ones at most."""
    rng = world.generator(KEY, 99, users)
    share = world.popularity / world.popularity.sum()
    length = min(config.model.history + 1, int((share > 0).sum()))
    lengths = rng.integers(max(2, length // 3), length + 1, size=users)
    return forge_shard([rng.choice(len(share), n, replace=False, p=share) for n in lengths], rng)


def items_of_round(node: Node, users: np.ndarray) -> np.ndarray:
    """Return the items that users train on in the round: what the attack wants."""
    config = node.config
    windows = node.shard.training_windows(users, config.model.history + 1, config.seed, ROUND, config.held_out)
    return windows.items[windows.mask]


def cases(size: Size) -> list[Case]:
    """List the sums, the moments, and the defences."""

    def case(
        users: int, after: bool = False, defence: Defence = OFF, trained: bool = True, of_one: bool = False
    ) -> Case:
        moment = f"after {size.rounds} rounds" if after else "at the start"
        how = "" if trained else ", untrained attack"
        whose = "one user in a " if of_one else ""
        about = f"{whose}sum of {users:,} {'users' if users > 1 else 'user'}, {moment}{how}"
        options = {"users": users, "after": after, "trained": trained, "of one": of_one}
        return Case(about, defence, options, about == "sum of 1 user, at the start" and defence is OFF)

    single = [case(1), case(1, trained=False), case(1, after=True)]
    sums = [case(users) for users in (2, 4, 16, 64, 128)] + [case(16, after=True)]
    of_one = [case(users, of_one=True) for users in (16, 128)]
    coded = [case(1, defence=bits) for bits in (FOUR_BITS, ONE_BIT)]
    noisy = [case(1, defence=SMALL_NOISE), case(16, defence=SMALL_NOISE), case(16, defence=LARGE_NOISE)]
    private = [case(1, defence=PRIVATE), case(128, defence=PRIVATE, of_one=True)]
    refusing = [case(1, defence=POLICY), case(16, defence=POLICY, of_one=True)]
    return [*single, *refusing, *of_one, *private, *sums, *coded, *noisy]


HISTORY = Attack(
    name="history",
    title="The items of a round, from a sum of changes",
    attacker="A server that follows the protocol and reads what it receives. It knows the adapter that it sent, the "
    "catalogue and which items are popular.",
    does="The user tower's last matrix changes by a sum of (vector of the next item - expected vector) times a hidden "
    "state, the item tower's by a sum of directions times each item's inner activation. For every item the attack "
    "measures how much of its whitened vector is in both matrices. The untrained attack ranks by the first of these "
    "measures; the trained one weighs all of them, and popularity, by a Fisher discriminant that it fits on users whom "
    "it invents.",
    conclusion="A single user's change names the user's items, at any number of bits, and so does a sum over a few "
    "users; the more users, the nearer the attack comes to popularity. So what protects is that nobody sees a sum over "
    "few users: a node that refuses to answer for few, or secure aggregation. Noise of a tenth of the clip on each of "
    "many thousand numbers is far longer than any change, and hides it.",
    columns=RECOVERY,
    bar=Bar("auc", 0.9),
    cases=cases,
    measure=measure,
)
