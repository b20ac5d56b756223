"""Training in bfloat16 learns what training in float32 learns: the metrics on a small demo agree."""

from pathlib import Path

import pytest

from fedrec.data.dataset import Dataset
from fedrec.data.prepare import write_dataset
from fedrec.data.readers.film_text import add_text
from fedrec.data.readers.raw import Frames
from fedrec.data.synthetic import demo_films
from fedrec.federation import round_log
from fedrec.federation.config import from_flat
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.training_run import open_run, train


@pytest.mark.timeout(300)
def test_both_precisions_agree_on_the_demo(tmp_path: Path) -> None:
    interactions, items = demo_films.generate(demo_films.DemoConfig(films=300, users=240))
    write_dataset(Frames(interactions, add_text(items)), tmp_path / "demo", name="demo")
    dataset = Dataset.open(tmp_path / "demo")
    found = {}
    for precision in ("float32", "bfloat16"):
        settings = {"rounds": 10, "clients_per_round": 32, "history": 16, "negatives": 128, "validate_every": 10}
        config = from_flat(
            settings
            | {"method": "fedrec", "layers": 1, "validation_users": 240, "precision": precision, "exposure_base": 0}
        )
        out = tmp_path / precision
        run = open_run(out, dataset, config, resume=False)
        train(LocalGrid.over(run.setup), run)
        found[precision] = round_log.read(out)[-1]
    exact, near = found["float32"], found["bfloat16"]
    assert exact["loss"] != near["loss"]
    assert near["loss"] == pytest.approx(exact["loss"], rel=0.005)
    assert near["validation"]["ndcg@10"] == pytest.approx(exact["validation"]["ndcg@10"], abs=0.005)
