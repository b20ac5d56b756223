"""The federated baselines: a client against plain autograd, the laws, the leak, and what stays on the node."""

import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.shard import NO_ITEM, Shard
from fedrec.federation import round_log
from fedrec.federation.config import RunConfig, from_flat
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.training_run import METRICS, open_run, train
from fedrec.recsys.exact_sum import GRID, exact_scatter, exact_sum
from fedrec.recsys.federated_baselines.examples import example_blocks, sample_examples
from fedrec.recsys.federated_baselines.method import TABLE, DualPersonalisation, MatrixFactorisation
from fedrec.recsys.recommender import Recommender
from fedrec.recsys.training.baseline_config import FederatedBaselineConfig
from fedrec.recsys.training.method import FederatedMethod
from tests.laws.method_laws import MethodLaws, train_cohort, train_over, train_run
from tests.support.cli import Fedrec, is_refused
from tests.support.toy_world import SMALL

METHODS = {"fedmf": MatrixFactorisation, "pfedrec": DualPersonalisation}
Baseline = MatrixFactorisation | DualPersonalisation
SETTINGS = {
    "optimizer": "fedavg",
    "server_rate": 1.0,
    "schedule": "constant",
    "clip": 1e9,
    "validate_every": 1,
    "baseline_item_rate": 0.5,
}
ITEMS = 60
QUICK = FederatedBaselineConfig(baseline_dim=8, baseline_batch=64, baseline_item_rate=0.5)


def baseline_config(method: str, **changes: object) -> RunConfig:
    return from_flat(SMALL | SETTINGS | {"method": method} | changes)


def baseline(method: str, config: FederatedBaselineConfig = QUICK) -> Baseline:
    return METHODS[method](config, ITEMS, seed=0)


@pytest.fixture(scope="module")
def varied() -> Shard:
    """Fourteen users with 3 to 55 events: batches of many sizes, up to five of them."""
    rng = np.random.default_rng(0)
    lengths = np.arange(3, 59, 4)
    ends = np.cumsum(lengths)
    items = np.concatenate([rng.permutation(ITEMS)[:length] for length in lengths])
    return Shard(ends - lengths, ends, items, rng.integers(2**63, size=len(lengths)).astype(np.uint64))


class Plain(nn.Module):
    """A client as a module: its own copy of the table, and a linear score function."""

    def __init__(self, table: Tensor, v: Tensor) -> None:
        super().__init__()
        self.items = nn.Parameter(table.clone())
        self.w, self.b = nn.Parameter(v[:-1].clone()), nn.Parameter(v[-1].clone())

    def loss(self, rows: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy((self.items[rows] @ self.w + self.b).sigmoid(), labels)


def plain_client(learner: Baseline, shard: Shard, user: int) -> Plain:
    """A round of one client with autograd and torch's SGD, a batch at a time."""
    config, dual = learner.config, isinstance(learner, DualPersonalisation)
    client = Plain(learner.adapter()[TABLE], learner.initial_state(shard.salts[user]).user_vector)
    private = torch.optim.SGD([client.w, client.b] if dual else [client.w], lr=config.baseline_rate)
    shared = torch.optim.SGD([client.items], lr=config.baseline_item_rate * ITEMS)
    rows, own = sample_examples(config, shard, user, ITEMS, (0, 1))
    for batch in torch.arange(len(rows)).split(config.baseline_batch):
        items, labels = torch.from_numpy(rows)[batch], torch.from_numpy(own)[batch].float()
        for optimizers in [(private,), (shared,)] if dual else [(private, shared)]:
            client.zero_grad()
            client.loss(items, labels).backward()
            for optimizer in optimizers:
                optimizer.step()
    return client


class BaselineLaws(MethodLaws):
    """What the two share: users with 3 to 55 events, and a run of a few rounds."""

    table = TABLE
    name: ClassVar[str]

    @pytest.fixture
    def method(self) -> FederatedMethod:
        return baseline(self.name)

    @pytest.fixture
    def config(self) -> RunConfig:
        return baseline_config(self.name)

    @pytest.fixture
    def users(self, varied: Shard) -> Shard:
        return varied


class TestMatrixFactorisation(BaselineLaws):
    name = "fedmf"


class TestDualPersonalisation(BaselineLaws):
    name = "pfedrec"


@pytest.mark.parametrize("method", METHODS)
def test_a_client_does_what_autograd_does(varied: Shard, method: str) -> None:
    learner, parts = baseline(method), {}
    changes = train_cohort(learner, learner.adapter(), varied, range(len(varied)), parts)
    for user in range(len(varied)):
        client = plain_client(learner, varied, user)
        with torch.no_grad():
            torch.testing.assert_close(
                changes[user][0][TABLE].float(), client.items - learner.adapter()[TABLE], atol=2e-4, rtol=1e-3
            )
            torch.testing.assert_close(
                parts[user].user_vector, torch.cat([client.w, client.b[None]]), atol=1e-4, rtol=1e-3
            )
            own = client.items if isinstance(learner, DualPersonalisation) else learner.adapter()[TABLE]
            expected = own @ client.w + client.b
            scores = learner.scorer(learner.adapter(), varied, "test", parts)([user])[0]
            torch.testing.assert_close(scores, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_starts_its_private_parts_anew(toy: Path, tmp_path: Path, method: str) -> None:
    """The node is open still, and had better not remember."""
    first, second = (train_run(toy, baseline_config(method), tmp_path / name) for name in ("first", "second"))
    assert torch.equal(first.adapter[TABLE], second.adapter[TABLE])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 20), st.integers(1, 50), st.data())
