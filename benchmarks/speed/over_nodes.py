"""One node and two nodes as real Flower processes on this machine, compared with one process and the same users."""

import shutil
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.speed import worlds
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.synthetic.random_tables import SyntheticConfig
from fedrec.federation import round_log
from fedrec.federation.config import RunConfig, to_flat
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.training_run import METRICS, open_run, train
from fedrec.local_federation.processes import federation
from fedrec.recsys.exposure_bound import ExposureConfig
from fedrec.recsys.hardware import cores
from fedrec.recsys.recommender import Recommender

WORLD = SyntheticConfig(users=2000, items=2000, interactions=40_000, seed=0, longest=100)
CLIENTS, ROUNDS = 1000, 4


def measure(config: RunConfig) -> dict[str, Any]:
    """Measure clients per second and the model's version, which is the same wherever the users are."""
    config = replace(config, method="fedrec", clients_per_round=CLIENTS, rounds=ROUNDS)
    config = replace(config, validate_every=ROUNDS, validation_users=100, exposure=ExposureConfig(exposure_base=0))
    results = {}
    with tempfile.TemporaryDirectory(prefix="fedrec-bench-") as name:
        folder = Path(name)
        data = worlds.make_world(WORLD, folder, config)
        for way, nodes in {"one process": 0, "one node": 1, "two nodes": 2}.items():
            out = folder / way.replace(" ", "-")
            if nodes:  # with data of their own: nodes remember what they were asked
                own = Path(shutil.copytree(data, folder / f"{out.name}-data"))
                _train_over_flower(own, out, replace(config, nodes=nodes))
            else:
                run = open_run(out, Dataset.open(data), config, resume=False)
                train(LocalGrid.over(run.setup), run)
            results[way] = {
                "clients_per_second": statistics.median(r["clients_per_second"] for r in round_log.read(out)),
                "model": Recommender.load(out).version,
            }
    return results


def _train_over_flower(data: Path, out: Path, config: RunConfig) -> None:
    settings = to_flat(config) | {"data": str(data), "out": str(out)}
    nodes = {f"node-{part}": {"data": str(data), "part": part, "parts": config.nodes} for part in range(config.nodes)}
    with federation(out.parent / f"{out.name}-processes", nodes, max(1, cores() // config.nodes)) as here:
        outcome = here.run(settings, timeout=3600)
    if not (out / METRICS).exists():
        output = (outcome.stderr.strip() or outcome.stdout.strip() or "nothing").splitlines()
        raise InputError(
            f"--part nodes: the run over {config.nodes} nodes did not end; Flower's last line: {output[-1]}"
        )
