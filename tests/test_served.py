"""What a finished run serves: one object, evaluated by the nodes and written as the artifact."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedrec.data.dataset import Dataset
from fedrec.data.prepare import write_dataset
from fedrec.data.readers.raw import Frames
from fedrec.data.readers.rules import Rules
from fedrec.federation import run_statistics, served
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.run_statistics import Sums
from fedrec.federation.served import Served
from fedrec.federation.training_run import METRICS, open_run, train
from fedrec.recsys.closed_form import model
from fedrec.recsys.closed_form.model import Solution
from fedrec.recsys.closed_form.packing import unpack
from fedrec.recsys.closed_form.search import Hyperparameters
from fedrec.recsys.closed_form.solutions import WEIGHTS
from fedrec.recsys.closed_form.statistics import GRAM
from fedrec.recsys.evaluation.evaluate import rank_held_out
from fedrec.recsys.evaluation.ranking import metric_means, metric_sums
from fedrec.recsys.recommender import Recommender
from fedrec.recsys.training.closed_form import ClosedFormMethod
from tests.support.toy_world import shard_of, small_config, toy_items

CLOSED: dict[str, Any] = {"method": "closed-form", "ridges": "1,10", "decodes": "0.1", "feature_width": 32}


def test_a_solution_is_cut_once_and_the_sums_are_read_once_at_the_end(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts, reads = [], []

    def counted_cut(*parts: Any) -> Any:
        cuts.append(parts)
        return cut(*parts)

    def counted_read(run: Path) -> Sums:
        reads.append(run)
        return read(run)

    cut, read = model.low_rank, run_statistics.load_total
    monkeypatch.setattr(model, "low_rank", counted_cut)
    for module in (served, run_statistics):
        monkeypatch.setattr(module, "load_total", counted_read)
    run = open_run(tmp_path / "run", Dataset.open(toy), small_config(**CLOSED, served_rank=5), resume=False)
    train(LocalGrid.over(run.setup), run)
    assert (len(cuts), len(reads)) == (1, 1)


def test_the_adapter_that_is_evaluated_is_the_artifacts_closed_form(toy: Path, tmp_path: Path) -> None:
    """Both score alike: the events' vectors times the candidates' are the features times the weights."""
    run = open_run(tmp_path / "run", Dataset.open(toy), small_config(**CLOSED, served_rank=5), resume=False)
    train(LocalGrid.over(run.setup), run)
    features = run.setup.closed_form.features
    closed_form = Recommender.load(run.out).closed_form
    state = served.State.load(run.out)
    assert features is not None
    assert closed_form is not None
    assert state is not None
    weights = Served.load(run.out, run.setup, state).adapter[WEIGHTS]
    expected = features @ weights @ (features - features.mean(0)).T
    found = closed_form.model.events @ closed_form.model.candidates.T
    scale = expected.norm() / found.norm()
    torch.testing.assert_close(found * scale, expected, rtol=0, atol=float(expected.abs().max()) * 1e-5)


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_a_cut_of_sums_with_noise_scores_as_their_solution(embeddings: Tensor, ridge: float) -> None:
    """Noise makes `gram` indefinite. A cut that took it as it is would serve other scores than were validated."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    histories = [rng.permutation(24)[:12] for _ in range(40)]
    config = small_config(method="closed-form", feature_width=64, served_rank=64).closed_form
    method = ClosedFormMethod(embeddings, np.arange(24), config, seed=0, held_out=0)
    sums = method.sum_users(shard_of([history.tolist() for history in histories]), np.arange(40)).statistics
    noised = {
        name: total + 0.3 * total.std() * torch.randn(total.shape, generator=generator, dtype=torch.float64)
        for name, total in sums.items()
    }
    chosen = Hyperparameters(ridge, decode=0.1, share=1.0)
    solution = method.solver(noised).solve(chosen)

    def agreement(weights: Tensor) -> float:
        """The cosine of all scores, less each user's mean, with those of the solution."""
        items = method.candidates - method.candidates.mean(0)
        found, wanted = (
            method.user_vectors({WEIGHTS: each.float()})(histories) @ items.T for each in (weights, solution[WEIGHTS])
        )
        return float(F.cosine_similarity(found.flatten(), wanted.flatten(), dim=0))

    assert agreement(method.cut(solution, noised, chosen).weights) > 0.999
    as_it_is = Solution(solution[WEIGHTS], unpack(noised)[GRAM], 1.0).cut(method.features, 64)
    assert agreement(as_it_is.weights) < 0.5, "the control"


# ---- training's evaluation against the artifact's

METHODS: dict[str, dict[str, Any]] = {
    "towers": {"method": "fedrec"},
    **{
        f"{features} {share}": CLOSED | {"features": features} | method
        for features in ("text", "ids")
        for share, method in {
            "alone": {},
            **{
                share: {"method": "hybrid", "rounds": 2, "validate_every": 1, "blend_shares": share}
                for share in ("0", "0.4", "1")
            },
        }.items()
    },
}


@pytest.fixture(scope="module")
def partly_known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy world with two users more, whose first two films nobody else has seen: no training event holds them."""
    walks = [(user, [user // 6 * 12 + (user + step) % 10 for step in range(4 + user % 5)]) for user in range(12)]
    walks += [(12, [10, 11, 5]), (13, [22, 23, 15])]
    items = toy_items()
    rows = [
        (f"person-{user:02d}", items["item_id"][film], 1000 * user + step)
        for user, walk in walks
        for step, film in enumerate(walk)
    ]
    folder = tmp_path_factory.mktemp("worlds") / "partly-known"
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    write_dataset(Frames(events, items), folder, name="partly-known", rules=Rules(popularity=False, min_events=3))
    return folder


@pytest.mark.parametrize("kind", METHODS)
def test_a_run_is_measured_exactly_as_its_artifact_is(partly_known: Path, tmp_path: Path, kind: str) -> None:
    dataset = Dataset.open(partly_known)
    run = open_run(tmp_path / "run", dataset, small_config(**METHODS[kind], nodes=2), resume=False)
    train(LocalGrid.over(run.setup), run)
    measured = json.loads((run.out / METRICS).read_text("utf-8"))
    score = Recommender.load(run.out).scorer()
    for split in ("test", "validation"):
        found = metric_means(metric_sums(rank_held_out(score, dataset, "full", split).ranks))
        assert found == measured[split]["full"], split


def test_text_neighbours_rank_for_a_user_of_unknown_items(partly_known: Path, tmp_path: Path) -> None:
    """The closed form over ids knows nothing of both films of each of the last two users, cooking and space."""
    dataset = Dataset.open(partly_known)
    run = open_run(tmp_path / "run", dataset, small_config(**METHODS["ids alone"]), resume=False)
    train(LocalGrid.over(run.setup), run)
    recommender = Recommender.load(run.out)
    assert recommender.closed_form is not None
    histories = [dataset.shard.history(user, "test") for user in (12, 13)]
    assert not recommender.closed_form.model.user_vectors(histories).any()
    best = recommender.scorer()(histories).topk(7).indices
    assert ((best < 12) == torch.tensor([[True], [False]])).all()
