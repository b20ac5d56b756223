"""What the machine offers: processors, threads, and lower precision where it is fast."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import psutil
import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@cache
def device() -> torch.device:
    """The graphics processor if there is one, else the processor."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # cuDNN plans attention anew for each shape, and histories have many: a round is two to three times as fast without
    torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device("cuda")


@cache
def cores() -> int:
    """Physical cores that this process may use: affinity, a container's quota and OMP_NUM_THREADS all count."""
    from joblib import cpu_count  # knows the systems' ways of telling

    return max(1, min(cpu_count(only_physical_cores=True), torch.get_num_threads()))


def describe_hardware() -> dict[str, Any]:
    """What a result should say of it."""
    on = device()
    return {
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "device": torch.cuda.get_device_name(on) if on.type == "cuda" else "cpu",
        "fast_bfloat16": fast_bfloat16(on),
    }


def fast_bfloat16(on: torch.device) -> bool:
    """Whether products in bfloat16 are faster than in float32 there: AMX, AVX512-BF16, or a GPU that has it."""
    if on.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))


def free_memory(on: torch.device) -> int:
    """Bytes that could still be taken there."""
    if on.type == "cpu":
        return psutil.virtual_memory().available
    at_hand = torch.cuda.memory_reserved(on) - torch.cuda.memory_allocated(on)  # that torch holds, to use again
    return torch.cuda.mem_get_info(on)[0] + at_hand


def workers() -> int:
    """Blocks that are computed at once: one a core; a GPU is fed one by one."""
    return 1 if device().type == "cuda" else cores()


def parallel_map(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`function` of each item, in order, one item for each worker: blocks in parallel, and each within one thread.

    Libraries share a product among threads in ways that depend on its size, and so round differently in another
    company or on another machine. Within one thread they do not; nor do several processes on one machine keep each
    other waiting. At most two items a worker are under way, so that memory does not grow with their number.
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
