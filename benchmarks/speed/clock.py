"""Timing: cases take turns within one run, so that a noisy machine disturbs all alike, and medians are compared."""

import itertools
import random
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch

MIB = 2**20


def alternate(cases: Mapping[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """Time each case `turns` times, in turns, after one pass that is not counted. Returns the seconds by case."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(turns + 1):
        for name, case in cases.items():
            started = time.perf_counter()
            case()
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # a GPU computes asynchronously
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def time_calls(
    cases: Mapping[str, Callable[[int], object]], calls: int, together: int, turns: int, rest: float = 0.0
) -> dict[str, list[float]]:
    """Time each case's calls 0 … `calls` − 1, `turns` times after one pass that is not counted.

    The cases alternate after `together` calls, in random order, and each call is made after `rest` seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn, name, number in _schedule(list(cases), calls, together, turns):
        time.sleep(rest)
        started = time.perf_counter()
        cases[name](number)
        if turn:
            seconds[name].append(time.perf_counter() - started)
    return seconds


def _schedule(names: Sequence[str], calls: int, together: int, turns: int) -> Iterator[tuple[int, str, int]]:
    """Iterate over (turn, case, call); the order of the cases is drawn for each group of calls."""
    rng = random.Random(0)
    for turn, first in itertools.product(range(turns + 1), range(0, calls, together)):
        for name in rng.sample(names, len(names)):
            for number in range(first, min(first + together, calls)):
                yield turn, name, number


def ratio(slow: list[float], fast: list[float]) -> float:
    """Compute the median over the turns of slow / fast, both from the same turn."""
    return round(statistics.median(a / b for a, b in zip(slow, fast, strict=True)), 3)


def run_in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process and return its result."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_memory(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    """Call a function in a new process; return its result and the process's peak memory in bytes."""
    return run_in_process(_call_and_measure, function, *arguments)


def _call_and_measure(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    return function(*arguments), _peak_bytes()


def _peak_bytes() -> int:
    """Read this process's peak memory. On Linux `ru_maxrss` includes the parent's memory; the status file does not."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = dict(line.split(":", 1) for line in status.read_text("utf-8").splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


@contextmanager
def extra_memory() -> Iterator[list[int]]:
    """Sample the process's memory within the block; the list's only entry is the peak above the start, in bytes."""
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


def milliseconds(seconds: float) -> float:
    """Convert seconds, rounded to microseconds."""
    return round(float(seconds) * 1000, 3)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread within the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
