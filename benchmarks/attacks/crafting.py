"""Changes of a user's making: what malicious users send in place of what their data would give, at the clip.

A lie is written for the order and the adapter that a node was sent, by somebody who knows everything that a node knows:
the model, the public catalogue, and histories like those of other users.
"""

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from fedrec.data.randomness import salt_of
from fedrec.data.shard import HELD_OUT, Shard
from fedrec.federation.clipping import norms
from fedrec.federation.messages import Order
from fedrec.federation.node import Node
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.two_tower import TwoTowerModel

BELOW = 1 - 1e-4
"""The length of a lie, relative to the clip: the server refuses a longer one."""

Lie = Callable[[Node, Order, Adapter], Sequence[Adapter]]
"""A function of a node, of an order to some of its users, all of whom lie, and of the adapter: the change of each."""

Histories = Sequence[np.ndarray]


def scale_to(change: Adapter, length: float) -> Adapter:
    """Scale a change to an L2 norm; one of zeros stays."""
    norm = float(norms({name: tensor.unsqueeze(0) for name, tensor in change.items()}))
    return {name: tensor.double() * (length / norm if norm else 0.0) for name, tensor in change.items()}


def repeat_for(order: Order, change: Adapter) -> list[Adapter]:
    """Return one change for each user of an order: all send the same, at the clip."""
    return [scale_to(change, order.clip * BELOW)] * len(order.users)


def give_nothing(node: Node, order: Order, adapter: Adapter) -> Sequence[Adapter]:
    """Return changes of zeros: those of free riders."""
    return repeat_for(order, {name: torch.zeros_like(tensor) for name, tensor in adapter.items()})


def flip_signs(node: Node, order: Order, adapter: Adapter) -> Sequence[Adapter]:
    """Compute the opposite of what all users that the order names would have sent together."""
    honest = Node(node.shard, node.setup).train(order, adapter).deltas
    return repeat_for(order, {name: -tensor for name, tensor in honest.items()})


def promote(node: Node, order: Order, adapter: Adapter, target: int, histories: Histories) -> Sequence[Adapter]:
    """Compute the step along which a target's probability rises fastest for users with such histories."""
    return repeat_for(order, slope_of(node, adapter, target, histories))


def promote_in_disguise(
    node: Node, order: Order, adapter: Adapter, target: int, histories: Histories, likeness: float
) -> Sequence[Adapter]:
    """Promote a target by changes with a pairwise cosine of `likeness`: each user adds a direction of its own.

    A rule that looks for answers that are alike then finds none; what is left of the common direction is
    √likeness of the clip.
    """
    common = scale_to(slope_of(node, adapter, target, histories), 1.0)
    changes = []
    for user in order.users:
        key = blake2b(f"{node.shard.salts[user]}-{order.round}".encode(), digest_size=8).digest()
        rng = torch.Generator().manual_seed(int.from_bytes(key) >> 1)
        own = scale_to({name: torch.randn(tensor.shape, generator=rng) for name, tensor in common.items()}, 1.0)
        mixed = {name: likeness**0.5 * common[name] + (1 - likeness) ** 0.5 * own[name] for name in common}
        changes.append(scale_to(mixed, order.clip * BELOW))
    return changes


def slope_of(node: Node, adapter: Adapter, target: int, histories: Histories) -> Adapter:
    """Compute the gradient of the mean of log softmax(scores of all items)[target] over histories, by both towers."""
    setup, longest = node.setup, max(map(len, histories))
    rows = torch.zeros(len(histories), longest, dtype=torch.long)
    mask = torch.zeros(len(histories), longest, dtype=torch.bool)
    for place, history in enumerate(histories):
        rows[place, longest - len(history) :] = torch.from_numpy(history.astype(np.int64))
        mask[place, longest - len(history) :] = True
    trained: dict[str, Tensor] = {name: tensor.clone().requires_grad_() for name, tensor in adapter.items()}
    scores = score_items(setup.model, trained, setup.embeddings.matrix, rows, mask)
    chance = torch.log_softmax(scores / setup.config.model.temperature, dim=1)[:, target].mean()
    return dict(zip(trained, torch.autograd.grad(chance, list(trained.values())), strict=True))


def score_items(model: TwoTowerModel, adapter: Adapter, embeddings: Tensor, histories: Tensor, mask: Tensor) -> Tensor:
    """Score all items for right-aligned histories, with gradients by the adapter: (N, E), (B, L) twice → (B, N)."""
    stack = {name: tensor.unsqueeze(0) for name, tensor in adapter.items()}
    vectors = model.functional_forward(stack, "item", embeddings.unsqueeze(0))[0]  # (N, E)
    return model.functional_forward(stack, "user", vectors[histories], mask)[:, -1] @ vectors.T


PROMOTIONS: dict[str, Callable[..., Sequence[Adapter]]] = {
    "crafted changes": promote,
    "disguised changes": partial(promote_in_disguise, likeness=0.1),
}
"""The ways to promote an item by changes of the users' own making."""


def forge_histories(shard: Shard, liars: np.ndarray, target: int, repeats: bool) -> Shard:
    """Forge the histories of some users, who then follow the protocol: the target is every second event or, without
    repeats, which preparing drops by default, the last event of those that are trained on."""
    items = np.array(shard.items)
    for start, end in zip(shard.starts[liars], shard.ends[liars], strict=True):
        last = end - HELD_OUT["train"] - 1
        items[start if repeats else last : last + 1 : 2] = target
    return Shard(shard.starts, shard.ends, items, shard.salts)


def invent_crowd(shard: Shard, users: int) -> Shard:
    """Invent users, who share one history; their tickets are as good as any."""
    salts = np.array([salt_of(f"invented-{user}") for user in range(users)], dtype=np.uint64)
    return Shard(np.repeat(shard.starts[:1], users), np.repeat(shard.ends[:1], users), shard.items, salts)
