"""A run that begins from what another learned."""

import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import Tensor

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.prepare import write_dataset
from fedrec.data.readers.raw import Frames
from fedrec.federation.checkpoint import State
from fedrec.federation.training_run import open_run
from fedrec.recsys.card import load_card
from fedrec.recsys.recommender import Recommender
from tests.support.toy_world import begun, small_config, toy_interactions, toy_items

STILL = {"optimizer": "fedavg", "server_rate": 1e-60, "rounds": 2}
"""Rounds that teach nothing: float32 has no number as small as such a step."""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The same users, of whom other things are said of the same films: another catalogue."""
    items = toy_items().with_columns(text=pl.col("text") + " once more")
    write_dataset(Frames(toy_interactions(), items), tmp_path / "elsewhere", name="elsewhere")
    return tmp_path / "elsewhere"


def test_without_further_learning_it_recommends_as_the_first(toy: Path, run: Path, tmp_path: Path) -> None:
    first, second = Recommender.load(run), begun(tmp_path / "second", toy, small_config(**STILL), run)
    assert all(torch.equal(tensor, second.adapter[name]) for name, tensor in first.adapter.items())
    vector = first.user_vector([0, 3, 14])
    assert second.recommend(second.user_vector([0, 3, 14])) == first.recommend(vector)
    assert second.card["start"] == {"name": "toy", "model_version": first.version}
    assert load_card(run)["start"] is None


def test_it_can_begin_from_other_items(elsewhere: Path, run: Path, tmp_path: Path) -> None:
    first, second = Recommender.load(run), begun(tmp_path / "second", elsewhere, small_config(**STILL), run)
    assert all(torch.equal(tensor, second.adapter[name]) for name, tensor in first.adapter.items())
    assert second.version.startswith("elsewhere-")
    assert not torch.equal(first.vectors, second.vectors)


def test_it_goes_on_learning(toy: Path, run: Path, tmp_path: Path) -> None:
    second = begun(tmp_path / "second", toy, small_config(rounds=2), run)
    scratch = begun(tmp_path / "scratch", toy, small_config(rounds=2), None)
    first = Recommender.load(run)
    for other in (first, scratch):
        assert any(not torch.equal(tensor, other.adapter[name]) for name, tensor in second.adapter.items())


def test_a_run_killed_before_its_first_round_keeps_its_start(toy: Path, run: Path, tmp_path: Path) -> None:
    whole = begun(tmp_path / "whole", toy, small_config(rounds=2), run)
    open_run(tmp_path / "killed", Dataset.open(toy), small_config(rounds=2), False, run)  # and no more
    state = State.load(tmp_path / "killed")
    assert state is not None
    assert (state.round, state.best_round) == (0, 0)
    resumed = begun(tmp_path / "killed", toy, small_config(rounds=2), None, resume=True)
    assert resumed.version == whole.version
    assert resumed.card["start"] == whole.card["start"]


def test_a_resume_from_another_start_is_refused(toy: Path, run: Path, tmp_path: Path) -> None:
    config = small_config(**STILL)
    begun(tmp_path / "second", toy, config, run)
    assert open_run(tmp_path / "second", Dataset.open(toy), config, True, run).config == config
    with pytest.raises(InputError, match=r"began from scratch, not toy-.*; resume without `start`"):
        open_run(run, Dataset.open(toy), None, True, tmp_path / "second")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"item_rank": 5}, "item_rank = 4, not 5; set item_rank=4"),
        ({"temperature": 0.1}, "temperature = 0.07, not 0.1"),
        ({"lora_targets": "query"}, "lora_targets = query,value, not query"),
    ],
)
def test_another_model_is_refused(toy: Path, run: Path, tmp_path: Path, change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        open_run(tmp_path / "second", Dataset.open(toy), small_config(**change), False, run)
    assert not (tmp_path / "second").exists()


def test_other_weights_are_refused(toy: Path, run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    card = load_card(other)
    card["encoder"]["sha256"] = "0" * 64
    (other / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="other weights of sentence-transformers"):
        open_run(tmp_path / "second", Dataset.open(toy), small_config(), False, other)


def test_a_random_base_of_another_seed_is_refused(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    begun(tmp_path / "first", toy, small_config(user_encoder_init="random", rounds=1), None)
    with pytest.raises(InputError, match="random weights of seed 0, not 1"):
        open_run(
            tmp_path / "second",
            Dataset.open(toy),
            small_config(user_encoder_init="random", seed=1),
            False,
            tmp_path / "first",
        )
    begun(tmp_path / "second", toy, small_config(user_encoder_init="random", rounds=1), tmp_path / "first")


def test_a_start_that_is_no_run_is_refused(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run"):
        open_run(tmp_path / "second", Dataset.open(toy), small_config(), False, toy)
    assert not (tmp_path / "second").exists()
