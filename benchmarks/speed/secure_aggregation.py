"""The cost of secure aggregation: bytes and seconds of a round in one process, with masks and in the open.

The same clients are trained from the same adapter, over nodes of one user each, and over a few nodes that host many.
Seconds of all cores are counted too: they do not depend on what else the machine does.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed import worlds
from benchmarks.speed.clock import alternate
from fedrec.data.synthetic.random_tables import SyntheticConfig
from fedrec.federation import wire
from fedrec.federation.config import RunConfig
from fedrec.federation.exchange import RoundReport, orders_per_node, request_updates
from fedrec.federation.messages import Order
from fedrec.federation.secure_aggregation.config import SecureAggregationConfig

CLIENTS = (16, 128, 1000)
HOSTS = 8
"""Nodes that host many."""
TURNS = {16: 3, 128: 3, 1000: 1}

Say = Callable[[str], None]


def measure(config: RunConfig, say: Say, clients: Sequence[int] = CLIENTS) -> list[dict[str, Any]]:
    """Measure a round of each size and layout; a row for each."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="fedrec-bench-") as name:
        for count in clients:
            world = SyntheticConfig(users=count, items=2000, interactions=20 * count, seed=0, longest=100)
            data = worlds.make_world(world, Path(name) / str(count), config)
            for nodes in (count, HOSTS):
                say(f"{count} clients on {nodes} nodes")
                rows.append(_compare(data, replace(config, nodes=nodes), count))
    return rows


@dataclass(eq=False)
class Way:
    """A way to request the sum, and what its rounds took."""

    rounds: Iterator[RoundReport]
    processor: list[float] = field(default_factory=list)  # seconds of all cores
    report: RoundReport = field(default_factory=RoundReport)

    def run_round(self) -> None:
        started = time.process_time()
        self.report = next(self.rounds)
        self.processor.append(time.process_time() - started)

    def figures(self, seconds: list[float]) -> dict[str, Any]:
        """Return the medians, without the first round, and the bytes."""
        return {
            "seconds": round(statistics.median(seconds), 3),
            "processor_seconds": round(statistics.median(self.processor[1:]), 3),
            "bytes_down": self.report.bytes_down,
            "bytes_up": self.report.bytes_up,
        }


def _compare(data: Path, config: RunConfig, clients: int) -> dict[str, Any]:
    ways = {"open": Way(request_rounds(data, config, False)), "secure": Way(request_rounds(data, config, True))}
    seconds = alternate({name: way.run_round for name, way in ways.items()}, TURNS.get(clients, 1))
    figures = {name: way.figures(seconds[name]) for name, way in ways.items()}
    byte_counts = {name: way.report.bytes_down + way.report.bytes_up for name, way in ways.items()}
    ratios = {
        f"{name}_ratio": round(figures["secure"][name] / figures["open"][name], 3)
        for name in ("seconds", "processor_seconds")
    }
    return {
        "clients": clients,
        "nodes": config.nodes,
        **figures,
        "bytes_ratio": round(byte_counts["secure"] / byte_counts["open"], 3),
        **ratios,
        "same_sum": _sum_bytes(ways["secure"].report) == _sum_bytes(ways["open"].report),
    }


def request_rounds(data: Path, config: RunConfig, secure: bool) -> Iterator[RoundReport]:
    """Request the sum of all users again and again, each time as the first round of another run."""
    config = replace(config, secure_aggregation=SecureAggregationConfig(secure=secure))
    grid, roster = worlds.open_grid(data, config)
    adapter = worlds.perturb(grid.nodes[0].setup.model.adapter(), config.seed)
    for number in range(1_000_000):
        order = Order(1, np.arange(len(roster)), config.clip, run=f"{number:016x}")
        report = request_updates(grid, wire.TRAIN, orders_per_node(roster, order), adapter, config)
        assert report.clients_answered == len(roster), report.refusals
        yield report


def _sum_bytes(report: RoundReport) -> bytes:
    names = sorted(report.updates[0].deltas)
    sums = (sum(update.deltas[name].numpy() for update in report.updates) for name in names)
    return b"".join((np.asarray(total) + 0.0).tobytes() for total in sums)
