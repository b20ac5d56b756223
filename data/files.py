"""Writing so that a crash at any moment leaves the old file or the new one, never half of one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def replaced_file(path: Path, rights: int | None = None) -> Iterator[Path]:
    """Yield a path to write to; on success it takes the place of `path` in one step, with these rights, or those that
    the user gives new files.

    It has a folder to itself beside `path`: some writers begin with a file of their own there, which a kill leaves.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial") / path.name
    partial.parent.mkdir(exist_ok=True)
    partial.touch(mode=0o666 if rights is None else rights)
    rights = partial.stat().st_mode  # some writers give others
    try:
        yield partial
        partial.chmod(rights)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        shutil.rmtree(partial.parent, ignore_errors=True)


def _sweep(path: Path) -> None:
    """Remove what writers of `path` left that were killed; those still alive keep theirs."""
    for leftover in path.parent.glob(f".{path.name}.*.partial"):
        if not psutil.pid_exists(int(leftover.name.split(".")[-2])):
            shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success it takes the place of the old one.

    A folder cannot be replaced in one step: a kill between the two renames leaves the old one as `.NAME.old`, and
    the next writer puts it back before it begins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, old = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.old")
    shutil.rmtree(partial, ignore_errors=True)  # of a writer that was killed
    if old.exists() and not path.exists():
        old.replace(path)
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.replace(old)
        partial.replace(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