def test_what_is_held_out_changes_nothing(seed: int, length: int, round: int, data: st.DataObject) -> None:
    """Without the leak, a user's examples are the same whatever its validation and test items are."""
    events = np.random.default_rng(seed).permutation(ITEMS)[:length]
    changed = events.copy()
    changed[-2:] = data.draw(st.permutations(sorted(set(range(ITEMS)) - set(events[:-2].tolist()))))[:2]
    one, other = (one_user(history) for history in (events, changed))
    for ours, theirs in zip(
        sample_examples(QUICK, one, 0, ITEMS, (0, round)),
        sample_examples(QUICK, other, 0, ITEMS, (0, round)),
        strict=True,
    ):
        assert ours.tolist() == theirs.tolist()


def one_user(events: np.ndarray) -> Shard:
    return Shard(np.array([0]), np.array([len(events)]), events, np.array([5], dtype=np.uint64))


def drawn(config: FederatedBaselineConfig, shard: Shard, rounds: int) -> set[int]:
    examples = (sample_examples(config, shard, 0, ITEMS, (0, round)) for round in range(rounds))
    return {int(row) for rows, own in examples for row in rows[~own]}


def test_only_with_the_leak_are_held_out_items_never_drawn() -> None:
    shard = one_user(np.arange(20))  # 18 to train, 18 and 19 held out
    assert drawn(QUICK, shard, 50) == set(range(18, ITEMS))
    assert drawn(replace(QUICK, baseline_leak=True), shard, 50) == set(range(20, ITEMS))


def test_examples_are_a_clients_own_items_once_and_four_others_each(varied: Shard) -> None:
    for block in example_blocks(QUICK, varied, np.arange(len(varied)), ITEMS, (0, 1)):
        items = block.rows.unsqueeze(1).expand(-1, block.places.shape[1], -1).gather(2, block.places)
        for client, user in enumerate(block.users):
            there, own = block.mask[client], block.labels[client].bool()
            history = varied.history(user, "train")
            assert int(there.sum()) == 5 * len(history)
            assert sorted(items[client][own].tolist()) == sorted(history.tolist())
            assert not set(items[client][there & ~own].tolist()) & set(history.tolist())
            assert not own[~there].any()


def test_a_user_who_has_everything_draws_nothing() -> None:
    rows, own = sample_examples(QUICK, one_user(np.arange(ITEMS + 2) % ITEMS), 0, ITEMS, (0, 1))
    assert sorted(rows.tolist()) == list(range(ITEMS))
    assert own.all()


