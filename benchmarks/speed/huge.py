"""A federation of millions of users on one machine, a step at a time: each in a process of its own, and kept.

After an interruption the same command goes on with the first step that is not finished.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed import large_index, scale, worlds
from benchmarks.speed.clock import milliseconds, peak_memory
from fedrec.data.dataset import Dataset
from fedrec.data.storage.json_file import save_json
from fedrec.data.synthetic.random_tables import INTERACTIONS, SyntheticConfig
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order
from fedrec.federation.node import Node
from fedrec.federation.sampling import sample_clients
from fedrec.federation.setup import TrainingSetup

FIGURES = "figures.json"
"""The figures of the finished steps, in the folder of the world."""

CLIENTS, ROUNDS = 1000, 10
SUMMED_USERS = 20_000
"""Users whose statistics are summed: a rate to reckon with, since all users would take hours on two cores."""

DRAWS = 20

Say = Callable[[str], None]


@dataclass(frozen=True)
class World:
    """A made-up federation, and the folder that holds it."""

    synthetic: SyntheticConfig
    folder: Path

    @property
    def prepared(self) -> Path:
        return self.folder / "prepared"


def measure(world: World, config: RunConfig, say: Say) -> dict[str, Any]:
    """Measure each step that is not measured yet, and return the figures of all."""
    world.folder.mkdir(parents=True, exist_ok=True)
    config = replace(config, clients_per_round=CLIENTS, rounds=ROUNDS, validate_every=ROUNDS)
    figures = _read(world)
    for name, step in STEPS.items():
        if name in figures:
            continue
        say(name)
        started = time.perf_counter()
        found, memory = peak_memory(_with_processor_time, step, world, config)
        seconds = time.perf_counter() - started
        figures[name] = found | {"seconds_in_all": round(seconds, 1), "peak_gib": scale.gib(memory)}
        save_json(world.folder / FIGURES, figures)
    return figures | {"world": asdict(world.synthetic)}


def _read(world: World) -> dict[str, Any]:
    path = world.folder / FIGURES
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _with_processor_time(step: "Step", world: World, config: RunConfig) -> dict[str, Any]:
    """Call a step, and add the processor's seconds: on a busy machine those on the clock are more."""
    return dict(step(world, config)) | {"processor_seconds": round(time.process_time(), 1)}


def write_tables(world: World, config: RunConfig) -> Mapping[str, Any]:
    """Write the table of interactions as CSV."""
    worlds.make_tables(world.synthetic, world.folder)
    return {"bytes": (world.folder / "tables" / INTERACTIONS).stat().st_size}


def prepare(world: World, config: RunConfig) -> Mapping[str, Any]:
    """Prepare the tables."""
    found = worlds.prepare(world.folder)
    size = sum(path.stat().st_size for path in world.prepared.rglob("*") if path.is_file())
    return found | {"rows_per_second": round(found["rows"] / found["seconds"]), "bytes": size}


def embed(world: World, config: RunConfig) -> Mapping[str, Any]:
    """Write random embeddings of the items."""
    worlds.embed_at_random(world.folder, config)
    return {}


def draw(world: World, config: RunConfig) -> Mapping[str, Any]:
    """Open the federation, and sample cohorts."""
    started = time.perf_counter()
    _, roster = worlds.open_grid(world.prepared, config)
    opened, seconds = time.perf_counter() - started, []
    for number in range(DRAWS):
        started = time.perf_counter()
        roster.per_node(sample_clients(roster, CLIENTS, config.seed, number))
        seconds.append(time.perf_counter() - started)
    return {"users": len(roster), "open_seconds": round(opened, 1), "draw_ms": milliseconds(float(np.median(seconds)))}


def train(world: World, config: RunConfig) -> Mapping[str, Any]:
    """Open the federation, train some rounds, and validate after the last."""
    return scale.train_rounds(world.prepared, config, world.folder)


def sum_statistics(world: World, config: RunConfig) -> Mapping[str, Any]:
    """Sum the statistics of some users for the closed form over texts."""
    config = replace(config, method="closed-form")
    started = time.perf_counter()
    node = Node.host(TrainingSetup(Dataset.open(world.prepared), config))
    _ = node.setup.closed_form.features
    opened = time.perf_counter() - started
    users = np.arange(0, len(node.shard), max(1, len(node.shard) // SUMMED_USERS))
    started = time.perf_counter()
    update = node.sum_statistics(Order(config.summing_rounds[0], users), {})
    seconds = time.perf_counter() - started
    return {
        "users": len(users),
        "features": config.closed_form.feature_width,
        "open_seconds": round(opened, 1),
        "users_per_second": round(len(users) / seconds, 1),
        "bytes_of_the_sums": sum(tensor.numel() * 8 for tensor in update.deltas.values()),
    }


def serve(world: World, config: RunConfig) -> Mapping[str, Any]:
    """Build the endpoint's index over as many items, and search it: over vectors in clusters, since among vectors at
    random no index finds the nearest without looking at all."""
    return large_index.measure(world.synthetic.items)


Step = Callable[[World, RunConfig], Mapping[str, Any]]

STEPS: dict[str, Step] = {
    "tables": write_tables,
    "prepare": prepare,
    "embed": embed,
    "draw": draw,
    "train": train,
    "sums": sum_statistics,
    "serve": serve,
}
"""The steps by name, in their order."""
