"""Locks between processes that write the same file or folder: one writes, the others wait or are refused.

The operating system holds a lock (`flock`) and releases it when its process ends, however it ends. It works between
processes of one machine, also across containers, and on network file systems that pass `flock` on, as NFS from
version 4 does. A file system without locks, which is reported, does not keep two writers apart.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fedrec.data.errors import InputError

PATIENCE = 600.0
"""The seconds to wait for another writer of a file or folder: as long as writing may take."""

logger = logging.getLogger("fedrec")


def lock_beside(path: Path) -> Path:
    """Return the lock file of a file or folder that is replaced as a whole."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def locked(lock: Path, wait: float = PATIENCE) -> Iterator[bool]:
    """Hold a lock file during the block, and remove it at the end; yields False if the file system has no locks.

    The thread that holds it may acquire it again. Raises `InputError` if another holds it for `wait` seconds.
    """
    held = FileLock(lock.resolve(), is_singleton=True, fallback_to_soft=False)
    try:
        held.acquire(timeout=wait)
    except Timeout as error:
        place = lock.with_name(lock.name[1:].removesuffix(".lock")) if lock.name != ".lock" else lock.parent
        raise InputError(
            f"{place} is in use by another command; wait until that has ended, or choose another place"
        ) from error
    except NotImplementedError:
        logger.warning("%s: this file system has no locks; let one command at a time write here", lock.parent)
        yield False
        return
    try:
        yield True
    finally:
        if held.lock_counter == 1:  # while it is held: a waiting process notices, and makes a new one
            lock.unlink(missing_ok=True)
        held.release()


@contextmanager
def in_use(folder: Path, wait: float = 0) -> Iterator[None]:
    """Lock a folder that is written over a long time for this thread; the folder is made if it is absent.

    Raises `InputError` if another process or thread holds it for `wait` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", wait):
        yield
