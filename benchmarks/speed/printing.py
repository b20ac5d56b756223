"""What `fedrec bench` says: every figure as JSON, or the ones that matter as tables."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.speed import cohort_engine, over_nodes, scale
from fedrec import console
from fedrec.federation.config import RunConfig
from fedrec.recsys.environment import environment_info

PARTS = ("cohort", "scale", "nodes")


def run(config: RunConfig, parts: Sequence[str], command: str) -> dict[str, Any]:
    """The chosen parts' figures, and what they were measured with."""
    found: dict[str, Any] = {}
    if "cohort" in parts:
        found |= cohort_engine.measure(config, console.status)
    if "scale" in parts:
        found["scale"] = scale.measure(config, console.status)
    if "nodes" in parts:
        console.status("nodes as processes")
        found["nodes"] = over_nodes.measure(config)
    return found | {"command": command, "seed": config.seed, "settings": asdict(config), **environment_info()}


def show(found: dict[str, Any]) -> None:
    """The tables, on stdout."""
    if "ways" in found:
        ways = console.table("way", "clients/s", "engine is", title="the same clients, trained four ways")
        for way, figures in found["ways"].items():
            times = found["ratios"].get(f"engine/{way}")
            ways.add_row(way, f"{figures['clients_per_second']:,.1f}", f"{times:.2f} times as fast" if times else "")
        console.show(ways)
        sizes = console.table("history", "clients/s", "engine / central", title="by length of the histories")
        for length, figures in found["lengths"].items():
            sizes.add_row(length, f"{figures['clients_per_second']:,.0f}", f"{figures['cohort_engine/central']:.2f}")
        console.show(sizes)
        blocks = console.table("events in a block", "clients/s", "memory, MiB", title="by size of the blocks")
        for events, figures in found["blocks"].items():
            blocks.add_row(events, f"{figures['clients_per_second']:,.0f}", f"{figures['memory_mib']:,}")
        console.show(blocks)
    for part in ("scale", "nodes"):
        if part in found:
            _tree(part, found[part])


def _tree(title: str, figures: dict[str, Any]) -> None:
    table = console.table("what", "figure", title=title)
    for name, value in _flat(figures):
        table.add_row(name, f"{value:,}" if isinstance(value, int | float) else str(value))
    console.show(table)


def _flat(figures: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in figures.items():
        rows += _flat(value, f"{prefix}{name}: ") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return rows


def show_serving(found: dict[str, Any]) -> None:
    """Each figure beside its bar, and the times that it is made of."""
    table = console.table("what", "found", "bar", title=f"{found['run']['version']}, one worker")
    for row in found["bars"]:
        table.add_row(row["what"], f"{row['found']:g}", f"{row['bar']}{'' if row['met'] else '  missed'}")
    console.show(table)
    for part in ("vector", "history", "throughput", "sustained", "reload", "index", "start"):
        _tree(part, found[part])
    console.out.print(f"the server's memory after all questions: {found['memory_mib']:,} MiB")


def show_encoder(found: dict[str, Any]) -> None:
    """Milliseconds a text, by its length."""
    table = console.table("tokens of a text", "ms of one core", title=found["encoder"])
    for row in found["lengths"]:
        table.add_row(f"{row['tokens']:g}", f"{row['milliseconds']:g}")
    console.show(table)


def show_profile(rows: list[dict[str, Any]], count: int = 20) -> None:
    """Operations by their own share of a block's time."""
    table = console.table("operation", "calls", "own", "with inner", title="one block of clients, one thread")
    for row in rows[:count]:
        table.add_row(row["operation"], str(row["calls"]), f"{row['own']:.1%}", f"{row['with_inner']:.1%}")
    console.show(table)
