"""Our EASE and our metrics against those of RecTools, LensKit and trec_eval, by golden figures.

benchmarks/peers/golden_ease.py has made them, in an environment of its own: `pip install rectools lenskit
pytrec_eval-terrier`. The histories are made up.
"""

import json
from collections.abc import Sequence
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


def largest_difference(score: Scorer, dataset: Dataset, peer: str) -> float:
    """Compare the scores of all items that a user has not had with those of another library."""
    differences = []
    for user, user_id in enumerate(dataset.users):
        theirs, history = GOLDEN[peer]["scores"][user_id], dataset.shard.history(user, "test")
        rows = dataset.catalogue.rows(theirs)
        assert not set(history) & set(rows)
        differences.append(np.abs(score([history])[0].numpy()[rows] - list(theirs.values())).max())
    return float(max(differences))


def test_our_ease_scores_as_lenskits_does(dataset: Dataset, ease: Scorer) -> None:
    assert largest_difference(ease, dataset, "lenskit") < 2e-6


def test_our_ease_is_rectools_with_its_weights_transposed(dataset: Dataset, ease: Scorer) -> None:
    """RecTools 0.19 multiplies a history with the rows of B where the paper has its columns; B itself is the same.

    Control: untransposed, the scores differ by a tenth.
    """
    weights = torch.cat([ease([np.array([row])]) for row in range(GOLDEN["items"])])  # (N, N): B, row by row

    def score_transposed(histories: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.stack([weights[:, history.tolist()].sum(1) for history in histories])

    assert largest_difference(score_transposed, dataset, "rectools") < 2e-6
    assert largest_difference(ease, dataset, "rectools") > 0.1


@pytest.mark.parametrize("peer", ["rectools", "trec_eval"])
def test_our_metrics_are_theirs(dataset: Dataset, ease: Scorer, peer: str) -> None:
    ours = ranking_metrics(rank_held_out(ease, dataset, "full", "test"))
    theirs = GOLDEN[peer]["metrics"]
    assert {"ndcg@10", "recall@10"} <= theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name


def test_lenskits_ndcg_differs_by_its_discount_alone(dataset: Dataset, ease: Scorer) -> None:
    ranks = rank_held_out(ease, dataset, "full", "test").ranks
    theirs = np.where(ranks < 10, 1 / np.maximum(1, np.log2(ranks + 1.0).clip(min=0)), 0)
    assert theirs.mean() == pytest.approx(GOLDEN["lenskit"]["metrics"]["ndcg@10"], abs=1e-9)
    assert (ranks < 10).mean() == pytest.approx(GOLDEN["lenskit"]["metrics"]["recall@10"], abs=1e-9)


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
