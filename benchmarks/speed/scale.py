"""Scaling with the number of users and items: preparing, opening, sampling, training, ranking."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.speed import worlds
from benchmarks.speed.clock import MIB, alternate, peak_memory, ratio
from fedrec.data.shard import Shard
from fedrec.data.synthetic.random_tables import SyntheticConfig
from fedrec.federation import round_log
from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig
from fedrec.federation.round_log import RoundLog
from fedrec.federation.rounds import run
from fedrec.recsys.evaluation.ranking import MAX_USERS, count_ranks, mask_seen
from fedrec.recsys.hardware import parallel_map

SMALL = SyntheticConfig(users=10_000, items=1_000, interactions=200_000, seed=0, longest=100)
LARGE = SyntheticConfig(users=1_000_000, items=100_000, interactions=20_000_000, seed=0, longest=100)
CLIENTS, ROUNDS, TURNS = 1000, 20, 5

ML_1M = SyntheticConfig(users=6040, items=3416, interactions=1_000_000, seed=0)
"""As many users, items and events as in MovieLens 1M."""

Say = Callable[[str], None]


def measure(config: RunConfig, say: Say) -> dict[str, Any]:
    """Measure preparation, training, the cost of a client, and ranking."""
    config = replace(config, clients_per_round=CLIENTS, rounds=ROUNDS, validate_every=ROUNDS)
    with tempfile.TemporaryDirectory(prefix="fedrec-bench-") as name:
        small, large = Path(name) / "small", Path(name) / "large"
        say(f"writing {LARGE.interactions:,} interactions as CSV")
        worlds.make_tables(SMALL, small)
        worlds.make_tables(LARGE, large)
        say("preparing them")
        worlds.prepare(small)
        prepared, memory = peak_memory(worlds.prepare, large)
        preparing = prepared | {
            "rows_per_second": round(prepared["rows"] / prepared["seconds"]),
            "peak_gib": gib(memory),
        }
        for folder in (small, large):
            worlds.embed_at_random(folder, config)
        say(f"{ROUNDS} rounds of {CLIENTS:,} clients of {LARGE.users:,}")
        training, memory = peak_memory(train_rounds, large / "prepared", config, Path(name))
        say("rounds of both federations in turns")
        cost = compare_costs({"small": small / "prepared", "large": large / "prepared"}, config, Path(name))
    say("ranking")
    return {
        "prepare": preparing,
        "train": training | {"peak_gib": gib(memory)},
        "cost_of_a_client": cost,
        "ranking": measure_ranking(),
    }


def train_rounds(data: Path, config: RunConfig, folder: Path) -> dict[str, float]:
    """Open the nodes, take the census and train; return the seconds of both."""
    started = time.perf_counter()
    grid, roster = worlds.open_grid(data, config)
    state = State.start(grid.nodes[0].setup.model.adapter(), config.server)
    opened = time.perf_counter() - started
    (out := folder / "run").mkdir()
    run(grid, roster, state, config, RoundLog(out))
    speeds = [record["clients_per_second"] for record in round_log.read(out)]
    return {
        "users": len(roster),
        "rounds": len(speeds),
        "seconds_to_open": round(opened, 2),
        "seconds": round(time.perf_counter() - started, 1),
        "clients_per_second": statistics.median(speeds),
    }


def compare_costs(folders: dict[str, Path], config: RunConfig, folder: Path) -> dict[str, Any]:
    """Time a round of each federation in turns: a client's cost in the large one as a multiple of the small one's."""
    rounds: dict[str, Callable[[], object]] = {}
    for name, data in folders.items():
        grid, roster = worlds.open_grid(data, config)
        state = State.start(grid.nodes[0].setup.model.adapter(), config.server)
        one = replace(config, rounds=1, validate_every=10**9, validation_users=1)
        (out := folder / f"turns-{name}").mkdir()
        rounds[name] = partial(run, grid, roster, state, one, RoundLog(out))
    alternate(rounds, TURNS)
    # a run's only round is also validated, over the whole catalogue: its record has the seconds of training alone
    seconds = {
        name: [1 / record["clients_per_second"] for record in round_log.read(folder / f"turns-{name}")][1:]
        for name in folders
    }
    return {
        **{name: {"milliseconds": round(1000 * statistics.median(s), 3)} for name, s in seconds.items()},
        "large/small": ratio(seconds["large"], seconds["small"]),
    }


def measure_ranking() -> dict[str, Any]:
    """Time ranking all users' held-out items from given vectors, against one plain product of that size."""
    with tempfile.TemporaryDirectory(prefix="fedrec-bench-") as name:
        worlds.make_tables(ML_1M, Path(name))
        worlds.prepare(Path(name))
        shard = Shard.load(Path(name) / "prepared")
        generator = torch.Generator().manual_seed(0)
        users, items = (
            F.normalize(torch.randn(count, 384, generator=generator), dim=-1) for count in (len(shard), ML_1M.items)
        )

        def rank_part(start: int) -> np.ndarray:
            part = range(start, min(start + MAX_USERS, len(shard)))
            histories = [shard.history(user) for user in part]
            scores = mask_seen(users[part.start : part.stop] @ items.T, histories)
            return count_ranks(scores, shard.held_out(part, "test"))

        seconds = alternate(
            {
                "ranking": lambda: list(parallel_map(rank_part, range(0, len(shard), MAX_USERS))),
                "product": lambda: users @ items.T,
            },
            11,
        )
    return {
        "users": len(shard),
        "items": len(items),
        "seconds": {name: round(statistics.median(took), 4) for name, took in seconds.items()},
        "ranking/product": ratio(seconds["ranking"], seconds["product"]),
    }


def gib(memory: int) -> float:
    """Convert bytes to GiB."""
    return round(memory / MIB / 1024, 2)
