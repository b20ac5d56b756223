"""The seams: a new method, aggregation rule or server optimiser is one file and one row of a table."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.federation.aggregate import AGGREGATIONS
from fedrec.federation.checkpoint import State
from fedrec.federation.config import from_flat
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Update
from fedrec.federation.methods import METHODS, Method, MethodConfig
from fedrec.federation.optimisers import OPTIMISERS, Moments, ServerConfig, Step
from fedrec.federation.training_run import METRICS, TrainingRun, open_run, train
from fedrec.recsys.embeddings import Embeddings
from fedrec.recsys.evaluation.ranking import UserScorer
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.training.local_training import ClientUpdates
from fedrec.recsys.training.method import UserStates
from tests.support.cli import Fedrec
from tests.support.toy_world import SMALL, small_config

# ---- a toy method: what would be a file of its own


class Counts(NamedTuple):
    """The events of some clients, counted by item."""

    salts: np.ndarray  # (C,)
    counts: Tensor  # (C, N)


@dataclass(frozen=True, eq=False)
class FederatedPopularity:
    """Popularity that no server counts: each client sends the share that every item has of its own events."""

    items: int  # N
    held_out: int

    def adapter(self) -> Adapter:
        return {"popularity": torch.zeros(self.items)}

    def blocks(self, shard: Shard, users: np.ndarray, round: int) -> Iterator[Counts]:
        rows = [shard.items[shard.starts[user] : shard.ends[user] - self.held_out] for user in users]
        counts = np.stack([np.bincount(row, minlength=self.items) for row in rows])
        yield Counts(shard.salts[users], torch.from_numpy(counts).float())

    def train_clients(self, adapter: Adapter, block: Counts, states: UserStates) -> ClientUpdates:
        shares = block.counts / block.counts.sum(1, keepdim=True)  # (C, N)
        change = shares - adapter["popularity"]
        return ClientUpdates({"popularity": change}, change.square().sum(1))

    def scorer(self, adapter: Adapter, shard: Shard, split: str, states: UserStates) -> UserScorer:
        return lambda users: adapter["popularity"].expand(len(list(users)), -1).clone()


# ---- its row, with a builder that would import that file


def build(config: MethodConfig, embeddings: Embeddings, model: Callable[[], TwoTowerModel]) -> FederatedPopularity:
    return FederatedPopularity(len(embeddings.matrix), config.held_out)


@pytest.fixture
def popularity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "popularity", Method(build, largest_loss=lambda config: 4.0))


STILL = {"optimizer": "fedavg", "server_rate": 1.0, "schedule": "constant", "clients_per_round": 12, "clip": 10.0}
"""All users in each round, and the adapter moved by exactly their mean change."""


def trained(out: Path, toy: Path, **changes: object) -> TrainingRun:
    run = open_run(out, Dataset.open(toy), small_config(**STILL | changes), resume=False)
    train(LocalGrid.over(run.setup), run)
    return run


@pytest.mark.usefixtures("popularity")
@pytest.mark.parametrize("nodes", [1, 3])
def test_a_method_is_one_file_and_one_row(toy: Path, shard: Shard, tmp_path: Path, nodes: int) -> None:
    """It trains over any number of nodes, its best round is evaluated, and a run of it leaves metrics and a card."""
    found: list[dict] = []
    run = open_run(tmp_path, Dataset.open(toy), small_config(method="popularity", nodes=nodes, **STILL), resume=False)
    train(LocalGrid.over(run.setup), run, found.append)
    assert [record["clients_answered"] for record in found] == [12] * 4
    assert json.loads((tmp_path / METRICS).read_text())["test"]["full"]["users"] == len(shard)
    assert json.loads((tmp_path / "card.json").read_text())["config"]["method"] == "popularity"
    assert found[1]["loss"] < found[0]["loss"], "it has learned something"


@pytest.mark.usefixtures("popularity")
def test_what_the_row_leaves_out_is_refused(toy: Path) -> None:
    for change, reason in (
        ({"mode": "central"}, "clients of popularity cannot be pooled"),
        ({"bits": 4}, "popularity sends numbers as they are"),
        ({"held_out": 0}, "popularity is only evaluated"),
    ):
        with pytest.raises(InputError, match=reason):
            from_flat({"method": "popularity", **change})


@pytest.mark.usefixtures("popularity")
def test_the_command_line_takes_a_new_row(toy: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    small = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    assert fedrec("train", toy, "--out", tmp_path / "run", *small, "--set", "method=popularity").code == 0


@pytest.mark.parametrize("setting", ["method", "optimizer", "aggregation"])
def test_an_unknown_name_lists_the_table(setting: str) -> None:
    tables = {"method": METHODS, "optimizer": OPTIMISERS, "aggregation": AGGREGATIONS}
    with pytest.raises(InputError, match=rf"{setting} = 'bogus'") as refused:
        from_flat({setting: "bogus"})
    assert all(repr(name) in str(refused.value) for name in tables[setting])


# ---- an aggregation rule


def median_of_nodes(updates: Sequence[Update], liars: float) -> Update:
    """Take the median of the nodes' mean changes, for all of their clients. The other sums add as ever."""
    total = reduce(add, updates)
    means = [{name: tensor / update.sums["learners"] for name, tensor in update.deltas.items()} for update in updates]
    middle = {name: torch.stack([mean[name] for mean in means]).quantile(0.5, dim=0) for name in total.deltas}
    learners = total.sums["learners"]
    return Update(total.round, total.users, {name: t * learners for name, t in middle.items()}, total.sums)


