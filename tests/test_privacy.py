"""Differential privacy in a run: one user's influence is bounded, noise and ledger come before use, and a canary audit
finds no more than is claimed."""

import json
import logging
import math
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.federation import round_log
from fedrec.federation.checkpoint import State
from fedrec.federation.clipping import clip_and_sum, norms
from fedrec.federation.config import RunConfig
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order, OrderRefused, Update
from fedrec.federation.node import Node
from fedrec.federation.privacy.accounting import Releases
from fedrec.federation.privacy.audit import audit_release, draw_canaries
from fedrec.federation.privacy.ledger import FILE, Ledger, Spent
from fedrec.federation.privatise import Privatiser, add_noise
from fedrec.federation.revision import OpenRun
from fedrec.federation.run_statistics import FOLDER, MEMBERS
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.training_run import METRICS, open_run, train
from fedrec.recsys.closed_form.norm_bounds import NormBounds, norm
from fedrec.recsys.exact_sum import GRID
from fedrec.recsys.recommender import CARD
from fedrec.recsys.training.closed_form import ClosedFormMethod
from fedrec.recsys.training.local_training import ClientUpdates
from tests.support.toy_world import begun, shard_of, small_config

PRIVATE = {"epsilon": 8.0, "delta": 1e-3}
PAIRS = PRIVATE | {"method": "closed-form", "features": "pairs", "pair_neighbours": 4}


def ledger_of(folder: Path) -> Ledger:
    return Ledger.load(folder)


def planned(noise: float = 1.0, rounds: int = 3, statistics: int = 1, population: int = 100) -> Ledger:
    """A ledger with given noise, whose guarantee is what that noise keeps."""
    plan = Releases(rounds, 0.1 if rounds else 0.0, noise if rounds else 0.0, statistics, noise if statistics else 0.0)
    return Ledger(plan.spent(1e-3), 1e-3, population, plan, clip=1.0, statistic_clip=1.0)


def privatiser(folder: Path, ledger: Ledger, **changes: object) -> Privatiser:
    ledger.save(folder)
    return Privatiser.open(folder, small_config(**PRIVATE, **changes))


# ---- sensitivity


@settings(max_examples=40, deadline=None)
@given(
    scale=st.floats(1e-6, 1e6),
    clip=st.floats(1e-3, 100),
    numbers=st.integers(1, 300),
    kind=st.sampled_from(["normal", "one", "equal", "not a number"]),
)
def test_one_user_moves_the_sum_of_changes_by_at_most_the_sensitivity(
    scale: float, clip: float, numbers: int, kind: str
) -> None:
    """The noise is for `release_round`'s `longest`: clip · (1 + 2⁻¹⁶) + √numbers · 2⁻³³."""
    generator = torch.Generator().manual_seed(numbers)
    changes = torch.randn(3, numbers, generator=generator)
    changes[2] = {
        "normal": torch.randn(numbers, generator=generator),
        "one": torch.eye(numbers)[0],
        "equal": torch.ones(numbers),
        "not a number": torch.full((numbers,), math.nan),
    }[kind]
    changes[2] *= scale
    with_user, without = (
        clip_and_sum(ClientUpdates({"a": changes[:users]}, torch.ones(users)), 1, clip).deltas["a"] for users in (3, 2)
    )
    moved = float((with_user - without).norm())
    assert moved <= clip * (1 + 2.0**-16) + math.sqrt(numbers) / (2 * GRID)