def test_scattered_sums_are_dense_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    terms = torch.randn(5, 3, 2, generator=generator)
    rows = torch.tensor([[0, 1, 2], [6, 0, 3], [1, 2, 6], [4, 3, 2], [5, 6, 0]])
    factors = torch.rand(5, generator=generator)
    dense = torch.zeros(5, 7, 2).index_put((torch.arange(5).unsqueeze(1), rows), terms)
    assert torch.equal(exact_scatter(terms, rows, 7, factors), exact_sum(dense, factors))
    assert float(exact_scatter(torch.full((1, 1, 1), 3.0), rows[:1, :1], 7, torch.ones(1)).sum() * GRID) == 3 * GRID


@pytest.mark.parametrize("method", METHODS)
def test_the_baselines_learn_the_toy_world(toy: Path, shard: Shard, tmp_path: Path, method: str) -> None:
    """Who cooks is shown cooking films, who flies is shown films of space: also those never seen."""
    config = baseline_config(
        method, rounds=100, clients_per_round=12, validate_every=100, baseline_dim=4, baseline_rate=1.0
    )
    grid = LocalGrid.over(TrainingSetup(Dataset.open(toy), config))
    state, (node,) = train_over(grid, tmp_path / "run"), grid.nodes
    scores = node.setup.method.scorer(state.adapter, node.shard, "train", node.states.at(state.run, 100))(range(12))
    for user in range(12):
        scores[user, torch.from_numpy(np.array(shard.history(user, "train"), dtype=np.int64))] = torch.nan
    cooking, space = scores[:, :12].nanmean(1), scores[:, 12:].nanmean(1)
    assert (cooking > space).tolist() == [True] * 6 + [False] * 6


def test_the_leak_shows_in_what_is_measured(toy: Path, tmp_path: Path) -> None:
    """Never pushed down, the held-out item stands above the others that a user has not had."""
    mrr = {}
    for leak in (False, True):
        out, learning = (
            tmp_path / str(leak),
            {"rounds": 100, "clients_per_round": 12, "baseline_dim": 4, "baseline_rate": 1.0},
        )
        config = baseline_config("pfedrec", **learning, validate_every=100, baseline_leak=leak)
        run = open_run(out, Dataset.open(toy), config, resume=False)
        train(LocalGrid.over(run.setup), run)
        mrr[leak] = json.loads((out / METRICS).read_text())["test"]["full"]["mrr"]
    assert mrr[True] > 1.3 * mrr[False]


@pytest.mark.parametrize("method", METHODS)
def test_the_best_round_is_measured_with_its_own_private_parts(
    toy: Path, tmp_path: Path, fedrec: Fedrec, method: str
) -> None:
    """And a federated baseline's run has figures by both protocols, and no artifact."""
    out = tmp_path / "run"
    run = open_run(
        out, Dataset.open(toy), baseline_config(method, rounds=12, validation_users=12, nodes=3), resume=False
    )
    train(LocalGrid.over(run.setup), run)
    metrics, card = (json.loads((out / name).read_text()) for name in (METRICS, "card.json"))
    logged = round_log.read(out)[card["best_round"] - 1]["validation"]
    assert card["best_round"] < 12  # else the test would show nothing
    assert metrics["validation"]["full"] == logged
    assert metrics["test"].keys() == {"full", "sampled-99"}
    assert metrics["test"]["sampled-99"]["users"] == 12
    with pytest.raises(InputError, match=f"a run of {method}"):
        Recommender.load(out)
    is_refused(fedrec("train", toy, "--out", out, "--resume"), f"the client states of {method} are lost")


@pytest.mark.parametrize(("change", "said"), [({"mode": "central"}, "cannot be pooled"), ({"bits": 4}, "bits = 4")])
def test_a_peer_is_only_what_its_authors_made_it(change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        baseline_config("fedmf", **change)


def test_a_baseline_does_not_begin_from_a_run_of_ours(toy: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pfedrec cannot start from"):
        open_run(tmp_path / "new", Dataset.open(toy), baseline_config("pfedrec"), False, run)
    assert not (tmp_path / "new").exists()


def test_a_user_without_held_out_items_trains_all_the_same() -> None:
    """In a split by cold items not everybody has any; item 59, the last, is drawn as ever."""
    shard = one_user(np.array([*range(18), NO_ITEM, NO_ITEM]))
    for leak in (False, True):
        assert drawn(replace(QUICK, baseline_leak=leak), shard, 50) == set(range(18, ITEMS))
