"""How everything is timed: in turns within one run, so that a noisy machine disturbs all alike, and by medians."""

import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch

MIB = 2**20


def alternate(cases: Mapping[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """Seconds of each case, `turns` times each in turn, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(turns + 1):
        for name, case in cases.items():
            started = time.perf_counter()
            case()
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # what was asked of a GPU is done only then
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> float:
    """How many times faster: the median over the turns of what the two took in the same turn."""
    return round(statistics.median(a / b for a, b in zip(slow, fast, strict=True)), 3)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_memory(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    """What a function gives in a process of its own, and the most memory that process ever held, in bytes."""
    return apart(_measured, function, *arguments)


def _measured(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    return function(*arguments), _high_water()


def _high_water() -> int:
    """Linux counts a parent's memory into `ru_maxrss` of what it starts; the status file does not."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = dict(line.split(":", 1) for line in status.read_text("utf-8").splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


@contextmanager
def extra_memory() -> Iterator[list[int]]:
    """Sampled within: the most bytes that the process holds on top of what it holds at the start, the only entry."""
    process, most, done = psutil.Process(), [0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.002):
            most[0] = max(most[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()