HISTORIES = st.lists(st.lists(st.integers(0, 23), max_size=40), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(histories=HISTORIES, own=st.lists(st.integers(0, 23), max_size=60), features=st.sampled_from(["pairs", "text"]))
def test_one_user_moves_the_statistics_by_at_most_the_clip(
    histories: list[list[int]], own: list[int], features: str
) -> None:
    method = method_over(features, clip=0.7)
    everyone = shard_of([*histories, own])
    users = np.arange(len(histories) + 1)
    with_user, without = (method.sum_users(everyone, some).statistics for some in (users, users[:-1]))
    bounds = method.clipped
    assert bounds
    moved = {name: tensor - without[name] for name, tensor in with_user.items()}
    assert norm(moved) <= bounds.longest
    bounds.check(with_user, len(users))  # and the server accepts the sums


def method_over(features: str, clip: float = 0.0) -> ClosedFormMethod:
    """A closed form over 24 random texts."""
    texts = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    config = small_config(features=features, feature_width=12, pair_neighbours=5, reverse=0.5).closed_form
    return ClosedFormMethod(texts, np.arange(24), config, 0, 0, clip)


def test_a_users_statistics_are_clipped_jointly() -> None:
    """Half of the clip for each of two tensors: their joint norm is 5, so that both are scaled by 1/5."""
    bounds = NormBounds.clipped({"a": torch.Size([1]), "b": torch.Size([1])}, 1.0)
    clipped = bounds.clip({"a": torch.tensor([3.0]).double(), "b": torch.tensor([-4.0]).double()})
    assert float(clipped["a"]) == pytest.approx(0.6, abs=1e-8)
    assert float(clipped["b"]) == pytest.approx(-0.8, abs=1e-8)
    assert norm(clipped) <= 1


# ---- releases


def total_of(numbers: int, users: int = 10, clipped: float = 0.0) -> Update:
    sums = {"loss": 1.0, "learners": 9.0, "clipped": clipped, "diverged": 0.0}
    return Update(1, users, {"a": torch.zeros(numbers, dtype=torch.float64)}, sums)


def test_a_round_is_released_with_noise_of_the_clip_and_without_other_numbers(tmp_path: Path) -> None:
    released, next_clip = privatiser(tmp_path, planned(noise=2.0)).release_round(total_of(20_000), 0.5, {})
    assert released
    assert float(released.deltas["a"].std()) == pytest.approx(2.0 * 0.5, rel=0.03)
    assert torch.equal((multiples := released.deltas["a"] * GRID), multiples.round())
    assert released.sums == {"learners": 10.0}, "a tenth of 100 users is expected, whoever was drawn"
    assert next_clip == 0, "as in the settings"


def test_nobody_drawn_is_released_as_noise(tmp_path: Path) -> None:
    released, _ = privatiser(tmp_path, planned()).release_round(None, 1.0, {"a": torch.zeros(50)})
    assert released
    assert (released.deltas["a"] != 0).all()


def test_without_a_guarantee_everything_is_handed_on(tmp_path: Path) -> None:
    total = total_of(5)
    assert Privatiser.open(tmp_path, small_config()).release_round(total, 1.0, {}) == (total, 0.0)


@pytest.mark.parametrize(("clipped", "grows"), [(0.0, False), (1.0, True)])
def test_the_clip_follows_its_quantile(tmp_path: Path, clipped: float, grows: bool) -> None:
    """With all changes below the clip it falls, by at most e^(-0.2 · 0.5); with all above, it grows."""
    cohort = 10_000
    private = privatiser(tmp_path, planned(population=10 * cohort), clip_quantile=0.5, clip=4.0)
    total = total_of(3, users=cohort, clipped=clipped * cohort)
    _, next_clip = private.release_round(total, 1.0, {})
    expected = math.exp(0.2 * 0.5) if grows else math.exp(-0.2 * 0.5)
    assert next_clip == pytest.approx(expected, rel=0.06)


def test_the_clip_never_exceeds_that_of_the_settings(tmp_path: Path) -> None:
    private = privatiser(tmp_path, planned(population=100_000), clip_quantile=0.9, clip=1.0)
    assert private.release_round(total_of(3, users=10_000, clipped=10_000), 1.0, {})[1] <= 1.0


def test_statistics_are_released_once(tmp_path: Path) -> None:
    bounds = NormBounds.clipped({"a": torch.Size([20_000])}, 0.5)
    private = privatiser(tmp_path, planned(noise=2.0, population=77))
    released, deviation = private.release_statistics(total_of(20_000), bounds)
    assert deviation == 2.0 * 0.5
    assert float(released.deltas["a"].std()) == pytest.approx(1.0, rel=0.03)
    assert (released.users, released.sums) == (77, {"learners": 77.0})
    with pytest.raises(InputError, match="counts the closed form's sums as released already"):
        private.release_statistics(total_of(20_000), bounds)


# ---- the audit


@pytest.mark.parametrize("seed", range(5))
def test_a_canary_audit_finds_no_more_than_is_claimed(tmp_path: Path, seed: int) -> None:
    """Both halves: 100 of 1,000 users are canaries. Without noise, the same audit finds far more than the claim."""
    numbers, delta = 20_000, 1e-3
    generator = np.random.default_rng(seed)
    canaries = draw_canaries(100, numbers, 1.0, generator)
    others = draw_canaries(100, numbers, 1.0, generator).sum(0)
    total = torch.from_numpy(np.round((canaries.sum(0) + others) * 2**30) / 2**30)
    bounds = NormBounds.clipped({"a": torch.Size([numbers])}, 1.0)
    claim = Releases(1, 1.0, 1.2, 0, 0.0).spent(delta)
    private = privatiser(tmp_path, replace(planned(noise=1.2), plan=Releases(1, 1.0, 1.2, 1, 1.2)))
    update = Update(1, 200, {"a": total}, {"clipped": 0.0})
    round_of_towers, _ = private.release_round(update, 1.0, {})
    statistics, _ = private.release_statistics(update, bounds)
    assert round_of_towers
    for released in (round_of_towers, statistics):
        assert audit_release(released.deltas["a"].numpy(), canaries, delta) <= claim
    assert audit_release(total.numpy(), canaries, delta) > 2 * claim, "the control, without noise"


# ---- the ledger


def test_a_ledger_is_the_same_after_a_file(tmp_path: Path) -> None:
    ledger = replace(planned().with_round().with_statistics(), start=Spent(0.5, 1e-6))
    ledger.save(tmp_path)
    assert ledger_of(tmp_path) == ledger


def test_a_ledger_spends_its_budget_and_no_more() -> None:
    ledger = planned(rounds=2)
    assert ledger.spent == Spent(0.0, 0.0)
    one, both = ledger.with_round(), ledger.with_round().with_round()
    assert 0 < one.spent.epsilon < both.spent.epsilon < ledger.epsilon
    assert both.with_statistics().spent.epsilon == ledger.epsilon
    with pytest.raises(InputError, match="has spent its epsilon"):
        both.with_round()


@pytest.mark.parametrize("text", ["{", "{}", '{"epsilon": 1}', json.dumps({"unknown": 1})])
def test_a_damaged_ledger_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InputError, match="what the run has spent is unknown"):
        ledger_of(tmp_path)


