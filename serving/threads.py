"""Where torch computes.

libgomp keeps a team of threads for every thread that has computed, and once these teams are more than the cores, their
members sleep after each product. So histories and texts are encoded by threads that need no team
(`fedrec.recsys.hardware.parallel_map`), answers are searched for in one thread (`Batcher`), all else is done in
threads that end, and their teams with them.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def run_in_new_thread(work: Callable[[], T]) -> T:
    """What this comes to, in a thread of its own; the caller waits."""
    with ThreadPoolExecutor(1, "fedrec-aside") as thread:
        return thread.submit(work).result()
