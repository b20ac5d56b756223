"""What a finished run serves: one object, evaluated by the nodes and written as the artifact."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fedrec.data.dataset import Dataset
from fedrec.federation import run_statistics, served
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.run_statistics import Sums
from fedrec.federation.served import Served
from fedrec.federation.training_run import open_run, train
from fedrec.recsys.closed_form import model
from fedrec.recsys.recommender import Recommender
from fedrec.recsys.training.closed_form import WEIGHTS
from tests.support.toy_world import small_config

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
