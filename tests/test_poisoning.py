"""Poisoning on the toy world: lies that the server's checks let through, and what stops some of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.attacks.crafting import PROMOTIONS, forge_histories, slope_of
from benchmarks.attacks.intruder import intruder_beside, step_of
from benchmarks.attacks.poisoned_run import PoisonedNode, measure_quality
from benchmarks.attacks.promotion import CRAFTED, DISGUISED, lying_node
from fedrec.data.dataset import Dataset
from fedrec.federation.aggregate import AGGREGATIONS
from fedrec.federation.census import take_census
from fedrec.federation.client_app import client_app
from fedrec.federation.clipping import norms
from fedrec.federation.config import from_flat, to_flat
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order
from fedrec.federation.node import Node
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.validate_update import validate_update
from fedrec.recsys.evaluation.groups import count_events
from fedrec.recsys.model.lora import Adapter
from tests.support.toy_world import small_config


@pytest.fixture(scope="module")
def setup(toy: Path) -> TrainingSetup:
    return TrainingSetup(Dataset.open(toy), small_config(clients_per_round=12))


LIARS = np.array([0, 1, 6, 7])


@pytest.fixture(scope="module")
def dead(setup: TrainingSetup) -> int:
    """The first of the items with the fewest training events."""
    return int(count_events(setup.dataset).argmin())


# ---- lies that pass the checks


def lies_of(setup: TrainingSetup, how: str, target: int) -> Sequence[Adapter]:
    """What two liars send; a node's answer with three honest users is checked as the server does."""
    liars, order, adapter = np.array([1, 4]), Order(1, np.array([0, 1, 2, 4, 7]), 1.0), setup.method.adapter()
    node = lying_node(setup, setup.dataset.shard, liars, how, target)
    assert isinstance(node, PoisonedNode)
    told = validate_update(node.train(order, adapter), order, adapter, setup.config)
    honest = Node(setup.dataset.shard, setup).train(replace(order, users=np.array([0, 2, 7])), adapter)
    lies = node.lie(node, replace(order, users=liars), adapter)
    for name in adapter:
        assert torch.allclose(told.deltas[name], honest.deltas[name] + lies[0][name] + lies[1][name])
    return lies


@pytest.mark.parametrize("how", PROMOTIONS)
def test_a_lie_is_an_answer_that_the_server_accepts(setup: TrainingSetup, dead: int, how: str) -> None:
    """Two liars of five users: the node's sum is that of three honest changes, and of two lies, each at the clip."""
    for lie in lies_of(setup, how, dead):
        assert float(norms({name: tensor.unsqueeze(0) for name, tensor in lie.items()})) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(("how", "alike"), [(CRAFTED, 1.0), (DISGUISED, 0.1)])
def test_lies_in_disguise_are_as_alike_as_they_are_told_to_be(
    setup: TrainingSetup, dead: int, how: str, alike: float
) -> None:
    lies = [torch.cat([tensor.flatten() for tensor in lie.values()]) for lie in lies_of(setup, how, dead)]
    assert cosine(lies[0], lies[1]) == pytest.approx(alike, abs=0.05)


def test_a_promoting_step_raises_the_targets_score(setup: TrainingSetup, dead: int) -> None:
    """Followed by itself, it brings the target before most others for a user whose history the liars do not know."""
    shard, adapter = setup.dataset.shard, setup.method.adapter()
    node = Node(shard, setup)
    for _ in range(10):
        step = slope_of(node, adapter, dead, [shard.history(user, "train") for user in LIARS])
        adapter = {name: tensor + 0.05 * step[name] / float(norms({k: v.unsqueeze(0) for k, v in step.items()}))
                   for name, tensor in adapter.items()}  # fmt: skip
    before, after = (measure_quality(setup, one, dead, LIARS)["shown"] for one in (setup.method.adapter(), adapter))
    assert after == 1.0
    assert before < 1.0


def test_forged_histories_by_hand(setup: TrainingSetup) -> None:
    """The last two events are held out, and another user's stay."""
    shard = setup.dataset.shard
    events = shard.items[shard.starts[0] : shard.ends[0]].tolist()
    again, once = (forge_histories(shard, np.array([0]), 23, repeats) for repeats in (True, False))
    assert once.items[shard.starts[0] : shard.ends[0]].tolist() == [*events[:-3], 23, *events[-2:]]
    forged = again.items[shard.starts[0] : shard.ends[0]].tolist()
    assert forged == [23 if place % 2 == 0 and place < len(events) - 2 else row for place, row in enumerate(events)]
    for changed in (again, once):
        assert np.array_equal(
            changed.items[shard.starts[1] : shard.ends[1]], shard.items[shard.starts[1] : shard.ends[1]]
        )


# ---- a node that invents users


INVENTED = 200
ROBUST = [rule for rule in AGGREGATIONS if rule != "sum"]


@pytest.fixture(scope="module")
def honest(setup: TrainingSetup) -> list[Node]:
    """Four nodes of three users each."""
    return [Node.host(setup, part, 4) for part in range(4)]


@pytest.fixture(scope="module")
def intruder(honest: list[Node]) -> Node:
    """A node of invented users, all of whom send the opposite of what the users of an honest node do."""
    return intruder_beside(honest, INVENTED)


def direction(setup: TrainingSetup, nodes: list[Node], share: float = 1.0, rule: str = "sum") -> torch.Tensor:
    """Compute the aggregate of one round of twelve users, of answers that the server accepts: (P,)."""
    server = replace(setup.config.server, aggregation=rule, liars=0.2)
    return step_of(nodes, replace(setup.config, server=server, node_share=share))


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
