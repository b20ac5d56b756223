"""A profile of one block of clients: which operations its time goes to."""

import tempfile
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as torch_profile

from benchmarks.speed.clock import one_thread
from benchmarks.speed.cohort_engine import CLIENTS, Bench, prepare_world
from fedrec.federation.clipping import clip_and_sum
from fedrec.federation.config import RunConfig
from fedrec.recsys.training.method import Block


def profile_block(config: RunConfig) -> list[dict[str, Any]]:
    """Profile one block in one thread: operations by their own share of the time, largest first."""
    with tempfile.TemporaryDirectory(prefix="fedrec-bench-") as name:
        bench = Bench(prepare_world(Path(name), config), config)
        method, users = bench.node.setup.method, bench.order(CLIENTS).users
        block = next(method.blocks(bench.node.shard, users, 1))
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


def train_block(bench: Bench, block: Block) -> None:
    """Train the clients of a block, clip their updates and sum them."""
    updates = bench.node.setup.method.train_clients(bench.near, block, {})
    with record_function("clip and sum"):
        clip_and_sum(updates, 1, bench.config.clip)
