"""The worth of nodes: games whose values are known, and runs whose sums are taken apart."""

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.node_folders import write_node_folder
from fedrec.federation.checkpoint import State
from fedrec.federation.run_statistics import load_nodes
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.worth import Coalition, coalitions, leave_one_out, shapley_values
from fedrec.recsys.evaluation.ranking import metric_means, metric_sums, rank_users
from fedrec.recsys.training.hybrid import split_adapter
from fedrec.run import Run
from fedrec.training import train
from tests.support.cli import Fedrec, is_refused
from tests.support.toy_world import SMALL

CLOSED: dict[str, Any] = SMALL | {"method": "closed-form", "ridges": "10", "decodes": "1", "feature_width": 32}


# ---- games


def gloves(some: Coalition) -> float:
    """Nodes 1 and 2 hold a left glove each, node 3 the right one: a pair is worth 1."""
    return float(3 in some and bool(some & {1, 2}))


def test_the_glove_game() -> None:
    """Shapley's own example: (1/6, 1/6, 4/6); without either left glove nothing is lost."""
    assert shapley_values([1, 2, 3], gloves) == pytest.approx({1: 1 / 6, 2: 1 / 6, 3: 4 / 6})
    assert leave_one_out([1, 2, 3], gloves) == {1: 0.0, 2: 0.0, 3: 1.0}


def test_shapley_values_are_the_mean_over_all_orders() -> None:
    rng = np.random.default_rng(0)
    nodes = [3, 5, 8, 2**63]
    values = {some: rng.random() for some in coalitions(nodes, shapley=True)}
    gains = dict.fromkeys(nodes, 0.0)
    for order in permutations(nodes):
        for place, node in enumerate(order):
            gains[node] += (values[frozenset(order[: place + 1])] - values[frozenset(order[:place])]) / 24
    found = shapley_values(nodes, values.__getitem__)
    assert found == pytest.approx(gains)
    assert sum(found.values()) == pytest.approx(values[frozenset(nodes)] - values[frozenset()])


def test_the_coalitions_that_are_needed() -> None:
    assert coalitions([1, 2, 3], shapley=False) == [frozenset(s) for s in ({1, 2, 3}, {2, 3}, {1, 3}, {1, 2})]
    assert len(set(coalitions(list(range(10)), shapley=True))) == 1024


# ---- runs


def trained(toy: Path, out: Path, **settings: Any) -> Run:
    return train(Dataset.open(toy), out=out, progress=False, **CLOSED | settings)


@pytest.mark.parametrize("settings", [{}, {"features": "ids"}, {"method": "hybrid", "rounds": 1}], ids=str)
def test_a_nodes_worth_is_what_a_run_without_it_lacks(toy: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    """Of three nodes that share the users like cards: against sums that never had the users of the node."""
    settings = settings | ({"blend_shares": "0.5"} if "method" in settings else {})
    run = trained(toy, tmp_path / "run", nodes=3, **settings)
    found = run.contributions(Dataset.open(toy))
    assert found.columns == ["node", "users", "learners", "all", "without", "worth"]
    assert found["node"].to_list() == [1, 2, 3]
    assert found["users"].to_list() == [4, 4, 4]
    others = run.forget([f"person-{user:02d}" for user in range(0, 12, 3)], Dataset.open(toy))
    assert found["without"][0] == pytest.approx(validated(others, toy))
    assert found["worth"][0] == pytest.approx(found["all"][0] - found["without"][0])
    assert load_nodes(run.folder)[1].learners == 0


def validated(run: Run, data: Path, towers: bool = False) -> float:
    """NDCG@10 of the validation items by the run's checkpoint, or by its towers alone."""
    setup, state = TrainingSetup(Dataset.open(data), run.config), State.load(run.folder)
    assert state
    adapter = split_adapter(state.best)[0] if towers else state.best
    score = setup.method.scorer(adapter, setup.dataset.shard, "validation", {})
    return metric_means(metric_sums(rank_users(score, setup.dataset.shard, range(12), "validation").ranks))["ndcg@10"]


def test_shapley_values_share_what_all_nodes_gain(toy: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    run = trained(toy, tmp_path / "run", nodes=4)
    rows = fedrec("contribute", run.folder, "--data", toy, "--shapley", "--json").answer
    assert [row["node"] for row in rows] == [1, 2, 3, 4]
    # without sums, the untrained towers rank by text neighbours
    assert sum(row["shapley"] for row in rows) == pytest.approx(rows[0]["all"] - validated(run, toy, towers=True))
    table = fedrec("contribute", run.folder, "--data", toy)
    assert table.code == 0
    assert "worth" in table.out
    assert "shapley" not in table.out


def test_nodes_that_know_different_things_are_both_needed(toy: Path, tmp_path: Path) -> None:
    """Users 0 to 5 cook, and 6 to 11 fly. Dealt to two nodes like cards, each node can stand in for the other; dealt by
    kind, neither can: text neighbours rank for half of the users."""
    order = np.array([0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11])
    dataset, by_kind = Dataset.open(toy), tmp_path / "by-kind"
    by_kind.mkdir()
    write_node_folder(dataset, by_kind, dataset.shard.select(order), dataset.users[order])
    found = {}
    for name, data in (("mixed", toy), ("kinds", by_kind)):
        run = trained(data, tmp_path / name, nodes=2, features="ids")
        found[name] = run.contributions(Dataset.open(data))["worth"].to_list()
    assert min(found["kinds"]) > 0
    assert sum(found["kinds"]) > sum(found["mixed"])


def test_worth_that_cannot_be_told_is_refused(toy: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    to_serve = trained(toy, tmp_path / "to-serve", nodes=2, held_out=0)
    is_refused(fedrec("contribute", to_serve.folder, "--data", toy), "held_out = 0")
    alone = trained(toy, tmp_path / "alone", nodes=1)
    is_refused(fedrec("contribute", alone.folder, "--data", toy), "1 nodes apart")
    many = trained(toy, tmp_path / "many", nodes=11)
    is_refused(fedrec("contribute", many.folder, "--data", toy, "--shapley"), "--shapley", "2,048", "at most 10")
    assert fedrec("contribute", many.folder, "--data", toy).code == 0
    with pytest.raises(InputError, match="`shapley`"):
        many.contributions(Dataset.open(toy), shapley=True)
