"""Poisoning: users who lie together to have one item recommended, or to ruin the model, within all that is checked.

A lying user sends a change of its own making, at the clip, in place of what its data would give. The lies are told by a
node of honest and lying users, through the round loop and the server's checks. On which node a user is makes no
difference to a sum, so that one node stands for a thousand phones; the setting `groups` says how finely the server sees
them.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from operator import add
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedrec.data.dataset import Dataset
from fedrec.data.randomness import salt_of
from fedrec.data.shard import HELD_OUT, Shard
from fedrec.federation.checkpoint import State
from fedrec.federation.client_app import client_app
from fedrec.federation.clipping import norms
from fedrec.federation.config import RunConfig, from_flat, to_flat
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order, Update
from fedrec.federation.node import Node
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.training_run import open_run, train
from fedrec.recsys.evaluation.groups import count_events
from fedrec.recsys.evaluation.ranking import RankingConfig, metric_means, metric_sums, rank_users
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.two_tower import TwoTowerModel

BELOW = 1 - 1e-4
"""The length of a lie, relative to the clip: the server refuses a longer one."""

Lie = Callable[[Node, Order, Adapter], Adapter]
"""A function of a lying user's node, of the order and of the adapter to the change that the user sends."""


@dataclass(frozen=True)
class Harm:
    """The state of honest users after training."""

    shown: float  # of those who have not had the target, the share in whose top ten it is
    ndcg: float  # at 10, of their test items


@dataclass(frozen=True, eq=False)
class PoisonedNode(Node):
    """A node of honest users, and of some who all tell the same lie."""

    liars: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    lie: Lie = lambda node, order, adapter: adapter

    def train(self, order: Order, adapter: Adapter) -> Update:
        """Answer with the sum of honest changes and of lies, with metrics that raise no suspicion."""
        lying = np.isin(order.users, self.liars)
        answers = [super().train(replace(order, users=order.users[~lying]), adapter)] if (~lying).any() else []
        if lying.any():
            change, users = scale_to(self.lie(self, order, adapter), order.clip * BELOW), int(lying.sum())
            sums = {"loss": 1.0 * users, "learners": 1.0 * users, "clipped": 1.0 * users, "diverged": 0.0}
            answers.append(Update(order.round, users, {name: users * t for name, t in change.items()}, sums))
        return reduce(add, answers)


def scale_to(change: Adapter, length: float) -> Adapter:
    """Scale a change to an L2 norm; one of zeros stays."""
    norm = float(norms({name: tensor.unsqueeze(0) for name, tensor in change.items()}))
    return {name: tensor.double() * (length / norm if norm else 0.0) for name, tensor in change.items()}


def promote(node: Node, order: Order, adapter: Adapter, target: int, histories: Sequence[np.ndarray]) -> Adapter:
    """Compute the step along which a target's probability rises fastest for users with such histories.

    It is the gradient of the mean of log softmax(scores of all items)[target], by both towers.
    """
    setup = node.setup
    trained = {name: tensor.clone().requires_grad_() for name, tensor in adapter.items()}
    scores = _scores(setup.model, trained, setup.embeddings.matrix, histories)
    chance = torch.log_softmax(scores / setup.config.model.temperature, dim=1)[:, target].mean()
    steps = torch.autograd.grad(chance, list(trained.values()))
    return dict(zip(trained, steps, strict=True))


def _scores(model: TwoTowerModel, adapter: Adapter, embeddings: Tensor, histories: Sequence[np.ndarray]) -> Tensor:
    """Score all items for histories, with gradients by the adapter: (B, N)."""
    stack = {name: tensor.unsqueeze(0) for name, tensor in adapter.items()}
    vectors = model.functional_forward(stack, "item", embeddings.unsqueeze(0))[0]  # (N, E)
    longest = max(map(len, histories))
    rows = torch.zeros(len(histories), longest, dtype=torch.long)
    mask = torch.zeros(len(histories), longest, dtype=torch.bool)
    for place, history in enumerate(histories):
        rows[place, longest - len(history) :] = torch.from_numpy(history.astype(np.int64))
        mask[place, longest - len(history) :] = True
    return model.functional_forward(stack, "user", vectors[rows], mask)[:, -1] @ vectors.T


def flip(node: Node, order: Order, adapter: Adapter) -> Adapter:
    """Compute the opposite of what all users that the order names would have sent together."""
    honest = Node(node.shard, node.setup).train(order, adapter).deltas
    return {name: -tensor for name, tensor in honest.items()}


def forge(shard: Shard, liars: np.ndarray, target: int, repeats: bool) -> Shard:
    """Forge the histories of some users, who then follow the protocol: the target is every second event or, without
    repeats, which preparing drops by default, the last event of those that are trained on."""
    items = np.array(shard.items)
    for start, end in zip(shard.starts[liars], shard.ends[liars], strict=True):
        last = end - HELD_OUT["train"] - 1
        items[start if repeats else last : last + 1 : 2] = target
    return Shard(shard.starts, shard.ends, items, shard.salts)