@pytest.mark.usefixtures("popularity")
def test_an_aggregation_rule_is_one_function_and_one_row(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the median of three nodes, an item that the users of one node alone have had counts for nothing."""
    monkeypatch.setitem(AGGREGATIONS, "middle", median_of_nodes)
    settings = {"method": "popularity", "nodes": 3, "rounds": 2}
    whole, middle = (trained(tmp_path / name, toy, **settings, aggregation=name) for name in ("sum", "middle"))
    adapters = [state_of(run) for run in (whole, middle)]
    assert not torch.equal(*adapters)
    nodes = LocalGrid.over(whole.setup).nodes
    method = FederatedPopularity(len(whole.dataset.catalogue), whole.config.held_out)
    blocks = [next(method.blocks(node.shard, np.arange(len(node.shard)), 1)) for node in nodes]
    had = torch.stack([block.counts.sum(0) for block in blocks])
    lonely = (had > 0).sum(0) == 1
    assert lonely.any()
    assert (adapters[1][lonely] == 0).all()
    assert (adapters[0][lonely] > 0).all()


def state_of(run: TrainingRun) -> Tensor:
    state = State.load(run.out)
    assert state
    return state.adapter["popularity"]


# ---- a server optimiser


def sign_descent(mean: Tensor, moments: Moments, config: ServerConfig) -> Step:
    """Step by the sign of the mean change (signSGD, Bernstein et al. 2018, arXiv:1802.04434)."""
    return Step(mean.sign(), moments)


@pytest.mark.usefixtures("popularity")
def test_an_optimiser_is_one_function_and_one_row(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPTIMISERS, "sign", sign_descent)
    run = trained(tmp_path, toy, method="popularity", optimizer="sign", rounds=1, server_rate=0.25)
    assert set(state_of(run).tolist()) == {0.0, 0.25}, "a film that only held-out events hold has no share"


# ---- the rows that are there


def test_a_run_opens_the_catalogue_once_and_builds_the_model_once(
    toy: Path, tmp_path: Path, fedrec: Fedrec, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, built = [], []
    load, build_model = Catalogue.load, TwoTowerModel.__init__
    monkeypatch.setattr(Catalogue, "load", lambda folder: opened.append(folder) or load(folder))
    monkeypatch.setattr(
        TwoTowerModel, "__init__", lambda model, *inputs: built.append(model) or build_model(model, *inputs)
    )
    small = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    assert fedrec("train", toy, "--out", tmp_path / "run", *small, "--set", "nodes=3").code == 0
    assert (opened, len(built)) == ([toy], 1)


def test_the_product_does_not_import_its_baselines() -> None:
    """They are imported when a run of theirs is built."""
    code = "import sys, fedrec.federation.training_run; print([m for m in sys.modules if 'federated_baselines' in m])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
