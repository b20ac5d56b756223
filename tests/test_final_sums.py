"""Final sums: after the choice on validation, the model is solved again, from sums that hold the validation items."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.federation import round_log, wire
from fedrec.federation.checkpoint import State
from fedrec.federation.config import from_flat
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order, OrderRefused
from fedrec.federation.node import Node
from fedrec.federation.run_statistics import FOLDER, load_nodes, load_total
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.training_run import METRICS, open_run, train
from fedrec.recsys.closed_form.solutions import WEIGHTS
from fedrec.recsys.recommender import FILES
from fedrec.recsys.training.hybrid import split_adapter
from fedrec.run import Run
from tests.support.cli import Fedrec
from tests.support.closed_form_runs import finished
from tests.support.toy_world import small_config

CLOSED: dict[str, Any] = {
    "method": "closed-form",
    "ridges": "0.1,1,10",
    "decodes": "0.1",
    "feature_width": 32,
    "refinements": 0,
}
IDS: dict[str, Any] = {"features": "ids", "priors": "0,3"}
HYBRID: dict[str, Any] = CLOSED | {"method": "hybrid", "rounds": 2, "validate_every": 1, "blend_shares": "0.3,0.6"}
FINAL: dict[str, Any] = {"final_held_out": 1}


def fixed(state: State) -> dict[str, Any]:
    """The settings that offer what a run has chosen alone."""
    assert state.chosen
    return {
        "ridges": str(state.chosen.ridge),
        "priors": str(state.chosen.prior),
        "decodes": str(state.chosen.decode),
        "blend_shares": str(state.chosen.share),
    }


def same_files(one: Path, other: Path, *names: str) -> None:
    for name in names:
        assert (one / name).exists() == (other / name).exists(), name
        assert not (one / name).exists() or (one / name).read_bytes() == (other / name).read_bytes(), name


# ---- what a run leaves


@pytest.mark.parametrize("features", [{}, IDS], ids=["text", "ids"])
@pytest.mark.parametrize("held_out", [1, 0])
def test_it_is_the_model_of_a_run_with_the_choice_and_the_items_from_the_start(
    toy: Path, tmp_path: Path, features: dict[str, Any], held_out: int
) -> None:
    settings: dict[str, Any] = CLOSED | features | {"nodes": 3}
    state = finished(toy, tmp_path / "run", **settings, final_held_out=held_out)
    again = finished(toy, tmp_path / "fixed", **settings | fixed(state), held_out=held_out)
    assert all(torch.equal(tensor, again.best[name]) for name, tensor in state.best.items())
    same_files(tmp_path / "run", tmp_path / "fixed", f"{FOLDER}/total.safetensors", *FILES)
    assert [nodes.keys() for nodes in (load_nodes(tmp_path / "run"), load_nodes(tmp_path / "fixed"))] == [{1, 2, 3}] * 2
    ours, theirs = (json.loads((tmp_path / name / METRICS).read_text()) for name in ("run", "fixed"))
    assert ours.pop("validation")["full"]["ndcg@10"] > 0
    assert ours == theirs
    assert ours.keys() == {"test"} if held_out else not ours


def test_the_choice_is_that_of_a_run_without_them(toy: Path, tmp_path: Path) -> None:
    """And so are the lines of its rounds, and what is said of validation; of a hybrid, the towers stay, too."""
    without, state = finished(toy, tmp_path / "without", **HYBRID), finished(toy, tmp_path / "run", **HYBRID | FINAL)
    assert (state.chosen, state.best_score, state.best_round) == (without.chosen, without.best_score, 2 + 1 + 3 + 1 + 2)
    before, records = round_log.read(tmp_path / "without"), round_log.read(tmp_path / "run")
    assert [record["validation"] for record in before] == [record["validation"] for record in records[:-2]]
    validated, sums = records[-2:]
    metrics = [json.loads((tmp_path / name / METRICS).read_text()) for name in ("without", "run")]
    assert metrics[0]["validation"] == metrics[1]["validation"] == {"full": validated["validation"]}
    assert metrics[0]["test"] != metrics[1]["test"]
    assert (sums["validation"], sums["clients_answered"]) == (None, 12)
    assert sums["bytes_up"] == pytest.approx(before[2]["bytes_up"], rel=0.01)
    towers, solution = split_adapter(state.best)
    assert all(torch.equal(tensor, without.best[name]) for name, tensor in towers.items())
    assert not torch.equal(solution[WEIGHTS], without.best[WEIGHTS])
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["sums"]["held_out"] == 1
    assert (card["rounds"], card["best_round"]) == (9, 9)


def test_the_last_rounds_have_their_numbers_where_the_search_ends_early(toy: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = CLOSED | IDS | FINAL | {"refinements": 50}
    state = finished(toy, tmp_path / "whole", **settings)
    last = small_config(**settings).last_round
    rounds = [record["round"] for record in round_log.read(tmp_path / "whole")]
    assert rounds[-2:] == [last - 1, last]
    assert rounds[-3] < last - 2
    assert state.round == last
    for number in rounds[-3:]:
        out = tmp_path / str(number)
        finished(toy, out, stop_after=number, **settings)
        finished(toy, out, resume=True, **settings)
        same_files(tmp_path / "whole", out, METRICS, f"{FOLDER}/total.safetensors", *FILES)


# ---- resuming


@pytest.mark.parametrize("settings", [CLOSED | IDS, HYBRID], ids=["ids", "hybrid"])
def test_stopped_after_any_round_and_resumed_is_the_same_run(
    toy: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = finished(toy, tmp_path / "whole", **settings | FINAL)
    for number in range(whole.round - 3, whole.round + 1):
        out = tmp_path / str(number)
        assert finished(toy, out, stop_after=number, **settings | FINAL).round == number
        finished(toy, out, resume=True, **settings | FINAL)
        same_files(tmp_path / "whole", out, METRICS, f"{FOLDER}/total.safetensors", *FILES)


def test_final_sums_that_were_saved_before_a_crash_are_exchanged_again(toy: Path, tmp_path: Path) -> None:
    """Between the final sums and the checkpoint: what was validated before them stays as it was."""
    whole = finished(toy, tmp_path / "whole", **CLOSED | FINAL)
    out = tmp_path / "stopped"
    finished(toy, out, stop_after=whole.round - 1, **CLOSED | FINAL)
    shutil.rmtree(out / FOLDER)
    shutil.copytree(tmp_path / "whole" / FOLDER, out / FOLDER)
    finished(toy, out, resume=True, **CLOSED | FINAL)
    same_files(tmp_path / "whole", out, METRICS, f"{FOLDER}/total.safetensors", *FILES)


def test_nodes_that_do_not_answer_a_second_time_are_asked_later(toy: Path, tmp_path: Path) -> None:
    config = small_config(**CLOSED | FINAL)
    run = open_run(tmp_path / "run", Dataset.open(toy), config, resume=False)

    class SilentAtTheEnd(LocalGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
            rounds = [record["round"] for record in round_log.read(tmp_path / "run")]
            last = config.last_round - 1 in rounds
            asked = [m for m in messages if not (last and m.metadata.message_type == wire.STATISTICS)]
            return super().send_and_receive(asked, timeout=timeout)

    with pytest.raises(InputError, match="no node answered with its sums; bring the nodes back and resume"):
        train(SilentAtTheEnd.over(run.setup), run)
    finished(toy, tmp_path / "run", resume=True, **CLOSED | FINAL)
    finished(toy, tmp_path / "whole", **CLOSED | FINAL)
    same_files(tmp_path / "whole", tmp_path / "run", METRICS, f"{FOLDER}/total.safetensors", *FILES)


# ---- what is asked of the sums later


def test_a_forgotten_user_leaves_the_final_sums_of_the_others(toy: Path, tmp_path: Path) -> None:
    finished(toy, tmp_path / "run", **CLOSED | FINAL, nodes=3)
    dataset = Dataset.open(toy)
    run = Run.open(tmp_path / "run").forget(["person-11"], dataset)
    closed_form = TrainingSetup(dataset, run.config).closed_form
    others, first = (
        closed_form.sum_users(dataset.shard, np.arange(11), to_choose).statistics for to_choose in (False, True)
    )
    for name, tensor in load_total(run.folder).statistics.items():
        assert torch.equal(tensor, others[name]), name
        assert not torch.equal(tensor, first[name]), name


def test_worth_is_measured_on_items_that_the_sums_do_not_hold(toy: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    """On those of the test; with every event in the sums there are none."""
    one_choice: dict[str, Any] = {"ridges": "1", "nodes": 2}
    finished(toy, tmp_path / "run", **CLOSED | FINAL | one_choice)
    finished(toy, tmp_path / "fixed", **CLOSED | one_choice, held_out=1)
    found, same = (Run.open(tmp_path / name).contributions(Dataset.open(toy)) for name in ("run", "fixed"))
    assert found["all"].to_list() == same["all"].to_list()
    finished(toy, tmp_path / "to-serve", **CLOSED | one_choice, final_held_out=0)
    with pytest.raises(InputError, match=r"trained on every event \(final_held_out = 0\).*train with held_out = 2"):
        Run.open(tmp_path / "to-serve").contributions(Dataset.open(toy))
    assert "on test" in fedrec("contribute", tmp_path / "run", "--data", toy).out


def test_what_the_sums_hold_is_not_measured(toy: Path, tmp_path: Path) -> None:
    finished(toy, tmp_path / "run", **CLOSED | FINAL)
    run = Run.open(tmp_path / "run")
    assert run.evaluate(Dataset.open(toy))["ndcg@10"] == pytest.approx(run.metrics["test"]["ndcg@10"])
    with pytest.raises(InputError, match=r"was trained on the validation items \(final_held_out = 1\)"):
        run.evaluate(Dataset.open(toy), split="validation")


# ---- orders and settings that are refused


def test_a_node_sums_twice_if_the_run_says_so(toy: Path) -> None:
    """In the first exchange, and at the end: the second has an event more of each user."""
    node = Node.open(toy, small_config(**HYBRID | FINAL))
    first, last = (node.sum_statistics(Order(number, np.arange(12)), {}) for number in (3, 9))
    for name, tensor in first.deltas.items():
        assert not torch.equal(tensor, last.deltas[name])
    for number in (2, 4, 8, 10):
        with pytest.raises(OrderRefused, match=f"round = {number} is not 3 or 9"):
            node.sum_statistics(Order(number, np.arange(12)), {})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"final_held_out": 3}, "setting final_held_out"),
        (
            {"method": "fedrec", "final_held_out": 1},
            "final_held_out = 1: fedrec exchanges no sums; leave final_held_out at 2",
        ),
        (CLOSED | {"final_held_out": 0, "held_out": 1}, "with held_out = 1 validation chooses nothing"),
        (CLOSED | {"final_held_out": 1, "held_out": 1}, "with held_out = 1 validation chooses nothing"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_flat(settings)


def test_the_last_round_counts_both_exchanges() -> None:
    assert small_config(**CLOSED | FINAL).last_round == small_config(**CLOSED).last_round + 2
    assert small_config(**CLOSED, held_out=0).last_round == 1
