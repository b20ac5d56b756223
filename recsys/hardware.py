"""The hardware: device, cores, worker threads, memory, and whether bfloat16 is fast."""

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import psutil
import torch

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
"""Lets torch ask Linux for pages of 2 MiB for large tensors: fewer to fill, and to look up. torch reads it at its first
tensor."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@cache
def device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # cuDNN plans attention again for each shape, and histories have many: a round is 2 to 3 times as fast without it
    torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device("cuda")


@cache
def cores() -> int:
    """Count the physical cores that this process may use, by affinity, a container's quota and OMP_NUM_THREADS."""
    from joblib import cpu_count  # it reads affinity and quota on every system

    return max(1, min(cpu_count(only_physical_cores=True), torch.get_num_threads()))


def describe_hardware() -> dict[str, Any]:
    """Return the hardware's properties that a result depends on, ready for JSON."""
    on = device()
    return {
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "device": torch.cuda.get_device_name(on) if on.type == "cuda" else "cpu",
        "fast_bfloat16": fast_bfloat16(on),
    }


def fast_bfloat16(on: torch.device) -> bool:
    """Tell whether a device multiplies bfloat16 faster than float32: by AMX, AVX512-BF16, or a GPU's units."""
    if on.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return bool(features.get("amx_bf16") or features.get("avx512_bf16"))


def free_memory(on: torch.device) -> int:
    """Return the memory of a device that is still free, in bytes."""
    if on.type == "cpu":
        return psutil.virtual_memory().available
    cached = torch.cuda.memory_reserved(on) - torch.cuda.memory_allocated(on)  # torch's allocator will reuse it
    return torch.cuda.mem_get_info(on)[0] + cached


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
"""The parameters of glibc's mallopt(3) that are set here."""


@cache
def keep_freed_memory() -> None:
    """Let glibc's allocator reuse the memory of large tensors, instead of returning it to the system at once.

    A block allocates the same tensors again and again. By default each of a few MiB is mapped anew, and the system
    fills its pages with zeros at the first touch: up to two fifths of the processor time. Memory that was used once
    stays with the process. Other allocators, and other systems, are left as they are.
    """
    if not sys.platform.startswith("linux") or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return
    for parameter, value in ((_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26), (_MMAP_MAX, 0), (_ARENA_MAX, 1)):
        library.mallopt(parameter, value)


def workers() -> int:
    """Return the number of blocks that are computed at once: one per core, or one on a GPU."""
    return 1 if device().type == "cuda" else cores()


def parallel_map(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Apply `function` to the items in parallel, each item within one thread, and yield the results in order.

    Libraries split a product among threads in ways that depend on its size, and so round differently in another
    cohort or on another machine. Within one thread they do not; and several processes on one machine do not compete
    for cores. At most two items per worker are in progress, so memory does not grow with the number of items.
    """
    pool, window = _pool(), deque[Future[Result]]()
    for item in items:
        window.append(pool.submit(function, item))
        if len(window) >= 2 * workers():
            yield window.popleft().result()
    while window:
        yield window.popleft().result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers(), thread_name_prefix="fedrec", initializer=torch.set_num_threads, initargs=(1,))
