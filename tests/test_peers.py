"""Our EASE and our metrics against those of RecTools, LensKit and trec_eval, by golden figures.

benchmarks/peers/golden_ease.py has made them, in an environment of its own: `pip install rectools lenskit
pytrec_eval-terrier`. The histories are made up.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import fedrec as library
from fedrec.data.dataset import Dataset
from fedrec.exports.predictions import PredictionConfig, export_predictions
from fedrec.recsys.evaluation.evaluate import rank_held_out, ranking_metrics
from fedrec.recsys.model.scoring import Scorer

PEERS = Path(__file__).resolve().parent.parent / "benchmarks" / "peers"
TREC = PEERS / "golden_trec"
GOLDEN: dict[str, Any] = json.loads((PEERS / "golden_ease.json").read_text("utf-8"))
LIBRARIES = ("rectools", "lenskit")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The golden histories, in the order of their users, and all items in the order of their ids."""
    events = [
        (f"u{user:02d}", f"i{item:02d}", place)
        for user, history in enumerate(GOLDEN["histories"])
        for place, item in enumerate(history)
    ]
    ids = [f"i{item:02d}" for item in range(GOLDEN["items"])]
    return library.import_dataset(
        pl.DataFrame(events, schema=["user_id", "item_id", "timestamp"], orient="row"),
        pl.DataFrame({"item_id": ids, "title": ids}),
        name="golden",
        out=tmp_path_factory.mktemp("golden") / "golden",
    )


@pytest.fixture(scope="module")
def ease(dataset: Dataset) -> Scorer:
    return library.baselines.EASE(ridge=GOLDEN["ridge"]).scorer(dataset, "test")


@pytest.mark.parametrize("peer", LIBRARIES)
def test_our_ease_scores_as_theirs_does(dataset: Dataset, ease: Scorer, peer: str) -> None:
    """All items that a user has not had, but those that nobody had in training, which the others do not know."""
    for user, user_id in enumerate(dataset.users):
        theirs = GOLDEN[peer]["scores"][user_id]
        scores = ease([dataset.shard.history(user, "test")])[0]
        found = [float(scores[dataset.catalogue.row(item_id)]) for item_id in theirs]
        np.testing.assert_allclose(found, list(theirs.values()), atol=2e-6)
        assert not set(dataset.shard.history(user, "test")) & set(dataset.catalogue.rows(theirs))


@pytest.mark.parametrize("peer", [*LIBRARIES, "trec_eval"])
def test_our_metrics_are_theirs(dataset: Dataset, ease: Scorer, peer: str) -> None:
    ours = ranking_metrics(rank_held_out(ease, dataset, "full", "test"))
    theirs = GOLDEN[peer]["metrics"]
    assert {"ndcg@10", "recall@10"} <= theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name


def test_the_files_that_trec_eval_has_read_are_those_that_we_write(
    dataset: Dataset, ease: Scorer, tmp_path: Path
) -> None:
    """Scores may differ by rounding on another machine."""
    export_predictions(ease, dataset, tmp_path / "out", PredictionConfig(numbering=0, k=GOLDEN["items"]), "EASE")
    assert (tmp_path / "out" / "qrels.trec").read_text("utf-8") == (TREC / "qrels.trec").read_text("utf-8")
    ours, theirs = (
        [line.split(" ") for line in (folder / "run.trec").read_text("utf-8").splitlines()]
        for folder in (tmp_path / "out", TREC)
    )
    assert [fields[:2] + fields[3:4] for fields in ours] == [fields[:2] + fields[3:4] for fields in theirs]
    torch.testing.assert_close(_scores(ours), _scores(theirs), atol=2e-6, rtol=0)


def _scores(lines: list[list[str]]) -> torch.Tensor:
    return torch.tensor([float(fields[4]) for fields in lines])
