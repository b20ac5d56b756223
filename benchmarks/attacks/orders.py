"""A malicious server finds one user's held-out item by a few orders to evaluate."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.attacks.attack import Attack, Bar, Case, Column
from benchmarks.attacks.defences import OFF, POLICY, PRIVATE, SMALL_NOISE, Defence
from benchmarks.attacks.history import invent_users
from benchmarks.attacks.scoring import Figures, auc, average
from benchmarks.attacks.world import Size, World, towers_of
from fedrec.federation.messages import Order
from fedrec.federation.node import Node
from fedrec.recsys.model.item_tower import GELU_INPUT_SCALE
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.user_tower import causal_mask, position_ids

KEY = 5
SPLIT = "validation"
LOUD = 1e4
"""The length of the user vector's constant part, beside which a history does not count."""
CROWD = 16
"""The users who are asked about together with the victim, and then without."""

Rank = Callable[[Adapter], float]
"""A function of an adapter that returns what the server learns of the rank of the victim's item."""


def measure(world: World, case: Case) -> Figures:
    """Ask about victims by some orders, and compare the guesses with their held-out items."""
    orders, differencing = int(case.options["orders"]), bool(case.options["differencing"])
    node = world.node(world.configure(case.defence), defence=case.defence)
    adapters = [craft_order(world, node, number) for number in range(orders)]
    places = np.stack([places_of(world, node, adapter) for adapter in adapters])  # (orders, N)
    rows = []
    for victim in node.shard.ranked(world.generator(KEY).choice(world.users, world.size.victims, replace=False)):
        rank = rank_by_difference(world, node, int(victim)) if differencing else rank_alone(node, int(victim))
        seen = [rank(adapter) for adapter in adapters]
        noise = case.defence.noise * world.generator(KEY, int(victim)).standard_normal(orders)
        ranks = 1 / np.clip(np.array(seen) + noise, 1 / places.shape[1], 1) - 1
        scores, truth = guess(places, ranks), world.mark(node.shard.held_out([int(victim)], SPLIT))
        rows.append(
            {
                "found": float(truth[scores.argmax()]),
                "auc": auc(scores, truth),
                "popularity_found": float(truth[world.popularity.argmax()]),
                "popularity_auc": auc(world.popularity, truth),
            }
        )
    return average(rows)


def craft_order(world: World, node: Node, number: int) -> Adapter:
    """Craft an adapter that ranks the items in a random order, the same for every user.

    The head of the user tower answers with one vector whatever the history, and the item tower adds a random function
    of an item's text along that vector.
    """
    rng = torch.Generator().manual_seed(1000 * world.seed + number)
    adapter = {name: tensor.clone() for name, tensor in node.setup.method.adapter().items()}
    width, rank = adapter["item.up"].shape
    constant = F.normalize(torch.randn(width, generator=rng), dim=0)
    typical = typical_hidden_state(world, node)
    adapter["user.down"].zero_()[0] = typical / typical.square().sum()
    adapter["user.up"].zero_()[:, 0] = LOUD * constant
    adapter["item.down"] = torch.randn(rank, width, generator=rng)
    adapter["item.up"] = constant.unsqueeze(1) * torch.randn(rank, generator=rng) / rank**0.5
    return adapter


def typical_hidden_state(world: World, node: Node) -> torch.Tensor:
    """Compute the mean of what the head of the user tower reads, over invented users: (D,)."""
    cohort = invent_users(world, 8, node.config).training_windows(range(8), node.config.model.history, 0, 1, 2)
    items, mask = torch.from_numpy(cohort.items[:, 0]), torch.from_numpy(cohort.mask[:, 0])
    encoder = towers_of(node.setup).model.user.encoder
    with torch.inference_mode():
        hidden = encoder(
            inputs_embeds=world.embeddings[items],
            attention_mask=causal_mask(mask).unsqueeze(1),
            position_ids=position_ids(mask),
        ).last_hidden_state
    return hidden[mask].mean(0).clone()


def places_of(world: World, node: Node, adapter: Adapter) -> np.ndarray:
    """Count the items that each item is ranked behind by a crafted adapter: (N,)."""
    low = F.gelu(GELU_INPUT_SCALE * world.embeddings @ adapter["item.down"].T)
    vectors = F.normalize(world.embeddings + low @ adapter["item.up"].T, dim=-1)
    scores = vectors @ F.normalize(adapter["user.up"][:, 0], dim=0)
    places = np.empty(len(scores))
    places[scores.argsort(descending=True).numpy()] = np.arange(len(scores))
    return places


def rank_alone(node: Node, victim: int) -> Rank:
    """Return a function that asks for the reciprocal rank of one user's held-out item."""
    return lambda adapter: reciprocal_ranks(node, np.array([victim]), adapter)


def rank_by_difference(world: World, node: Node, victim: int) -> Rank:
    """Return a function that asks about a crowd with the victim, and about the crowd alone."""
    others = world.generator(KEY, victim).permutation(np.delete(np.arange(world.users), victim))[:CROWD]
    together = np.append(others, victim)
    return lambda adapter: reciprocal_ranks(node, together, adapter) - reciprocal_ranks(node, others, adapter)


def reciprocal_ranks(node: Node, users: np.ndarray, adapter: Adapter) -> float:
    """Ask for the sum of the users' reciprocal ranks, by an order to evaluate."""
    return node.evaluate(Order(1, users, split=SPLIT), adapter).sums["mrr"]


def guess(places: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Score the items by how well their places explain the ranks: (orders, N), (orders,) → (N,).

    A user's seen items are not ranked, so that the held-out item at place p of N is ranked at about p - T p / N, for
    the unknown number T of seen items, with the variance of a binomial distribution. The score is a log-likelihood.
    """
    items = places.shape[1]
    share = (places + 0.5) / items
    missing = places - ranks[:, None]
    seen = np.clip((missing * share).sum(0) / np.square(share).sum(0), 1, items)
    variance = seen * share * (1 - share) + 1
    return -(np.square(missing - seen * share) / variance + np.log(variance)).sum(0)


def cases(size: Size) -> list[Case]:
    """List the numbers of orders, and both ways to ask."""

    def case(orders: int, differencing: bool = False, defence: Defence = OFF, control: bool = False) -> Case:
        how = f"of {CROWD + 1} users, and of {CROWD} of them" if differencing else "of one user"
        return Case(f"{orders} orders {how}", defence, {"orders": orders, "differencing": differencing}, control)

    alone = [case(3), case(6), case(12, control=True)]
    defended = [case(12, defence=defence) for defence in (SMALL_NOISE, POLICY, PRIVATE)]
    return [*alone, case(12, differencing=True), case(12, True, POLICY), *defended]


ORDERS = Attack(
    name="orders",
    title="The held-out item, from orders to evaluate",
    attacker="A malicious server. It chooses the adapter that it sends and the users that it asks about, within what a "
    "run's settings allow.",
    does="It crafts adapters that rank the items in random orders, the same for all users, and asks for the metrics of "
    "one user: the reciprocal rank says where the item is in each order. About the same user it asks within a crowd, "
    "too, and about the crowd without the user.",
    conclusion="A few orders to evaluate one user name the item that nobody was to see. A smallest cohort alone does "
    "not end it, since two cohorts that differ by one user do the same; it takes a limit on how often a user is asked "
    "about, or noise on the metrics.",
    columns=(
        Column("found", "item found", percent=True),
        Column("auc", "AUC"),
        Column("popularity_found", "popularity: found", percent=True),
        Column("popularity_auc", "popularity: AUC"),
    ),
    bar=Bar("found", 0.5),
    cases=cases,
    measure=measure,
)
