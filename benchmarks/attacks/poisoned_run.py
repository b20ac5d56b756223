"""A run with malicious users in it, and the harm that they did."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch

from benchmarks.attacks.attack import Column
from benchmarks.attacks.defences import Defence
from benchmarks.attacks.scoring import Figures
from benchmarks.attacks.world import HONEST, World, rounds_of, towers_of
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order, Update
from fedrec.federation.node import Node
from fedrec.recsys.evaluation.ranking import mask_seen, metric_means, metric_sums, rank_users
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.training.method import TwoTowerMethod

LISTED = 10

Craft = Callable[[Adapter, float, int], Adapter]
"""A function of the adapter, the clip and the target item that returns the change of one malicious user."""


def zero_change(adapter: Adapter, clip: float, target: int) -> Adapter:
    """Return a change of nothing: that of a free rider."""
    return {name: torch.zeros_like(tensor) for name, tensor in adapter.items()}


@dataclass(frozen=True, eq=False)
class MaliciousNode(Node):
    """A node whose users all send the same crafted change, within what the server can check."""

    craft: Craft = zero_change
    target: int = 0

    def train(self, order: Order, adapter: Adapter) -> Update:
        """Answer with as many crafted changes as users were asked for."""
        users = len(order.users)
        change = self.craft(adapter, order.clip, self.target)
        sums = {"loss": float(users), "learners": float(users), "clipped": 0.0, "diverged": 0.0}
        return Update(order.round, users, {name: users * tensor.double() for name, tensor in change.items()}, sums)


def scale_to_clip(change: Adapter, clip: float) -> Adapter:
    """Scale a change to the length of the clip, a hair below it."""
    length = float(torch.stack([tensor.double().norm() for tensor in change.values()]).norm())
    return {name: tensor.double() * (0.999 * clip / max(length, 1e-12)) for name, tensor in change.items()}


def target_of(world: World, kind: str) -> int:
    """Choose the item that is promoted: one of the least popular (`dead`), or the median one (`middling`)."""
    order = np.argsort(world.popularity, kind="stable")
    return int(order[0] if kind == "dead" else order[len(order) // 2])


def config_of(world: World, defence: Defence) -> RunConfig:
    """Return the settings of a poisoned run."""
    return world.configure(defence, rounds_of(world.size.rounds))


def harm_of(world: World, config: RunConfig, intruders: Node, target: int) -> Figures:
    """Train with intruders beside the honest users, and without; measure what those are shown, and the quality lost."""
    clean = _train_and_measure(world, config, [world.node(config)], target)
    found = _train_and_measure(world, config, [world.node(config), intruders], target)
    lost = 1 - found["ndcg"] / clean["ndcg"] if clean["ndcg"] else 0.0
    return found | {"shown_before": clean["shown"], "ndcg_lost": lost}


def _train_and_measure(world: World, config: RunConfig, nodes: Sequence[Node], target: int) -> Figures:
    """Train over nodes in a folder of their own: an interrupted training resumes, and a clean one is done once."""
    about = [describe_intruders(node) for node in nodes[1:]]
    name = f"poisoned-{blake2b(repr(about).encode(), digest_size=6).hexdigest()}" if about else HONEST
    return measure_quality(world, towers_of(world.setup(config)), world.train(nodes, config, name).adapter, target)


def describe_intruders(node: Node) -> tuple[object, ...]:
    """Return what tells one node of intruders from another."""
    craft = getattr(node.craft, "func", node.craft) if isinstance(node, MaliciousNode) else None
    target = node.target if isinstance(node, MaliciousNode) else 0
    return len(node.shard), node.shard.items.tobytes(), getattr(craft, "__name__", ""), target


def measure_quality(world: World, towers: TwoTowerMethod, adapter: Adapter, target: int) -> Figures:
    """Compute the share of users who are shown the target in their top ten, and NDCG@10 on the test items."""
    shard, score = world.dataset.shard, towers.scorer(adapter, world.dataset.shard, "test", {})
    shown = asked = 0
    for users in np.array_split(np.arange(world.users), -(-world.users // 256)):
        histories = [shard.history(user, "test") for user in users]
        top = mask_seen(score(users), histories).topk(LISTED).indices
        unseen = torch.tensor([target not in history for history in histories])
        shown += int(((top == target).any(1) & unseen).sum())
        asked += int(unseen.sum())
    ranking = rank_users(score, shard, range(world.users), "test")
    return {"shown": shown / max(asked, 1), "ndcg": metric_means(metric_sums(ranking.ranks))["ndcg@10"]}


def count_intruders(world: World, share: float) -> int:
    """Return how many malicious users are a share of all users, at least one."""
    return max(1, round(share * world.users / (1 - share)))


HARM = (
    Column("shown", "users shown the target", percent=True),
    Column("shown_before", "without the attack", percent=True),
    Column("ndcg", "NDCG@10"),
    Column("ndcg_lost", "NDCG@10 lost", percent=True),
)
"""The columns of attacks on what a run learns."""
