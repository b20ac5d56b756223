"""Utility under differential privacy: NDCG@10 of the closed form over pairs, against ε, on data and on a synthetic
million of users.

The settings are the same for all data, with few and with many pairs counted. Each ε gets fresh noise in each
repetition. The noise is secret: a second measurement gives other figures of the same distribution.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from benchmarks.synthetic_walks import Walks
from fedrec.data.dataset import Dataset
from fedrec.data.shard import Shard
from fedrec.data.storage.json_file import save_json
from fedrec.data.storage.reading import read_json
from fedrec.federation.config import RunConfig, from_flat
from fedrec.federation.privacy.accounting import RELATION, Releases, default_delta
from fedrec.federation.privatise import add_noise
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.closed_form.search import Hyperparameters
from fedrec.recsys.closed_form.solutions import WEIGHTS
from fedrec.recsys.closed_form.statistics import Statistics
from fedrec.recsys.environment import environment_info
from fedrec.recsys.evaluation.ranking import metric_means, metric_sums, rank
from fedrec.recsys.hardware import parallel_map
from fedrec.recsys.training.closed_form import ClosedFormMethod

SETTINGS: dict[str, Any] = {"method": "closed-form", "features": "pairs"}
NEIGHBOURS = (20, 50, 300)
"""The settings `pair_neighbours`."""
EPSILONS = (1.0, 2.0, 4.0, 8.0)
REPETITIONS = 3
PART = 2_000
"""Users whose sums are computed in one piece."""


class World(Protocol):
    """Histories in parts, the public texts of their items, and users whose held-out items are ranked."""

    @property
    def users(self) -> int: ...

    @property
    def embeddings(self) -> Tensor: ...

    @property
    def ranked(self) -> Shard: ...

    def parts(self) -> Iterator[Shard]:
        """Iterate over all users' histories."""
        ...


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared dataset."""

    ranked: Shard
    embeddings: Tensor

    @classmethod
    def open(cls, folder: Path) -> "Prepared":
        """Open a dataset with the embeddings of its texts."""
        setup = TrainingSetup(Dataset.open(folder), RunConfig())
        return cls(setup.dataset.shard, setup.embeddings.matrix.cpu())

    @property
    def users(self) -> int:
        """The number of users."""
        return len(self.ranked)

    def parts(self) -> Iterator[Shard]:
        """Iterate over all users' histories."""
        for start in range(0, self.users, PART):
            yield self.ranked.select(np.arange(start, min(start + PART, self.users)))


def measure(folders: dict[str, Path], million: int, out: Path) -> dict[str, Any]:
    """Measure each dataset, and a synthetic federation of `million` users.

    Every figure is kept in a file below `out` once it is there, so that the same command resumes after a crash.
    """
    worlds: dict[str, Any] = {name: lambda folder=folder: Prepared.open(folder) for name, folder in folders.items()}
    worlds[f"synthetic-{million}"] = lambda: Walks(million)
    results = [
        _measure_world(name, build, neighbours, out) for name, build in worlds.items() for neighbours in NEIGHBOURS
    ]
    return {"relation": RELATION, "repetitions": REPETITIONS, "worlds": results, **environment_info()}


def _measure_world(name: str, build: Any, neighbours: int, out: Path) -> dict[str, Any]:
    """Measure one world with some neighbours, or read what was measured before."""
    path = out / f"{name}-{neighbours}.json"
    if path.exists():
        return read_json(path, "remove it")
    world: World = build()
    bench = Bench.over(world, SETTINGS | {"pair_neighbours": neighbours})
    nothing = {name: torch.zeros_like(tensor) for name, tensor in bench.whole.items()}
    found = {
        "name": name,
        "users": world.users,
        "items": len(world.embeddings),
        "neighbours": neighbours,
        "pairs": len(bench.method.pair_gate),
        "delta": default_delta(world.users),
        "texts_alone": bench.score(nothing, 0.0),
        "without_privacy": bench.score(bench.whole, 0.0),
        "points": [bench.measure(epsilon) for epsilon in EPSILONS],
    }
    save_json(path, found)
    return found


@dataclass(frozen=True, eq=False)
class Bench:
    """The sums of one world, computed once: whole, and clipped."""

    world: World
    method: ClosedFormMethod
    chosen: Hyperparameters  # the middle of each list, as without validation
    whole: Statistics
    clipped: Statistics

    @classmethod
    def over(cls, world: World, settings: dict[str, Any]) -> "Bench":
        """Sum the statistics of all users of a world."""
        plain, private = from_flat(settings), from_flat(settings | {"epsilon": 1.0})
        method = _method(world, private)
        return cls(world, method, plain.search_space.middle, _sum(_method(world, plain), world), _sum(method, world))

    def measure(self, epsilon: float) -> dict[str, Any]:
        """Measure the model at one ε, with fresh noise in each repetition."""
        wanted = Releases(0, 0.0, 0.0, 1, 0.0)
        noise = wanted.with_noise(epsilon, default_delta(self.world.users), 1.0).statistic_noise
        bounds = self.method.clipped
        assert bounds
        scores = []
        for _ in range(REPETITIONS):
            noised = add_noise(self.clipped, noise * bounds.longest, bounds.unit)
            scores.append(self.score(noised, noise * bounds.longest))
        spread = statistics.stdev(scores)
        return {"epsilon": epsilon, "noise": noise, "ndcg_10": statistics.mean(scores), "deviation": spread}

    def score(self, sums: Statistics, deviation: float) -> float:
        """Compute NDCG@10 on the test items."""
        adapter = self.method.solver(sums, deviation).solve(self.chosen)
        weights, kernel = adapter[WEIGHTS].numpy(), self.method.config.stack.kernels[0]

        def score(histories: Sequence[np.ndarray]) -> Tensor:
            """Score all items, by a sparse product: a context has few events, and candidates are one-hot."""
            owners = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
            decayed = np.concatenate([kernel.weigh_history(len(history)) for history in histories])
            entries = decayed.astype(np.float32), (owners, np.concatenate(histories))
            contexts = sparse.csr_matrix(entries, shape=(len(histories), len(weights)))
            contexts.eliminate_zeros()
            return torch.from_numpy(contexts @ weights)

        ranked = self.world.ranked
        return metric_means(metric_sums(rank(score, ranked, range(len(ranked)), "test").ranks))["ndcg@10"]


def _method(world: World, config: RunConfig) -> ClosedFormMethod:
    rows = np.arange(len(world.embeddings))
    return ClosedFormMethod(
        world.embeddings, rows, config.closed_form, config.seed, config.held_out, clip=config.statistic_clip
    )


def _sum(method: ClosedFormMethod, world: World) -> Statistics:
    _ = method.pair_gate  # before the threads start
    total: Statistics = {}
    for found in parallel_map(lambda part: method.sum_users(part, np.arange(len(part))).statistics, world.parts()):
        total = {name: tensor + total.get(name, 0) for name, tensor in found.items()}
    return total
