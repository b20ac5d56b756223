"""The ledger of a run under kills, and what private runs do, keep and refuse."""

import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.federation import round_log
from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order, OrderRefused
from fedrec.federation.node import Node
from fedrec.federation.privacy.ledger import FILE, Ledger, Spent
from fedrec.federation.revision import OpenRun
from fedrec.federation.run_statistics import FOLDER, MEMBERS, load_total
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.training_run import METRICS, open_run, train
from fedrec.recsys.card import load_card
from fedrec.recsys.recommender import CARD
from tests.support.privacy import PAIRS, PRIVATE, planned
from tests.support.toy_world import begun, small_config


def ledger_of(folder: Path) -> Ledger:
    return Ledger.load(folder)


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
from fedrec.federation import checkpoint, closed_form_rounds
from tests.support.toy_world import begun, small_config

place, name = {"state": (checkpoint.State, "save"), "sums": (closed_form_rounds, "save_total")}[sys.argv[4]]

def save(*arguments, whole=getattr(place, name)):
    if name == "save_total" or arguments[0].round == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)  # the ledger is written, and what it counts is not
    whole(*arguments)

setattr(place, name, save)
begun(Path(sys.argv[2]), Path(sys.argv[1]), small_config(**eval(sys.argv[5])))
"""


def killed(data: Path, out: Path, moment: tuple[int, str], **changes: object) -> None:
    """Train in a process that is killed before it saves the state of a round, or the sums."""
    round, saved = moment
    command = [sys.executable, "-c", KILLED, str(data), str(out), str(round), saved, repr(changes)]
    place = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=place, env=os.environ | {"PYTHONPATH": str(place)}, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_kill_between_ledger_and_checkpoint_is_counted(
    toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The ledger has the round that the checkpoint lacks. Resuming does not release it again: the guarantee holds."""
    out = tmp_path / "run"
    killed(toy, out, (3, "state"), **PRIVATE)
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
    killed(toy, out, (1, "sums"), **PAIRS)
    assert ledger_of(out).statistics == 1
    with pytest.raises(InputError, match="a second release would overspend"):
        begun(out, toy, small_config(**PAIRS), resume=True)


def test_sums_that_were_saved_before_a_kill_are_solved(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed(toy, out, (1, "state"), **PAIRS)
    before = load_total(out).statistics["pairs"]
    run = begun(out, toy, small_config(**PAIRS), resume=True)
    assert torch.equal(load_total(out).statistics["pairs"], before), "the noise is not drawn again"
    assert run.card["privacy"]["statistics"] == 1


def test_a_private_run_keeps_its_budget_and_nothing_else(toy: Path, tmp_path: Path) -> None:
    """Nor does an observer, such as a tracker, get what the log has not: a cohort's size is chance, and secret."""
    config = small_config(**PRIVATE | {"method": "hybrid", "features": "pairs"})
    opened = open_run(tmp_path / "run", Dataset.open(toy), config, resume=False)
    observed: list[dict[str, Any]] = []
    train(LocalGrid.over(opened.setup), opened, observed.append)
    ledger = load_card(tmp_path / "run")["privacy"]
    assert ledger["spent"]["epsilon"] <= 8.0
    assert (ledger["rounds"], ledger["statistics"], ledger["population"]) == (4, 1, 12)
    assert ledger["relation"] == "add or remove one user"
    assert json.loads((tmp_path / "run" / METRICS).read_text()) == {}, "no metric leaves a node"
    assert not (tmp_path / "run" / FOLDER / MEMBERS).exists()
    assert not list((tmp_path / "run" / FOLDER).glob("node-*"))
    for record in round_log.read(tmp_path / "run"):
        assert record["loss"] is record["validation"] is None
        assert record["clients_without_examples"] == 0
    assert observed == round_log.read(tmp_path / "run")
    assert {record["clients_asked"] for record in observed if record["round"] <= 4} == {0}


@pytest.mark.parametrize(
    ("settings", "is_told"), [(PAIRS, False), (PRIVATE | {"method": "closed-form", "features": "text"}, True)]
)
def test_a_run_that_noise_hurts_more_is_told_of_pairs_once(
    settings: dict[str, Any], is_told: bool, toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config(**settings)
    begun(tmp_path / "run", toy, config)
    assert ("features = 'pairs' ranks better" in caplog.text) is is_told
    caplog.clear()
    open_run(tmp_path / "run", Dataset.open(toy), config, resume=True)
    assert "ranks better" not in caplog.text


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
