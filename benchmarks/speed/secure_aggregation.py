"""The cost of secure aggregation: bytes and seconds of a round in one process, with masks and in the open.

The same clients are trained from the same adapter, over nodes of one user each, and over a few nodes that host many.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
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
TURNS = {16: 5, 128: 5, 1000: 1}

Say = Callable[[str], None]


def measure(config: RunConfig, say: Say, clients: tuple[int, ...] = CLIENTS) -> list[dict[str, Any]]:
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


def _compare(data: Path, config: RunConfig, clients: int) -> dict[str, Any]:
    ways = {"open": False, "secure": True}
    reports: dict[str, RoundReport] = {}
    cases = {way: partial(_run_round, _rounds(data, config, secure), way, reports) for way, secure in ways.items()}
    seconds = alternate(cases, TURNS.get(clients, 1))
    figures = {
        way: {
            "seconds": round(statistics.median(seconds[way]), 3),
            "bytes_down": report.bytes_down,
            "bytes_up": report.bytes_up,
        }
        for way, report in reports.items()
    }
    costs = {way: report.bytes_down + report.bytes_up for way, report in reports.items()}
    return {
        "clients": clients,
        "nodes": config.nodes,
        **figures,
        "bytes_ratio": round(costs["secure"] / costs["open"], 3),
        "seconds_ratio": round(figures["secure"]["seconds"] / figures["open"]["seconds"], 3),
        "same_sum": _sum_bytes(reports["secure"]) == _sum_bytes(reports["open"]),
    }


def _run_round(rounds: Iterator[RoundReport], way: str, reports: dict[str, RoundReport]) -> None:
    reports[way] = next(rounds)


def _rounds(data: Path, config: RunConfig, secure: bool) -> Iterator[RoundReport]:
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
