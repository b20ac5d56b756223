"""A run whose catalogue grows: `fedrec update` with items that the run has not known."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.prepare import write_dataset
from fedrec.data.readers.film_text import add_text
from fedrec.data.readers.raw import Frames
from fedrec.data.readers.rules import Rules
from fedrec.federation import training_run
from fedrec.federation.checkpoint import State
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.run_statistics import load_nodes, load_total
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.closed_form.packing import pack, place_items, unpack
from fedrec.recsys.closed_form.statistics import CROSS, GRAM
from fedrec.recsys.recommender import load_feature_map
from fedrec.recsys.training.hybrid import split_adapter
from fedrec.run import Run
from fedrec.training import train
from tests.support.cli import Fedrec, is_refused
from tests.support.closed_form import CLOSED, HYBRID
from tests.support.toy_world import toy_interactions, toy_items

KINDS = {
    "text": CLOSED,
    "a pull": CLOSED | {"priors": "3"},
    "bits": CLOSED | {"bits": 4},
    "hybrid": HYBRID,
    "ids": CLOSED | {"features": "ids"},
}
NEW = pl.DataFrame({"item_id": ["film-stew"], "title": ["The stew"], "year": [2020], "genres": ["Cooking"]})


def prepared(folder: Path, items: pl.DataFrame, events: pl.DataFrame) -> Path:
    write_dataset(Frames(events, items), folder, name="toy", rules=Rules(popularity=False, salts="by-id"))
    return folder


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy world later: a new film comes first, so that all rows move. Three users have watched more since."""
    more = [
        ("person-01", "film-stew", 10_000),
        ("person-01", "film-bread", 10_001),
        ("person-01", "film-feast", 10_002),
    ]
    more += [("person-03", "film-stew", 10_000), ("person-09", "film-comet", 10_000)]
    later = pl.DataFrame(more, schema=["user_id", "item_id", "timestamp"], orient="row")
    items = pl.concat([add_text(NEW), toy_items()])
    return prepared(tmp_path_factory.mktemp("grown") / "toy", items, pl.concat([toy_interactions(), later]))


def trained(data: Path, out: Path, **settings: Any) -> Run:
    return train(Dataset.open(data), out=out, progress=False, **CLOSED | settings)


def from_scratch(run: Run, data: Path, out: Path) -> Path:
    """Train on grown data from the start; texts have the features of an earlier run."""
    opened = training_run.open_run(out, Dataset.open(data), run.config, resume=False)
    of_texts = run.config.closed_form.features == "text"
    kept = load_feature_map(run.folder, run.card) if of_texts else None
    setup = TrainingSetup(opened.dataset, run.config, kept)
    training_run.train(LocalGrid.over(setup), replace(opened, setup=setup))
    return out


def solution_of(run: Path) -> dict[str, Tensor]:
    state = State.load(run)
    assert state
    return split_adapter(state.best)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_with_new_items_is_a_fit_from_scratch_on_the_grown_catalogue(
    toy: Path, grown: Path, tmp_path: Path, kind: str
) -> None:
    run = trained(toy, tmp_path / "run", **KINDS[kind])
    scratch = from_scratch(run, grown, tmp_path / "scratch")
    updated = run.update(Dataset.open(grown), Dataset.open(toy))
    ours, theirs = solution_of(run.folder), solution_of(scratch)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    totals = [load_total(folder) for folder in (run.folder, scratch)]
    assert all(torch.equal(t, totals[1].statistics[name]) for name, t in totals[0].statistics.items())
    assert (totals[0].users, totals[0].learners) == (totals[1].users, totals[1].learners)
    nodes = [load_nodes(folder) for folder in (run.folder, scratch)]
    for node, sums in nodes[0].items():
        assert all(torch.equal(t, nodes[1][node].statistics[name]) for name, t in sums.statistics.items())
    if kind != "hybrid":  # whose towers have not seen the new events
        files = ("closed_form.safetensors", "item_vectors.safetensors", "catalogue.parquet")
        assert all((run.folder / name).read_bytes() == (scratch / name).read_bytes() for name in files)
    note = {"kind": "update", "changed": 3, "joined": 0, "gone": 0, "left_out": 0, "new_items": 1}
    assert updated.card["revisions"] == [note]
    assert updated.card["data"]["items"] == 25
    assert "film-stew" in updated.recommend(history=["film-bread", "film-soup"], k=23)["item_id"].to_list()


