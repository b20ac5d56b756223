"""Predictions for others' tools: what the files say, whom they name, and the metrics that come out of them."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

import fedrec as library
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.exports.prediction_formats import FORMATS
from fedrec.exports.predictions import PredictionConfig, Predictions, export_predictions, predict
from tests.support.cli import Fedrec, is_refused

IDS = {f"person-{user:02d}" for user in range(12)}


def by_row(histories: Sequence[np.ndarray]) -> Tensor:
    """Score items by their row, so that the last item is the best; rows 0 and 1 score alike."""
    return torch.arange(24).clamp(min=1).float().expand(len(histories), 24).clone()


@pytest.fixture(scope="module")
def predictions(toy: Path) -> Predictions:
    return predict(by_row, Dataset.open(toy), PredictionConfig(k=5, user_ids=True))


def test_lists_hold_the_best_items_that_a_user_has_not_had(toy: Path, predictions: Predictions) -> None:
    dataset = Dataset.open(toy)
    for user, user_id in enumerate(dataset.users):
        seen = set(dataset.shard.history(user, "test").tolist())
        rows = [row for row in range(23, -1, -1) if row not in seen][:5]
        found = predictions.lists.filter(user_id=user_id)
        assert found["item_id"].to_list() == [dataset.catalogue.ids[row] for row in rows]
        assert found["score"].to_list() == rows
        assert found["rank"].to_list() == [1, 2, 3, 4, 5]
        (held_out,) = predictions.held_out.filter(user_id=user_id)["item_id"]
        assert held_out == dataset.catalogue.ids[dataset.shard.held_out([user], "test")[0]]


def test_users_are_numbered_at_random_and_their_order_tells_nothing(toy: Path, predictions: Predictions) -> None:
    dataset = Dataset.open(toy)
    numbers = [str(number) for number in range(1, 13)]
    orders = set()
    for _ in range(5):
        found = predict(by_row, dataset, PredictionConfig(k=5))
        assert found.held_out["user_id"].to_list() == numbers
        assert found.lists["user_id"].unique(maintain_order=True).to_list() == numbers
        assert sorted(found.held_out["item_id"]) == sorted(predictions.held_out["item_id"])
        orders.add(tuple(found.held_out["item_id"]))
    assert len(orders) > 1
    chosen = [predict(by_row, dataset, PredictionConfig(k=5, numbering=3)) for _ in range(2)]
    assert chosen[0].held_out.equals(chosen[1].held_out)
    assert chosen[0].held_out["item_id"].to_list() != predictions.held_out["item_id"].to_list()


def trec_ndcg(folder: Path, cutoff: int = 10) -> float:
    """Compute NDCG as trec_eval does: by score, the higher document number first among equal ones; one item counts."""
    held_out = dict(line.split()[0::2] for line in (folder / "qrels.trec").read_text("utf-8").splitlines())
    lists = defaultdict(list)
    for line in (folder / "run.trec").read_text("utf-8").splitlines():
        user, _, item, _, score, _ = line.split(" ")
        lists[user].append((float(score), item))
    places = {user: [item for _, item in sorted(found, reverse=True)] for user, found in lists.items()}
    ranks = [places[user].index(item) if item in places[user] else math.inf for user, item in held_out.items()]
    return sum(1 / math.log2(rank + 2) for rank in ranks if rank < cutoff) / len(ranks)


def test_trec_files_give_our_ndcg(fedrec: Fedrec, run: Path, toy: Path, tmp_path: Path) -> None:
    fedrec("predict", run, "--data", toy, "--out", tmp_path / "trec", "--split", "validation", "-k", 24)
    held_out = [line.split() for line in (tmp_path / "trec" / "qrels.trec").read_text().splitlines()]
    assert [fields[1::2] for fields in held_out] == [["0", "1"]] * 12
    assert trec_ndcg(tmp_path / "trec") == pytest.approx(library.load(run).metrics["validation"]["ndcg@10"], abs=1e-12)
    about = json.loads((tmp_path / "trec" / "predictions.json").read_text())
    assert (about["format"], about["split"], about["k"], about["numbering"]) == ("trec", "validation", 24, "at random")
    assert not IDS & set((tmp_path / "trec" / "run.trec").read_text().split())


def test_the_users_own_ids_are_written_only_if_asked_for(fedrec: Fedrec, run: Path, toy: Path, tmp_path: Path) -> None:
    for format in FORMATS:
        asked = ("predict", run, "--data", toy, "--format", format)
        for options, named in (((), False), (("--user-ids",), True)):
            answer = fedrec(*asked, "--out", tmp_path / "out", *options, "--json").answer
            assert len(answer["files"]) == 3
            written = "".join(_text_of(tmp_path / "out" / name) for name in answer["files"])
            assert ("person-07" in written) is named
    is_refused(fedrec(*asked, "--out", "x", "--user-ids", "--numbering", 1), "--numbering", "--user-ids")


def _text_of(path: Path) -> str:
    return pl.read_parquet(path).write_csv() if path.suffix == ".parquet" else path.read_text("utf-8")


def test_tables_have_the_names_of_their_readers(toy: Path, predictions: Predictions, tmp_path: Path) -> None:
    for format in ("rectools", "lenskit", "recbole"):
        FORMATS[format](*predictions, tmp_path, "model")
    lists, held_out = predictions
    assert pl.read_csv(tmp_path / "recommendations.csv").equals(lists)
    interactions = pl.read_csv(tmp_path / "interactions.csv")
    assert interactions.columns == ["user_id", "item_id", "weight"]
    assert pl.read_parquet(tmp_path / "recommendations.parquet").equals(lists)
    assert pl.read_parquet(tmp_path / "test.parquet").equals(held_out)
    first, second = (tmp_path / "recommendations.inter").read_text("utf-8").splitlines()[:2]
    assert first.split("\t") == ["user_id:token", "item_id:token", "score:float", "rank:float"]
    assert second.split("\t")[::3] == [lists["user_id"][0], "1"]
    assert (tmp_path / "test.inter").read_text("utf-8").startswith("user_id:token\titem_id:token\n")


def test_a_score_is_read_back_as_itself(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).standard_normal(50).astype("f4")
    lists = {"user_id": ["1"] * 50, "item_id": [f"i{n}" for n in range(50)], "score": scores, "rank": range(1, 51)}
    FORMATS["trec"](pl.DataFrame(lists), pl.DataFrame({"user_id": ["1"], "item_id": ["i0"]}), tmp_path, "a model")
    lines = [line.split(" ") for line in (tmp_path / "run.trec").read_text().splitlines()]
    assert [np.float32(fields[4]) for fields in lines] == scores.tolist()
    assert {fields[5] for fields in lines} == {"a-model"}


@pytest.mark.parametrize(("format", "item"), [("trec", "two words"), ("recbole", "a\ttab")])
def test_an_id_that_a_format_cannot_hold_is_named(tmp_path: Path, format: str, item: str) -> None:
    lists = pl.DataFrame({"user_id": ["1"], "item_id": [item], "score": [1.0], "rank": [1]})
    with pytest.raises(InputError, match="item_id"):
        FORMATS[format](lists, lists.select("user_id", "item_id"), tmp_path, "model")


def test_predictions_stay_out_of_a_run_and_off_what_was_trained_on(
    fedrec: Fedrec, run: Path, toy: Path, tmp_path: Path
) -> None:
    is_refused(fedrec("predict", run, "--data", toy, "--out", run / "lists"), "--out", "predictions are private")
    assert not (run / "lists").exists()
    with pytest.raises(InputError, match="`k` = 0"):
        PredictionConfig(k=0)
    with pytest.raises(InputError, match="choose one of trec, rectools"):
        PredictionConfig(format="csv")


def test_an_item_that_was_seen_before_can_be_the_held_out_one(toy: Path, tmp_path: Path) -> None:
    """As in a split with repeats: it is ranked by its own score, as the evaluation does."""
    dataset = Dataset.open(toy)
    shard, user = dataset.shard, 0
    first = int(shard.items[shard.starts[user]])
    items = np.array(shard.items)
    items[shard.ends[user] - 1] = first
    object.__setattr__(dataset, "shard", type(shard)(shard.starts, shard.ends, items, shard.salts))
    found = predict(by_row, dataset, PredictionConfig(k=24, user_ids=True))
    of_user = found.lists.filter(user_id=dataset.users[user])
    assert dataset.catalogue.ids[first] in of_user["item_id"].to_list()
    assert len(export_predictions(by_row, dataset, tmp_path / "out", PredictionConfig(), "m")) == 3
