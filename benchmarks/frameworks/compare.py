"""Rounds of the engine and of the frameworks, timed in turns on the same clients."""

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.frameworks.process import WAYS, Framework, MissingFramework, check_python
from benchmarks.frameworks.work import write_task
from benchmarks.speed.clock import alternate, ratio
from benchmarks.speed.cohort_engine import (
    Bench,
    Say,
    clients_per_second,
    prepare_world,
    relative_difference,
    round_all,
)
from fedrec import console
from fedrec.data.errors import InputError
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order, Update
from fedrec.recsys.hardware import cores

CLIENTS, LONE = 1000, 64  # clients of the engine's round; of a framework's
TURNS = 5


def measure(config: RunConfig, python: Path, say: Say) -> dict[str, Any]:
    """Measure all ways that are installed for `python`. Raises `InputError` if none is, or for local steps over one."""
    check_python(python)
    if config.fit.local_steps != 1:
        raise InputError(f"local_steps={config.fit.local_steps}: the frameworks' clients take one step; leave it at 1")
    with tempfile.TemporaryDirectory(prefix="fedrec-bench-") as name, ExitStack() as opened:
        say("making a federation")
        bench = Bench(prepare_world(Path(name), config), config)
        few = bench.order(LONE)
        write_task(Path(name), bench.data, bench.config, few, bench.adapter, cores())
        frameworks: dict[str, Framework] = {}
        skipped: dict[str, str] = {}
        for way in WAYS:
            say(f"starting {way}")
            try:
                frameworks[way] = opened.enter_context(Framework.start(way, Path(name), python, cores()))
            except MissingFramework as error:
                skipped[way] = str(error)
        if not frameworks:
            raise InputError(f"--python: {python} has no framework ({'; '.join(skipped.values())})")
        say("rounds in turns")
        return compare_frameworks(bench, few, frameworks) | {"skipped": skipped}


def compare_frameworks(bench: Bench, few: Order, frameworks: Mapping[str, Framework]) -> dict[str, Any]:
    """Time all ways in turns, and compare each sum with the engine's over the same clients."""
    many, load = bench.order(CLIENTS), os.getloadavg()[0]
    cases: dict[str, Callable[[], object]] = {"engine": partial(bench.engine, many)}
    seconds = alternate(cases | {way: framework.run_round for way, framework in frameworks.items()}, TURNS)
    each = {way: [s / (CLIENTS if way == "engine" else LONE) for s in took] for way, took in seconds.items()}
    expected = bench.engine(few)
    sums = {way: _update(framework) for way, framework in frameworks.items()}
    return {
        "ratios": {f"engine/{way}": ratio(each[way], each["engine"]) for way in each if way != "engine"},
        "faster": faster_ways(each, {way: framework.about["framework"] for way, framework in frameworks.items()}),
        "ways": {
            way: {"clients_per_second": clients_per_second(took), "seconds": round_all(seconds[way])}
            for way, took in each.items()
        },
        "same_update": {way: relative_difference(expected, total) for way, total in sums.items()},
        "clients": {"engine": CLIENTS, "others": LONE},
        "frameworks": {way: framework.about for way, framework in frameworks.items()},
        "load_average_before": round(load, 1),
    }


def faster_ways(each: Mapping[str, list[float]], names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Find each framework's faster way, and the engine's speed as a multiple of it.

    each: seconds per client in each turn, by way; names: the framework of a way.
    """
    found: dict[str, dict[str, Any]] = {}
    for way, name in names.items():
        times = ratio(each[way], each["engine"])
        if name not in found or times < found[name]["engine_times"]:
            found[name] = {"way": way, "engine_times": times}
    return found


def _update(framework: Framework) -> Update:
    return Update(1, LONE, {name: tensor.to(torch.float64) for name, tensor in framework.total().items()}, {})


def show(results: dict[str, Any]) -> None:
    """Print the speeds, and what was skipped."""
    table = console.table("way", "clients/s", "engine is", "sum differs by", title="the same clients, by simulator")
    for way, figures in results["ways"].items():
        times, difference = results["ratios"].get(f"engine/{way}"), results["same_update"].get(way)
        table.add_row(
            way,
            f"{figures['clients_per_second']:,.1f}",
            f"{times:.1f} times as fast" if times else "",
            "" if difference is None else f"{difference:.1e}",
        )
    console.show(table)
    for reason in results["skipped"].values():
        console.warn(f"skipped {reason}")