def test_features_that_are_fitted_again_are_others(toy: Path, grown: Path, tmp_path: Path) -> None:
    """The control: whitened with the new item, all texts have other features, and no sum of before would fit."""
    run = trained(toy, tmp_path / "run")
    kept = TrainingSetup(Dataset.open(grown), run.config, load_feature_map(run.folder, run.card)).closed_form
    fitted = TrainingSetup(Dataset.open(grown), run.config).closed_form
    before = TrainingSetup(Dataset.open(toy), run.config).closed_form
    assert kept.features is not None
    assert fitted.features is not None
    assert before.features is not None
    assert torch.equal(kept.features[1:], before.features)
    assert not torch.equal(fitted.features[1:], before.features)


def test_new_items_alone_are_an_update(toy: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    run = trained(toy, tmp_path / "run")
    before = load_total(run.folder).statistics
    later = prepared(tmp_path / "later", pl.concat([toy_items(), add_text(NEW)]), toy_interactions())
    said = fedrec("update", run.folder, "--data", later, "--before", toy)
    assert "users: as before; 1 new items; now toy-" in said.out
    assert all(torch.equal(tensor, before[name]) for name, tensor in load_total(run.folder).statistics.items())


def test_users_of_a_grown_run_are_forgotten(toy: Path, grown: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    """By id, and by a node's file, which is made with the features of the run and not with the node's own."""
    run = trained(toy, tmp_path / "run").update(Dataset.open(grown), Dataset.open(toy))
    shutil.copytree(run.folder, tmp_path / "other")
    forgotten = run.forget(["person-03"], Dataset.open(grown))
    (tmp_path / "public").mkdir()
    shutil.copy(tmp_path / "other" / "card.json", tmp_path / "public")
    withdraw = ("node", "withdraw", tmp_path / "public", "--data", grown, "--user", "person-03", "--out")
    is_refused(fedrec(*withdraw, tmp_path / "file"), "closed_form.safetensors", "missing")
    shutil.copy(tmp_path / "other" / "closed_form.safetensors", tmp_path / "public")
    assert fedrec(*withdraw, tmp_path / "file").code == 0
    again = Run.open(tmp_path / "other").forget(summand=tmp_path / "file", dataset=Dataset.open(grown))
    assert again.card["model_version"] == forgotten.card["model_version"]


def test_a_grown_run_is_not_resumed(toy: Path, grown: Path, tmp_path: Path) -> None:
    run = trained(toy, tmp_path / "run").update(Dataset.open(grown), Dataset.open(toy))
    with pytest.raises(InputError, match="nothing to resume"):
        train(Dataset.open(grown), out=run.folder, resume=True, progress=False)


def test_catalogues_that_have_not_only_grown_are_refused(toy: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    run = trained(toy, tmp_path / "run")
    card = json.loads((run.folder / "card.json").read_text("utf-8"))
    fewer = toy_items().filter(pl.col("item_id") != "film-feast")
    events = toy_interactions().filter(pl.col("item_id") != "film-feast")
    lacking = prepared(tmp_path / "lacking", fewer, events)
    update = ("update", run.folder, "--before", toy, "--data")
    is_refused(fedrec(*update, lacking), "--data", "'film-feast'")
    told_anew = toy_items().with_columns(text=pl.col("text").str.replace("The soup", "A soup"))
    is_refused(fedrec(*update, prepared(tmp_path / "anew", told_anew, toy_interactions())), "--data", "'film-soup'")
    assert json.loads((run.folder / "card.json").read_text("utf-8")) == card


def test_sums_over_ids_move_to_their_rows() -> None:
    """Items 0 and 1 become items 2 and 0 of three."""
    sums = {
        GRAM: torch.tensor([[4.0, 1.0], [1.0, 2.0]]).double(),
        CROSS: torch.tensor([[0.0, 3.0], [5.0, 0.0]]).double(),
    }
    moved = unpack(place_items(pack(sums), torch.tensor([2, 0]), 3))
    assert moved[GRAM].tolist() == [[2, 0, 1], [0, 0, 0], [1, 0, 4]]
    assert moved[CROSS].tolist() == [[0, 0, 5], [0, 0, 0], [3, 0, 0]]
