"""A supervisor of worker processes: it replaces one that ends, and stops all when it is told to.

Uvicorn's own waits for an answer of each worker in turn, so that one that is busy loading keeps a dead one from being
replaced.
"""

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from threading import Thread
from types import FrameType

LOOK = 0.2
"""Seconds within which a signal is seen."""

PAUSE = 1.0
"""Seconds between two starts of workers that end: one that cannot start is not to take all time."""

_SPAWN = multiprocessing.get_context("spawn")  # a forked process would inherit the locks of threads
logger = logging.getLogger("fedrec")


class Supervisor:
    """Keeps a number of processes at work until SIGTERM or SIGINT."""

    def __init__(self, work: Callable[[], None], count: int) -> None:
        """`work` is pickled, and called in each process."""
        self._work, self._count = work, count
        self._signal: int | None = None

    def run(self) -> int:
        """Start the processes; once a signal has come and all have ended, return its number."""
        before = {number: signal.signal(number, self._note_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        workers = [self._start_worker() for _ in range(self._count)]
        while self._signal is None:
            if ended := wait([worker.sentinel for worker in workers], timeout=LOOK):
                workers = [self._replace(worker) if worker.sentinel in ended else worker for worker in workers]
                time.sleep(PAUSE)
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
        for number, handler in before.items():
            signal.signal(number, handler)
        return self._signal

    def _note_signal(self, number: int, _: FrameType | None) -> None:
        self._signal = number

    def _start_worker(self) -> SpawnProcess:
        worker = _SPAWN.Process(target=_work_for_parent, args=(self._work,))
        worker.start()
        return worker

    def _replace(self, worker: SpawnProcess) -> SpawnProcess:
        worker.join()
        if self._signal is not None:
            return worker
        logger.warning("a worker ended with status %s, another one starts", worker.exitcode)
        return self._start_worker()


def _work_for_parent(work: Callable[[], None]) -> None:
    """Work in a process that ends with its supervisor, which could not replace or stop it any more."""
    Thread(target=_stop_with_parent, daemon=True).start()
    work()


def _stop_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
