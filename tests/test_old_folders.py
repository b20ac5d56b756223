"""Prepared folders and runs of version 0.1 open, and give what they gave."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.node_folders import SERVER
from fedrec.data.split import Split
from fedrec.federation.config import from_nested, to_flat
from fedrec.federation.run_statistics import load_total
from fedrec.federation.training_run import METRICS, open_run
from fedrec.recsys.card import load_card
from fedrec.recsys.recommender import Recommender
from tests.support.cli import Fedrec, is_refused
from tests.support.toy_world import toy_interactions

OLD = Path(__file__).parent / "old"
LEAVE_ONE_OUT, REPEATS, COLD = Split(), Split(repeats=True), Split(cold_share=0.3)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the old folders: embeddings are cached in a prepared folder."""
    return shutil.copytree(OLD, tmp_path / "old")


def edit(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; an entry of None is removed."""
    table = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps({name: value for name, value in table.items() if value is not None}), "utf-8")


def edit_card(run: Path, **changes: Any) -> None:
    """Change entries of a card's `data`; an entry of None is removed."""
    data = json.loads((run / "card.json").read_text("utf-8"))["data"] | changes
    edit(run / "card.json", data={name: value for name, value in data.items() if value is not None})


@pytest.mark.parametrize(
    ("folder", "split", "users"),
    [("leave-one-out", LEAVE_ONE_OUT, 12), ("repeats", REPEATS, 12), ("cold-items", COLD, 12)]
    + [(f"federation/node-{node}", LEAVE_ONE_OUT, 6) for node in (0, 1)],
)
def test_an_old_folder_opens_in_its_split(folder: str, split: Split, users: int) -> None:
    manifest = json.loads((OLD / "data" / folder / "manifest.json").read_text("utf-8"))
    assert "split_rule" not in manifest
    dataset = Dataset.open(OLD / "data" / folder)
    assert dataset.split == split
    assert manifest["split"] == split.description
    assert len(dataset.shard) == len(dataset.users) == users


def test_an_old_servers_folder_opens_without_histories() -> None:
    server = Dataset.open(OLD / "data/federation" / SERVER)
    assert server.split == LEAVE_ONE_OUT
    with pytest.raises(InputError, match="is missing"):
        assert server.shard


@pytest.mark.parametrize("split", [LEAVE_ONE_OUT, REPEATS, COLD, Split(cold_share=1e-5), Split(cold_share=0.123456)])
def test_a_split_is_read_from_its_data_or_else_from_its_description(split: Split) -> None:
    record = {"split": split.description, "split_rule": split.as_record()}
    assert Split.from_record(json.loads(json.dumps(record)), "it") == split
    assert Split.from_record({"split": split.description}, "it") == split
    assert Split.from_record(record | {"split": "in other words"}, "it") == split


@pytest.mark.parametrize(
    "fields",
    [
        "leave-one-out",
        {"rule": "leave-one-out"},
        {"rule": "leave-one-out", "repeats": 1},
        {"rule": "leave-one-out", "repeats": False, "by": "week"},
        {"rule": "cold-items", "cold_share": 1.5},
        {"rule": "cold-items", "cold_share": "0.1"},
        {"rule": "by-week", "repeats": False},
        {},
    ],
)
def test_a_split_of_no_known_rule_is_refused(fields: Any) -> None:
    with pytest.raises(InputError, match=r"it: split_rule = .* is no known split; restore the file"):
        Split.from_record({"split": LEAVE_ONE_OUT.description, "split_rule": fields}, "it")


@pytest.mark.parametrize("changed", [COLD.description.replace("0.3", "0.30"), LEAVE_ONE_OUT.description + "."])
def test_an_old_folder_with_another_description_is_refused(old: Path, changed: str, fedrec: Fedrec) -> None:
    data, run = old / "data/leave-one-out", old / "runs/two-tower"
    edit(data / "manifest.json", split=changed)
    with pytest.raises(InputError, match=r"manifest\.json: split = .* is no known split; restore the file"):
        Dataset.open(data)
    is_refused(fedrec("evaluate", run, "--data", data), "is no known split", "restore the file")


def test_an_old_card_with_another_description_is_refused(old: Path, fedrec: Fedrec) -> None:
    data, run = old / "data/leave-one-out", old / "runs/two-tower"
    edit_card(run, split="leave-one-out by week")
    is_refused(fedrec("evaluate", run, "--data", data), "'leave-one-out by week' is no known split")
    edit_card(old / "runs/interrupted", split="leave-one-out by week")
    is_refused(fedrec("train", data, "--out", old / "runs/interrupted", "--resume"), "is no known split")


def test_an_old_run_of_another_split_is_refused(old: Path, fedrec: Fedrec) -> None:
    data, run = old / "data/leave-one-out", old / "runs/two-tower"
    edit_card(run, split=REPEATS.description)
    is_refused(fedrec("evaluate", run, "--data", data), "was trained in another split")
    edit_card(old / "runs/interrupted", split=REPEATS.description)
    is_refused(fedrec("train", data, "--out", old / "runs/interrupted", "--resume"), "began in another split")


def test_an_old_run_and_data_prepared_since_are_compared_as_data(old: Path, fedrec: Fedrec) -> None:
    data, run = old / "data/leave-one-out", old / "runs/two-tower"
    edit(data / "manifest.json", split="one item of each user is left out", split_rule=LEAVE_ONE_OUT.as_record())
    assert fedrec("evaluate", run, "--data", data).code == 0
    edit(data / "manifest.json", split=LEAVE_ONE_OUT.description, split_rule=REPEATS.as_record())
    is_refused(fedrec("evaluate", run, "--data", data), "was trained in another split")


@pytest.mark.parametrize(("run", "data"), [("two-tower", "leave-one-out"), ("cold-items", "cold-items")])
def test_an_old_run_has_its_old_metrics(run: str, data: str, old: Path, fedrec: Fedrec) -> None:
    metrics = json.loads((old / "runs" / run / METRICS).read_text("utf-8"))
    answer = fedrec("evaluate", old / "runs" / run, "--data", old / "data" / data, "--json").answer
    for split, protocols in metrics.items():
        for name, value in protocols["full"].items():
            assert answer[split]["full"][name] == pytest.approx(value, abs=1e-9), (split, name)


def test_an_old_run_recommends(old: Path, fedrec: Fedrec) -> None:
    run = old / "runs/two-tower"
    items = fedrec("recommend", run, "--history", "film-bread,film-soup", "-k", 3, "--json").answer["items"]
    assert len(items) == 3
    assert not {"film-bread", "film-soup"} & {item["item_id"] for item in items}
    card = load_card(run)
    assert (card["config"]["model"]["user_encoder_init"], card["config"]["model"]["item_tower"]) == ("random", "gelu")


def test_an_old_interrupted_run_resumes_to_the_end_of_the_old_run(old: Path, fedrec: Fedrec) -> None:
    data, run = old / "data/leave-one-out", old / "runs/interrupted"
    assert fedrec("train", data, "--out", run, "--resume").code == 0
    resumed, whole = Recommender.load(run), Recommender.load(old / "runs/two-tower")
    for name, tensor in whole.adapter.items():
        torch.testing.assert_close(resumed.adapter[name], tensor)
    metrics = [json.loads((folder / METRICS).read_text("utf-8")) for folder in (run, old / "runs/two-tower")]
    assert metrics[0]["test"]["full"] == pytest.approx(metrics[1]["test"]["full"])
    assert "split_rule" not in load_card(run)["data"]  # a card is not rewritten


def test_a_run_starts_from_an_old_run(old: Path, fedrec: Fedrec) -> None:
    data, run = old / "data/leave-one-out", old / "runs/two-tower"
    settings = [f"--set={name}={value}" for name, value in load_card(run)["config"]["model"].items() if name in SMALL]
    done = fedrec(
        "train", data, "--out", old / "new", "--start", run, "--set=rounds=1", "--set=negatives=16", *settings
    )
    assert done.code == 0
    card = load_card(old / "new")
    assert card["start"] == {"name": "toy", "model_version": Recommender.load(run).version}
    assert card["data"]["split_rule"] == LEAVE_ONE_OUT.as_record()


def test_an_old_run_of_one_decay_resumes(old: Path, fedrec: Fedrec) -> None:
    """It had summed, and validated one of two solutions; its sums and its first solution are today's."""
    data, run, new = old / "data/leave-one-out", old / "runs/one-decay", old / "new"
    assert json.loads((run / "card.json").read_text("utf-8"))["config"]["closed_form"]["decay"] == 0.7
    names = (
        "method",
        "features",
        "feature_bandwidths",
        "reverse",
        "ridges",
        "decays",
        *SMALL,
        "negatives",
        "clients_per_round",
        "precision",
    )
    settings = to_flat(from_nested(load_card(run)["config"]))
    assert settings["decays"] == "0.7"
    assert fedrec("train", data, "--out", run, "--resume").code == 0
    assert fedrec("train", data, "--out", new, *(f"--set={name}={settings[name]}" for name in names)).code == 0
    sums = [load_total(folder).statistics for folder in (run, new)]
    assert all(torch.equal(tensor, sums[1][name]) for name, tensor in sums[0].items())
    metrics = [json.loads((folder / METRICS).read_text("utf-8"))["test"]["full"] for folder in (run, new)]
    assert metrics[0] == pytest.approx(metrics[1])
    assert load_card(run)["closed_form"]["decays"] == [0.7]


SMALL = ("user_encoder_init", "layers", "lora_rank", "item_rank", "user_rank", "history")


def test_an_old_run_of_a_baseline_is_known_as_one(old: Path, fedrec: Fedrec) -> None:
    run = old / "runs/fedmf"
    config = open_run(run, Dataset.open(old / "data/leave-one-out"), None, resume=True).config
    assert (config.method, config.baseline.baseline_dim) == ("fedmf", 8)
    is_refused(fedrec("recommend", run, "--history", "film-bread"), "is a run of fedmf")


def test_a_node_prepares_its_table_for_an_old_public_folder(old: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    toy_interactions().write_csv(tmp_path / "events.csv")
    server = old / "data/federation" / SERVER
    done = fedrec("node", "prepare", "--catalogue", server, "--interactions", tmp_path / "events.csv", "--out", "node")
    assert done.code == 0
    assert Dataset.open(tmp_path / "node").split == LEAVE_ONE_OUT
    cold = fedrec(
        "node", "prepare", "--catalogue", old / "data/cold-items", "--interactions", "events.csv", "--out", "x"
    )
    is_refused(cold, "a node's own table is split by its users' events alone")