def test_a_lost_ledger_is_refused(toy: Path, tmp_path: Path) -> None:
    interrupted(toy, tmp_path / "run", small_config(**PRIVATE), after=2)
    (tmp_path / "run" / FILE).unlink()
    with pytest.raises(InputError, match=r"privacy\.json is missing; without it, what the run has spent is unknown"):
        begun(tmp_path / "run", toy, small_config(**PRIVATE), resume=True)


class Stopped(Exception):
    """The end of a run at a moment of the test's choice."""


def interrupted(data: Path, out: Path, config: RunConfig, after: int) -> None:
    run = open_run(out, Dataset.open(data), config, resume=False)

    def observe(record: dict[str, object]) -> None:
        if record["round"] == after:
            raise Stopped

    with pytest.raises(Stopped):
        train(LocalGrid.over(run.setup), run, observe)


KILLED = """
import os, signal, sys
from pathlib import Path
from fedrec.federation import checkpoint
from tests.support.toy_world import begun, small_config

def save(state, folder, whole=checkpoint.State.save):
    if state.round == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)  # the ledger is written, and the noised model is not
    whole(state, folder)

checkpoint.State.save = save
begun(Path(sys.argv[2]), Path(sys.argv[1]), small_config(**eval(sys.argv[4])))
"""


