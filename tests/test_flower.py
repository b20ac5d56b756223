"""The same apps as real Flower processes, which share no memory."""

from pathlib import Path

import pytest
from torch import Tensor

from federation.local import LocalGrid
from federation.processes import flwr_run, superlink
from federation.train import METRICS, open_run, train
from recsys.recommender import Recommender
from tests.world import SMALL, small_config


@pytest.mark.timeout(300)
def test_two_supernodes_train_what_one_process_trains(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    knobs = SMALL | {"rounds": 2, "nodes": 2}
    config = open_run(tmp_path / "here", toy, small_config(**knobs), resume=False)
    train(LocalGrid.over(toy, config), tmp_path / "here", toy, config, lambda record: None)
    asked = knobs | {"data": str(toy), "out": str(tmp_path / "there")}
    with superlink(tmp_path / "flower", [f'data="{toy}" part={part} parts=2' for part in range(2)]) as home:
        done = flwr_run(home, asked)
    logs = "\n".join(log.read_text(errors="replace")[-3000:] for log in (tmp_path / "flower").glob("*.log"))
    assert (tmp_path / "there" / METRICS).exists(), f"{done.stdout}\n{done.stderr}\n{logs}"
    here, there = (Recommender.load(tmp_path / name) for name in ("here", "there"))
    assert there.adapter.keys() == here.adapter.keys()
    for name, tensor in here.adapter.items():
        assert float((tensor - there.adapter[name]).abs().max()) <= 1e-5, name
    assert there.version == here.version
