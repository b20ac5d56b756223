"""Poisoning on the toy world: lies that the server's checks let through, and what stops some of them."""

from dataclasses import replace
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
)
from fedrec.data.dataset import Dataset
from fedrec.federation.aggregate import AGGREGATIONS, aggregate
from fedrec.federation.census import take_census
from fedrec.federation.client_app import client_app
from fedrec.federation.clipping import norms
from fedrec.federation.config import from_flat, to_flat
from fedrec.federation.exchange import orders_per_node
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order
from fedrec.federation.node import Node
from fedrec.federation.roster import Roster
from fedrec.federation.sampling import sample_clients
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.validate_update import validate_update
from fedrec.recsys.model.lora import Adapter
from tests.support.toy_world import small_config


@pytest.fixture(scope="module")
def setup(toy: Path) -> TrainingSetup:
    return TrainingSetup(Dataset.open(toy), small_config(clients_per_round=12))


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


# ---- a node that invents users


INVENTED = 200
ROBUST = [rule for rule in AGGREGATIONS if rule != "sum"]


@pytest.fixture(scope="module")
def honest(setup: TrainingSetup) -> list[Node]:
    """Four nodes of three users each."""
    return [Node.host(setup, part, 4) for part in range(4)]


@pytest.fixture(scope="module")
def intruder(setup: TrainingSetup, honest: list[Node]) -> Node:
    """A node of invented users, all of whom send the opposite of what the users of an honest node do."""

    def opposite(node: Node, order: Order, adapter: Adapter) -> Adapter:
        return flip(honest[0], replace(order, users=np.arange(len(honest[0].shard))), adapter)

    crowd = invent(setup.dataset.shard, INVENTED)
    return PoisonedNode(crowd, setup, liars=np.arange(INVENTED), lie=opposite)


def direction(setup: TrainingSetup, nodes: list[Node], share: float = 1.0, rule: str = "sum") -> torch.Tensor:
    """Compute the aggregate of one round of twelve users, of answers that the server accepts: (P,)."""
    roster, adapter = Roster.empty({}), setup.method.adapter()
    for number, node in enumerate(nodes):
        roster = roster.with_node(number, node.shard.tickets())
    order = Order(1, sample_clients(roster, 12, 0, 1, share), 1.0)
    updates = [
        validate_update(nodes[number].train(part, adapter), part, adapter, setup.config)
        for number, part in orders_per_node(roster, order).items()
    ]
    total = aggregate(updates, rule, 0.2)
    assert total
    return torch.cat([total.deltas[name].flatten() for name in sorted(adapter)])


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def test_a_node_that_invents_users_and_what_stops_it(setup: TrainingSetup, honest: list[Node], intruder: Node) -> None:
    """With the defaults most of the cohort is invented, and the model goes the other way. A bound on a node's share of
    the round leaves the intruder a quarter, and a rule over nodes less than that."""
    clean, everyone = direction(setup, honest), [*honest, intruder]
    assert cosine(direction(setup, everyone), clean) < -0.5
    shared = cosine(direction(setup, everyone, share=0.25), clean)
    assert 0.3 < shared < 0.5
    for rule in ROBUST:
        assert cosine(direction(setup, everyone, share=0.25, rule=rule), clean) > shared + 0.1, rule


def test_a_node_has_one_vote_whatever_it_claims(setup: TrainingSetup, honest: list[Node], intruder: Node) -> None:
    """Without a bound on its share, ten of twelve users are invented: against the two honest nodes that are asked, the
    intruder has one vote of three. The norm bound weighs by users, so that it does not help."""
    clean = direction(setup, honest)
    kept = {rule: cosine(direction(setup, [*honest, intruder], rule=rule), clean) for rule in AGGREGATIONS}
    assert kept["norm-bound"] == pytest.approx(kept["sum"], abs=0.01)
    for rule in ("median", "trimmed-mean", "geometric-median"):
        assert kept[rule] > 0.2, rule


def test_a_node_with_more_users_than_it_may_bring_is_left_out(
    setup: TrainingSetup, honest: list[Node], intruder: Node, caplog: pytest.LogCaptureFixture
) -> None:
    nodes, config = [*honest, intruder], small_config(nodes=5, node_users=12)
    app = client_app(lambda context: nodes[context.node_id - 1])
    roster = take_census(LocalGrid(app, [{}] * 5, to_flat(config)), config, setup.embeddings.provenance)
    assert len(roster) == 12
    assert "node 5 is left out: its census has" in caplog.text or "it brings 200 users" in caplog.text


def test_the_default_settings_have_no_such_bound() -> None:
    """They are for nodes that are trusted; this is what to change where they are not."""
    config = from_flat({})
    assert (config.node_share, config.server.aggregation) == (1.0, "sum")