def killed(data: Path, out: Path, round: int, **changes: object) -> None:
    command = [sys.executable, "-c", KILLED, str(data), str(out), str(round), repr(changes)]
    place = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=place, env=os.environ | {"PYTHONPATH": str(place)}, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_kill_between_ledger_and_checkpoint_is_counted(
    toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The ledger has the round that the checkpoint lacks. Resuming does not release it again: the guarantee holds."""
    out = tmp_path / "run"
    killed(toy, out, 3, **PRIVATE)
    state = State.load(out)
    assert state
    assert (state.round, ledger_of(out).rounds) == (2, 3)
    with caplog.at_level(logging.WARNING):
        begun(out, toy, small_config(**PRIVATE), resume=True)
    assert "1 of" in caplog.text
    assert [record["round"] for record in round_log.read(out)] == [1, 2, 4]
    assert (ledger_of(out).rounds, ledger_of(out).plan.rounds) == (4, 4)


def test_sums_that_a_kill_has_lost_are_not_released_again(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed(toy, out, 1, **PAIRS)
    assert ledger_of(out).statistics == 1
    with pytest.raises(InputError, match="a second release would overspend"):
        begun(out, toy, small_config(**PAIRS), resume=True)


# ---- runs


def test_a_private_run_keeps_its_budget_and_nothing_else(toy: Path, tmp_path: Path) -> None:
    run = begun(tmp_path / "run", toy, small_config(**PRIVATE | {"method": "hybrid", "features": "pairs"}))
    ledger = run.card["privacy"]
    assert ledger["spent"]["epsilon"] <= 8.0
    assert (ledger["rounds"], ledger["statistics"], ledger["population"]) == (4, 1, 12)
    assert ledger["relation"] == "add or remove one user"
    assert json.loads((tmp_path / "run" / METRICS).read_text()) == {}, "no metric leaves a node"
    assert not (tmp_path / "run" / FOLDER / MEMBERS).exists()
    assert not list((tmp_path / "run" / FOLDER).glob("node-*"))
    for record in round_log.read(tmp_path / "run"):
        assert record["loss"] is record["validation"] is None
        assert record["clients_without_examples"] == 0
    trained = [record for record in round_log.read(tmp_path / "run") if record["round"] <= 4]
    assert {record["clients_asked"] for record in trained} == {0}, "the size of a cohort is chance, and secret"


def test_two_private_runs_of_one_seed_differ(toy: Path, tmp_path: Path) -> None:
    first, second = (begun(tmp_path / name, toy, small_config(**PRIVATE)) for name in "ab")
    assert any(not torch.equal(tensor, second.adapter[name]) for name, tensor in first.adapter.items())


def test_nodes_of_a_private_run_answer_no_evaluation(toy: Path) -> None:
    node = Node.open(toy, small_config(**PRIVATE))
    order = Order(1, np.arange(3), split="validation")
    with pytest.raises(OrderRefused, match=r"split = 'validation' is not among \(\)"):
        node.evaluate(order, node.setup.method.adapter())
    control = Node.open(toy, small_config())
    assert control.evaluate(order, control.setup.method.adapter()).sums["users"] > 0


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"mode": "central"}, "use mode = 'federated'"),
        ({"bits": 4}, "leave bits at 32"),
        ({"node_share": 0.5}, "use 1"),
        ({"method": "fedmf"}, "train fedrec, closed-form or hybrid"),
        ({"method": "closed-form", "features": "ids"}, "use 'pairs' or 'text'"),
    ],
)
def test_settings_that_would_let_more_leave_are_refused(changes: dict[str, object], remedy: str) -> None:
    with pytest.raises(InputError, match=remedy):
        small_config(**PRIVATE | changes)
    small_config(**changes)  # the control: without a guarantee they are accepted


def test_a_start_is_carried_or_refused(toy: Path, tmp_path: Path) -> None:
    begun(tmp_path / "open", toy, small_config())
    begun(tmp_path / "private", toy, small_config(**PRIVATE))
    with pytest.raises(InputError, match="`start` learned from users of these items without noise"):
        begun(tmp_path / "a", toy, small_config(**PRIVATE), start=tmp_path / "open")
    with pytest.raises(InputError, match="the run to start from has spent"):
        begun(tmp_path / "b", toy, small_config(**PRIVATE | {"epsilon": 1.0}), start=tmp_path / "private")
    run = begun(tmp_path / "c", toy, small_config(**PRIVATE | {"epsilon": 20.0}), start=tmp_path / "private")
    before = json.loads((tmp_path / "private" / CARD).read_text())["privacy"]["spent"]
    assert run.card["privacy"]["start"] == before
    assert before["epsilon"] < run.card["privacy"]["spent"]["epsilon"] <= 20.0
    assert run.card["privacy"]["spent"]["delta"] == pytest.approx(2e-3)


def test_nobody_can_be_subtracted_from_sums_with_noise(toy: Path, tmp_path: Path) -> None:
    for name, settings_of_run, refused in (("private", PAIRS, True), ("open", PAIRS | {"epsilon": 0.0}, False)):
        config = small_config(**settings_of_run)
        begun(tmp_path / name, toy, config)
        with (
            pytest.raises(InputError, match="no user can be subtracted from them or replaced")
            if refused
            else nullcontext()
        ):
            OpenRun.load(tmp_path / name, TrainingSetup(Dataset.open(toy), config))


def test_noise_is_as_wide_as_asked() -> None:
    noised = add_noise({"a": torch.zeros(20_000)}, deviation=3.0, unit=0.25)["a"]
    assert float(noised.std()) == pytest.approx(3.0, rel=0.03)
    assert torch.equal(noised * 4, (noised * 4).round())


def test_norms_of_the_clipped_are_those_of_the_release(toy: Path) -> None:
    """What a node answers for one user is as long as the sensitivity at most, whatever the clip."""
    node = Node.host(TrainingSetup(Dataset.open(toy), small_config(clip=1e-4)))
    answer = node.train(Order(1, np.array([3]), 1e-4), node.setup.method.adapter())
    length = float(norms({name: tensor.unsqueeze(0) for name, tensor in answer.deltas.items()})[0])
    numbers = sum(tensor.numel() for tensor in answer.deltas.values())
    assert 0 < length <= 1e-4 * (1 + 2.0**-16) + math.sqrt(numbers) / (2 * GRID)
