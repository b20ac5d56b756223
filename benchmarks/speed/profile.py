"""A profile of one block of clients: which operations its time goes to."""

import tempfile
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as torch_profile

from benchmarks.speed.clock import one_thread
from benchmarks.speed.cohort_engine import CLIENTS, Bench, prepare_world
from fedrec.data.randomness import DrawKey
from fedrec.data.shard import Cohort
from fedrec.federation.clipping import clip_and_sum
from fedrec.federation.config import RunConfig
from fedrec.recsys.training.local_training import training_blocks


def profile_block(config: RunConfig) -> list[dict[str, Any]]:
    """Profile one block in one thread: operations by their own share of the time, largest first."""
    with tempfile.TemporaryDirectory(prefix="fedrec-bench-") as name:
        bench = Bench(prepare_world(Path(name), config), config)
        block = next(training_blocks(bench.cohort(bench.order(CLIENTS)), bench.embeddings.device))
        with one_thread():
            train_block(bench, block)  # the first pass also sets up the libraries
            with torch_profile(activities=[ProfilerActivity.CPU]) as recorded:
                train_block(bench, block)
    rows = recorded.key_averages()
    total = sum(row.self_cpu_time_total for row in rows)
    return [
        {
            "operation": row.key,
            "calls": row.count,
            "own": row.self_cpu_time_total / total,
            "with_inner": row.cpu_time_total / total,
        }
        for row in sorted(rows, key=lambda row: -row.self_cpu_time_total)
    ]


def train_block(bench: Bench, block: Cohort) -> None:
    """Train the clients of a block, clip their updates and sum them."""
    updates = bench.trainer.train_clients(bench.near, block, DrawKey(bench.config.seed, 1))
    with record_function("clip and sum"):
        clip_and_sum(updates, 1, bench.config.clip)
