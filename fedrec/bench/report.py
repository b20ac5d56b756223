"""What `fedrec bench` says: every figure as JSON, or the ones that matter as tables."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from federation.config import RunConfig
from federation.train import circumstances
from fedrec import view
from fedrec.bench import engine, nodes, scale

PARTS = ("cohort", "scale", "nodes")


def run(config: RunConfig, parts: Sequence[str], command: str) -> dict[str, Any]:
    """The chosen parts' figures, and what they were measured with."""
    found: dict[str, Any] = {}
    if "cohort" in parts:
        found |= engine.measure(config, view.say)
    if "scale" in parts:
        found["scale"] = scale.measure(config, view.say)
    if "nodes" in parts:
        view.say("nodes as processes")
        found["nodes"] = nodes.measure(config)
    return found | {"command": command, "seed": config.seed, "settings": asdict(config), **circumstances()}


def show(found: dict[str, Any]) -> None:
    """The tables, on stdout."""
    if "ways" in found:
        ways = view.table("way", "clients/s", "engine is", title="the same clients, trained four ways")
        for way, figures in found["ways"].items():
            times = found["ratios"].get(f"engine/{way}")
            ways.add_row(way, f"{figures['clients_per_second']:,.1f}", f"{times:.2f} times as fast" if times else "")
        view.show(ways)
        sizes = view.table("history", "clients/s", "engine / central", title="by length of the histories")
        for length, figures in found["lengths"].items():
            sizes.add_row(length, f"{figures['clients_per_second']:,.0f}", f"{figures['engine/central']:.2f}")
        view.show(sizes)
        blocks = view.table("events in a block", "clients/s", "memory, MiB", title="by size of the blocks")
        for events, figures in found["blocks"].items():
            blocks.add_row(events, f"{figures['clients_per_second']:,.0f}", f"{figures['memory_mib']:,}")
        view.show(blocks)
    for part in ("scale", "nodes"):
        if part in found:
            _tree(part, found[part])


def _tree(title: str, figures: dict[str, Any]) -> None:
    table = view.table("what", "figure", title=title)
    for name, value in _flat(figures):
        table.add_row(name, f"{value:,}" if isinstance(value, int | float) else str(value))
    view.show(table)


def _flat(figures: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in figures.items():
        rows += _flat(value, f"{prefix}{name}: ") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return rows


def show_serving(found: dict[str, Any]) -> None:
    """Each figure beside its bar, and the times that it is made of."""
    table = view.table("what", "found", "bar", title=f"{found['run']['version']}, one worker")
    for row in found["bars"]:
        table.add_row(row["what"], f"{row['found']:g}", f"{row['bar']}{'' if row['met'] else '  missed'}")
    view.show(table)
    for part in ("vector", "history", "throughput", "sustained", "reload", "index", "start"):
        _tree(part, found[part])
    view.out.print(f"the server's memory after all questions: {found['memory_mib']:,} MiB")


def show_encoder(found: dict[str, Any]) -> None:
    """Milliseconds a text, by its length."""
    table = view.table("tokens of a text", "ms of one core", title=found["encoder"])
    for row in found["lengths"]:
        table.add_row(f"{row['tokens']:g}", f"{row['milliseconds']:g}")
    view.show(table)


def show_profile(rows: list[dict[str, Any]], count: int = 20) -> None:
    """Operations by their own share of a block's time."""
    table = view.table("operation", "calls", "own", "with inner", title="one block of clients, one thread")
    for row in rows[:count]:
        table.add_row(row["operation"], str(row["calls"]), f"{row['own']:.1%}", f"{row['with_inner']:.1%}")
    view.show(table)
