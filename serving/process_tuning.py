"""How the endpoint's process is tuned: threads, garbage collection, logging. Each function gives its reason.

libgomp keeps a team of threads for every thread that has computed, and once these teams outnumber the cores, their
members sleep after each product. So histories and texts are encoded by threads that need no team
(`fedrec.recsys.hardware.parallel_map`), the `Batcher` searches in a single thread, and all other work runs in
short-lived threads (`run_in_new_thread`), whose teams end with them.
"""

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import faiss

SWITCH_INTERVAL = 0.0001
"""Seconds after which Python hands its lock from the thread that reads requests to a thread that computes. The default,
5 ms, is longer than a whole answer takes."""

T = TypeVar("T")


def run_in_new_thread(work: Callable[[], T]) -> T:
    """Run `work` in a fresh thread and return its result."""
    with ThreadPoolExecutor(1, "fedrec-work") as thread:
        return thread.submit(work).result()


@contextmanager
def single_openmp_thread() -> Iterator[None]:
    """Let FAISS compute in the calling thread: even for one question it would wake a team of threads."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def tune_process() -> None:
    """Set up a process that only answers requests."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    # No log line contains these, and finding them out for each costs time (Python's logging HOWTO, "Optimization").
    logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False


def freeze_loaded_objects() -> None:
    """Exclude all objects that exist now from garbage collection: a full one would pause requests for 250 ms."""
    gc.freeze()
