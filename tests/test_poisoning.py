"""Poisoning on the toy world: lies that the server's checks let through, and what stops some of them."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.attacks.poisoning import (
    Liars,
    PoisonedNode,
    dead_item,
    flip,
    forge,
    invent,
    measure_harm,
    measure_promotion,
    promoting_node,
    train_with,
)
from fedrec.data.dataset import Dataset
from fedrec.federation.clipping import norms
from fedrec.federation.config import from_flat
from fedrec.federation.messages import Order
from fedrec.federation.node import Node
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.validate_update import validate_update
from fedrec.recsys.model.lora import Adapter
from tests.support.toy_world import small_config

ROUNDS = {"rounds": 8, "validate_every": 8, "clients_per_round": 12, "server_rate": 0.02}


@pytest.fixture(scope="module")
def setup(toy: Path) -> TrainingSetup:
    return TrainingSetup(Dataset.open(toy), small_config(**ROUNDS))


def movement(setup: TrainingSetup, nodes: list[Node], **changes: object) -> torch.Tensor:
    """Train over nodes, and return how the adapter has moved: (P,)."""
    trained = train_with(nodes, TrainingSetup(setup.dataset, small_config(**(ROUNDS | changes))))
    start = setup.method.adapter()
    return torch.cat([(trained[name] - start[name]).flatten() for name in sorted(start)])


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


# ---- lies that pass the checks


def test_a_lie_is_an_answer_that_the_server_accepts(setup: TrainingSetup) -> None:
    """Two liars of five users: the node's sum is that of three honest changes, and of twice the lie, at the clip."""
    liars, order, adapter = np.array([1, 4]), Order(1, np.array([0, 1, 2, 4, 7]), 1.0), setup.method.adapter()
    shard = setup.dataset.shard
    node = promoting_node(setup, shard, liars, dead_item(setup.dataset))
    told = validate_update(node.train(order, adapter), order, adapter, setup.config)
    honest = Node(shard, setup).train(replace(order, users=np.array([0, 2, 7])), adapter)
    lies = {name: (told.deltas[name] - honest.deltas[name]).unsqueeze(0) for name in adapter}
    assert float(norms(lies)) == pytest.approx(2.0, rel=1e-3)


def test_a_promoting_step_raises_the_targets_score(setup: TrainingSetup) -> None:
    """Followed by itself, it brings the target before most others for a user whose history the liars do not know."""
    shard, target = setup.dataset.shard, dead_item(setup.dataset)
    node = promoting_node(setup, shard, np.array([0, 1, 6, 7]), target)
    adapter: Adapter = setup.method.adapter()
    for _ in range(10):
        step = node.lie(node, Order(1, np.array([0]), 1.0), adapter)
        adapter = {name: tensor + 0.05 * step[name] / float(norms({k: v.unsqueeze(0) for k, v in step.items()}))
                   for name, tensor in adapter.items()}  # fmt: skip
    before, after = (measure_harm(setup, a, target, np.array([0, 1, 6, 7])) for a in (setup.method.adapter(), adapter))
    assert after.shown == 1.0
    assert before.shown < 1.0


def test_forged_histories_by_hand(setup: TrainingSetup) -> None:
    """The last two events are held out, and another user's stay."""
    shard = setup.dataset.shard
    events = shard.items[shard.starts[0] : shard.ends[0]].tolist()
    again, once = (forge(shard, np.array([0]), 23, repeats) for repeats in (True, False))
    assert once.items[shard.starts[0] : shard.ends[0]].tolist() == [*events[:-3], 23, *events[-2:]]
    forged = again.items[shard.starts[0] : shard.ends[0]].tolist()
    assert forged == [23 if place % 2 == 0 and place < len(events) - 2 else row for place, row in enumerate(events)]
    for changed in (again, once):
        assert np.array_equal(
            changed.items[shard.starts[1] : shard.ends[1]], shard.items[shard.starts[1] : shard.ends[1]]
        )


def test_the_harness_runs_every_way_to_lie(toy: Path) -> None:
    config = small_config(rounds=1, validate_every=1)
    for liars in (Liars(0.0), Liars(0.25), Liars(0.25, nodes=3), Liars(0.25, "repeated"), Liars(0.25, "once", nodes=3)):
        assert 0 <= measure_promotion(toy, config, liars).shown <= 1


# ---- one lying node among others


def test_a_lying_node_turns_the_sum_and_not_the_robust_rules(setup: TrainingSetup) -> None:
    """One node of six, of users who all send the opposite. Its mean change is as long as the clip, the honest ones' are
    shorter; the control is the sum."""
    nodes = [Node.host(setup, part, 6) for part in range(6)]
    liar = PoisonedNode(nodes[0].shard, setup, liars=np.arange(2), lie=flip)
    clean = movement(setup, nodes, nodes=6)
    kept = {
        rule: cosine(movement(setup, [liar, *nodes[1:]], nodes=6, aggregation=rule, liars=0.17), clean)
        for rule in ("sum", "median", "trimmed-mean", "geometric-median", "multi-krum", "norm-bound")
    }
    assert max(kept, key=lambda rule: kept[rule]) != "sum"
    assert kept["geometric-median"] > kept["sum"]


def test_a_node_that_invents_users_and_what_stops_it(setup: TrainingSetup) -> None:
    """Two hundred invented users beside twelve: with the defaults nearly every change is a lie, and the model goes the
    other way. With a bound on a node's share of the round, and a rule over nodes, it goes where it went."""
    honest = [Node.host(setup, part, 4) for part in range(4)]
    crowd = invent(setup.dataset.shard, 200)
    opposite = partial(_opposite_of, setup, honest[0])
    intruder = PoisonedNode(crowd, setup, liars=np.arange(200), lie=opposite)
    clean = movement(setup, honest, nodes=4)
    destroyed = movement(setup, [*honest, intruder], nodes=5)
    held = movement(setup, [*honest, intruder], nodes=5, node_share=0.25, aggregation="median")
    assert cosine(destroyed, clean) < 0
    assert cosine(held, clean) > 0.5


def _opposite_of(setup: TrainingSetup, honest: Node, node: Node, order: Order, adapter: Adapter) -> Adapter:
    """Lie with the opposite of the change of honest users."""
    return flip(honest, replace(order, users=np.arange(len(honest.shard))), adapter)


def test_a_node_with_more_users_than_it_may_bring_is_left_out(
    setup: TrainingSetup, caplog: pytest.LogCaptureFixture
) -> None:
    honest = [Node.host(setup, part, 4) for part in range(4)]
    intruder = PoisonedNode(invent(setup.dataset.shard, 200), setup, liars=np.arange(200), lie=flip)
    limited = movement(setup, [*honest, intruder], nodes=5, node_users=12)
    assert "it brings 200 users" in caplog.text or "its census has" in caplog.text
    assert torch.equal(limited, movement(setup, honest, nodes=4, node_users=12))


def test_the_default_settings_have_no_such_bound() -> None:
    """They are for nodes that are trusted; this is what to change where they are not."""
    config = from_flat({})
    assert (config.node_share, config.server.aggregation) == (1.0, "sum")
