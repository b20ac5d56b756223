"""The output of `fedrec bench`: all figures for JSON, or the important ones as tables."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.speed import cohort_engine, over_nodes, scale
from fedrec import console
from fedrec.federation.config import RunConfig
from fedrec.recsys.environment import environment_info


def run_parts(config: RunConfig, parts: Sequence[str], command: str) -> dict[str, Any]:
    """Measure these parts; add command, settings, versions and machine."""
    results: dict[str, Any] = {}
    if "cohort" in parts:
        results |= cohort_engine.measure(config, console.status)
    if "scale" in parts:
        results["scale"] = scale.measure(config, console.status)
    if "nodes" in parts:
        console.status("nodes as processes")
        results["nodes"] = over_nodes.measure(config)
    return with_origin(results, config, command)


def with_origin(results: dict[str, Any], config: RunConfig, command: str) -> dict[str, Any]:
    """Add command, settings, versions and machine to figures."""
    return results | {"command": command, "seed": config.seed, "settings": asdict(config), **environment_info()}


def show_engine(results: dict[str, Any]) -> None:
    """Print the tables of the engine."""
    if "ways" in results:
        ways = console.table("way", "clients/s", "engine is", title="the same clients, trained four ways")
        for way, figures in results["ways"].items():
            times = results["ratios"].get(f"engine/{way}")
            ways.add_row(way, f"{figures['clients_per_second']:,.1f}", f"{times:.2f} times as fast" if times else "")
        console.show(ways)
        sizes = console.table("history", "clients/s", "engine / central", title="by length of the histories")
        for length, figures in results["lengths"].items():
            sizes.add_row(length, f"{figures['clients_per_second']:,.0f}", f"{figures['engine/central']:.2f}")
        console.show(sizes)
        blocks = console.table("events in a block", "clients/s", "memory, MiB", title="by size of the blocks")
        for events, figures in results["blocks"].items():
            blocks.add_row(events, f"{figures['clients_per_second']:,.0f}", f"{figures['memory_mib']:,}")
        console.show(blocks)
    for part in ("scale", "nodes"):
        if part in results:
            show_figures(part, results[part])


def show_figures(title: str, figures: dict[str, Any]) -> None:
    """Print figures of any depth, a line each."""
    table = console.table("what", "figure", title=title)
    for name, value in _flatten(figures):
        table.add_row(name, f"{value:,}" if isinstance(value, int | float) else str(value))
    console.show(table)


def _flatten(figures: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in figures.items():
        rows += _flatten(value, f"{prefix}{name}: ") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return rows


def show_serving(results: dict[str, Any]) -> None:
    """Print each figure beside its bar, and the times it is computed from."""
    table = console.table("what", "found", "bar", title=f"{results['run']['version']}, one worker")
    for row in results["bars"]:
        table.add_row(row["what"], f"{row['found']:g}", f"{row['bar']}{'' if row['met'] else '  missed'}")
    console.show(table)
    for part in ("vector", "history", "throughput", "sustained", "reload", "index", "start"):
        show_figures(part, results[part])
    console.out.print(f"memory of the server after all questions: {results['memory_mib']:,} MiB")


def show_secure(found: dict[str, Any]) -> None:
    """Print the cost of a round with masks, its ratio to one in the open, and what the protocol and noise cost."""
    titles = ("clients", "nodes", "MiB", "times", "seconds", "times", "of all cores", "times")
    table = console.table(*titles, title="a round under secure aggregation")
    for row in found["rounds"]:
        secure = row["secure"]
        mib = (secure["bytes_down"] + secure["bytes_up"]) / 2**20
        shown = [f"{mib:,.1f}", f"{row['bytes_ratio']:.2f}"]
        for name in ("seconds", "processor_seconds"):
            shown += [f"{secure[name]:.2f}", f"{row[f'{name}_ratio']:.2f}"]
        table.add_row(f"{row['clients']:,}", f"{row['nodes']:,}", *shown)
    console.show(table)
    groups = console.table("nodes of a group", "ms of a node", "ms of the server", title="the protocol, on one core")
    for row in found["groups"]:
        groups.add_row(str(row["nodes"]), f"{row['node_ms']:.1f}", f"{row['server_ms']:.1f}")
    console.show(groups)
    noise = found["noise"]
    console.out.print(
        f"with noise for ε = {noise['epsilon']:g}, a round of {noise['clients']} clients takes "
        f"{noise['seconds_ratio']:.2f} times the seconds"
    )


def show_asynchronous(found: dict[str, Any]) -> None:
    """Print for each fleet when each way reaches the quality of synchronous rounds, and what it costs."""
    for fleet, figures in found["fleets"].items():
        shares = list(next(iter(figures["cases"].values()))["reached"])
        titles = ("rounds", "best", *(f"time to {float(share):.0%}" for share in shares), "given up", "staleness")
        table = console.table(*titles, title=f"{found['data']}, {found['answers']:,} answers, {fleet}")
        for name, case in figures["cases"].items():
            times = [f"{at['clock']:,.0f}" if (at := case["reached"][share]) else "never" for share in shares]
            table.add_row(name, f"{case['best']:.4f}", *times, f"{case['given_up']:.0%}", f"{case['staleness']:.1f}")
        console.show(table)


def show_encoder(results: dict[str, Any]) -> None:
    """Print milliseconds per text, by length."""
    table = console.table("tokens of a text", "ms of one core", title=results["encoder"])
    for row in results["lengths"]:
        table.add_row(f"{row['tokens']:g}", f"{row['milliseconds']:g}")
    console.show(table)


def show_profile(rows: list[dict[str, Any]], count: int = 20) -> None:
    """Print the operations with the largest own shares of a block's time."""
    table = console.table("operation", "calls", "own", "with inner", title="one block of clients, one thread")
    for row in rows[:count]:
        table.add_row(row["operation"], str(row["calls"]), f"{row['own']:.1%}", f"{row['with_inner']:.1%}")
    console.show(table)