def invent(shard: Shard, users: int) -> Shard:
    """Invent users, who share one history; their tickets are as good as any."""
    salts = np.array([salt_of(f"invented-{user}") for user in range(users)], dtype=np.uint64)
    return Shard(np.repeat(shard.starts[:1], users), np.repeat(shard.ends[:1], users), shard.items, salts)


def draw_liars(users: int, share: float, seed: int = 0) -> np.ndarray:
    """Draw the users who lie: a share of U, rounded down, rising."""
    return np.sort(np.random.default_rng(seed).choice(users, int(share * users), replace=False))


def dead_item(dataset: Dataset) -> int:
    """Return the first of the items with the fewest training events."""
    return int(count_events(dataset).argmin())


def promoting_node(setup: TrainingSetup, shard: Shard, liars: np.ndarray, target: int) -> PoisonedNode:
    """Build the node of a shard, of whose users some promote a target by crafted changes."""
    length = setup.config.model.history
    known = [shard.history(user, "train")[-length:] for user in liars]
    return PoisonedNode(shard, setup, liars=liars, lie=partial(promote, target=target, histories=known))


def train_with(nodes: Sequence[Node], setup: TrainingSetup) -> Adapter:
    """Train a run over nodes in this process, and return the adapter of its best round."""
    app, settings = client_app(lambda context: nodes[context.node_id - 1]), to_flat(setup.config)
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(Path(folder) / "run", setup.dataset, setup.config, resume=False)
        train(LocalGrid(app, [{}] * len(nodes), settings), run)
        state = State.load(run.out)
    if state is None:
        raise RuntimeError("the run has left no state")
    return state.best


def measure_harm(setup: TrainingSetup, adapter: Adapter, target: int, liars: np.ndarray) -> Harm:
    """Measure what the honest users of a dataset are shown, and how well they are served."""
    shard = setup.dataset.shard
    honest = np.setdiff1d(np.arange(len(shard)), liars).tolist()
    score = setup.method.scorer(adapter, shard, "test", {})
    found = rank_users(score, shard, honest, "test", RankingConfig(coverage=True))
    unseen = sum(target not in shard.history(user) for user in honest)
    return Harm(float(found.listed[target] / max(1, unseen)), metric_means(metric_sums(found.ranks))["ndcg@10"])


@dataclass(frozen=True)
class Liars:
    """The users who promote a target, and how."""

    share: float = 0.05
    how: str = "crafted"  # crafted: changes of their own making; repeated, once: histories with the target in them
    nodes: int = 1  # in all, of one of which the liars are the users; 1: they are anywhere


def measure_promotion(data: Path, config: RunConfig, liars: Liars, target: int | None = None) -> Harm:
    """Train with liars who promote a target, the dead item unless another is named, and measure the harm.

    With a share of 0 nobody lies: what is shown and lost is to be compared with that.
    """
    setup = TrainingSetup(Dataset.open(data), replace(config, nodes=liars.nodes))
    users = len(setup.dataset.shard)
    target = dead_item(setup.dataset) if target is None else target
    spread = np.arange(0, users, liars.nodes)[: int(liars.share * users)]  # those of the first node
    chosen = draw_liars(users, liars.share) if liars.nodes == 1 else spread
    nodes = [Node.host(setup, part, liars.nodes) for part in range(liars.nodes)]
    if len(chosen):
        nodes[0] = _lying_node(setup, nodes[0].shard, chosen // liars.nodes, liars.how, target)
    return measure_harm(setup, train_with(nodes, setup), target, chosen)


def _lying_node(setup: TrainingSetup, shard: Shard, liars: np.ndarray, how: str, target: int) -> Node:
    if how == "crafted":
        return promoting_node(setup, shard, liars, target)
    return Node(forge(shard, liars, target, repeats=how == "repeated"), setup)


SHORT = {"rounds": 16, "negatives": 128, "history": 12, "layers": 1, "server_rate": 0.01}
"""Settings of a run that takes seconds; the attack needs no more rounds."""
PHONES = {"clients_per_round": 64}
NODES = {"clients_per_round": 160}
"""Users of a round: 8 on each of 20 nodes."""


def main(data: str, *cases: str) -> None:
    """Print the harm of liars in some cases: rule, share, how, nodes, groups, with a colon between them.

    `python -m benchmarks.attacks.poisoning DATA sum:0.05:crafted:1:1 median:0.05:crafted:20:1 …`
    """
    for case in cases:
        rule, share, how, nodes, groups = case.split(":")
        settings = SHORT | (NODES if int(nodes) > 1 else PHONES)
        config = from_flat(settings | {"aggregation": rule, "groups": int(groups)})
        harm = measure_promotion(Path(data), config, Liars(float(share), how, int(nodes)))
        print(f"{case}: shown to {harm.shown:.3f}, NDCG@10 {harm.ndcg:.4f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
