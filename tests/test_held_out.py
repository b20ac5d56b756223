"""Runs that train on held-out items too: to be tested once more, or to be served."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedrec.data.shard import FOLDER, Shard
from fedrec.federation import round_log
from fedrec.federation.checkpoint import State
from fedrec.federation.training_run import METRICS
from tests.support.cli import Fedrec, is_refused
from tests.support.toy_world import begun, small_config

ENDS = {2: [], 1: ["validation"], 0: ["validation", "test"]}
"""By how many items are held out: whose items are trained on all the same."""


@pytest.mark.parametrize("held_out", ENDS)
def test_a_window_ends_before_what_is_held_out(shard: Shard, held_out: int) -> None:
    crops = shard.training_windows(range(len(shard)), 30, 0, 1, held_out)
    for user in range(len(shard)):
        events = shard.full_history(user)
        assert crops.items[user][crops.mask[user]].tolist() == events[: len(events) - held_out].tolist()


@pytest.mark.parametrize("held_out", ENDS)
def test_training_depends_on_no_item_that_is_held_out(toy: Path, tmp_path: Path, held_out: int) -> None:
    """With one of the last events of everybody exchanged the model is another if, and only if, that is trained on."""
    config = small_config(held_out=held_out, rounds=2, validate_every=2, clients_per_round=12, history=20)
    first = begun(tmp_path / "first", toy, config)
    for split, from_end in (("validation", 2), ("test", 1)):
        other = shutil.copytree(toy, tmp_path / f"{split}-data")
        shard = Shard.load(toy)
        items = np.array(shard.items)
        items[shard.ends - from_end] = (items[shard.ends - from_end] + 1) % 24
        np.save(other / FOLDER / "items.npy", items)
        same = begun(tmp_path / split, other, config).version == first.version
        assert same is (split not in ENDS[held_out])


@pytest.mark.parametrize(("held_out", "measured"), [(1, ["test"]), (0, [])])
def test_the_last_round_is_kept_and_what_was_trained_on_is_not_measured(
    fedrec: Fedrec, toy: Path, tmp_path: Path, held_out: int, measured: list[str]
) -> None:
    run = tmp_path / "run"
    begun(run, toy, small_config(held_out=held_out, rounds=5, validate_every=2))
    state = State.load(run)
    assert state
    assert (state.best_round, state.round) == (5, 5)
    assert state.best.keys() == state.adapter.keys()
    assert all((state.best[name] == state.adapter[name]).all() for name in state.best)
    assert not any(record["validation"] for record in round_log.read(run))
    assert list(json.loads((run / METRICS).read_text())) == measured
    assert fedrec("recommend", run, "--history", "film-moon", "-k", "2", "--json").answer
    evaluated = fedrec("evaluate", run, "--data", toy, "--json")
    if measured:
        assert list(evaluated.answer) == measured
        is_refused(fedrec("personalise", run, "--data", toy), "held_out = 1", "personalise a run with held_out = 2")
    else:
        is_refused(evaluated, "held_out = 0", "train with held_out = 2 or 1 to measure")


def test_the_command_says_what_it_could_measure(fedrec: Fedrec, toy: Path, tmp_path: Path) -> None:
    small = [part for name in ("method=fedrec", "rounds=3", "validate_every=2", "layers=1") for part in ("--set", name)]
    told = {
        held_out: fedrec("train", toy, "--out", tmp_path / str(held_out), *small, "--set", f"held_out={held_out}")
        for held_out in (1, 0)
    }
    assert [" test " in told[1].out, "validation" in told[1].out.replace("validation NDCG", "")] == [True, False]
    assert "nothing to measure it with" in told[0].out
    assert "fedrec serve" in told[0].out
    assert [line.split()[1] for line in told[0].err.splitlines() if line.startswith("round")] == ["2/3", "3/3"]
