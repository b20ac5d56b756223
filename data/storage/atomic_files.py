"""Writing so that a crash at any moment leaves the old file or the new one, never half of one.

Several processes may write one place at the same time: they take turns, and each writes beside it in a place of its
own.
"""

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fedrec.data.errors import InputError
from fedrec.data.storage.locks import lock_beside, locked
from fedrec.data.storage.swap import inside, is_fixed, is_unfinished, recover, swap


@contextmanager
def replaced_file(path: Path, rights: int | None = None) -> Iterator[Path]:
    """Yield a path to write to; on success it takes the place of `path` in one step, with these rights, or those that
    the user gives new files.

    It has a folder to itself beside `path`: some writers begin with a file of their own there, which a kill leaves.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock_beside(path)) as alone, _partial(path, path.parent, alone) as folder:
        partial = folder / path.name
        partial.touch(mode=0o666 if rights is None else rights)
        rights = partial.stat().st_mode  # some writers give others
        yield partial
        partial.chmod(rights)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)


Check = Callable[[Path], None]
"""Raises `InputError` if what stands in a place may not be lost."""


@contextmanager
def replaced_folder(path: Path, check: Check) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it takes the place of `path`, and what a symbolic link names is
    replaced, not the link.

    The old folder is checked last of all, when the new one is whole. A folder cannot be replaced in one step: after a
    kill between the steps, the next writer, before it begins, puts the old one back or the new one in place.
    """
    place = path.resolve()
    fixed = is_fixed(place)
    parent = place if fixed else place.parent
    parent.mkdir(parents=True, exist_ok=True)
    with locked(_lock_of(place, fixed)) as alone:
        recover(place)
        with _partial(place, parent, alone) as partial:
            yield partial
            check(path)
            try:
                inside(partial, place) if fixed else swap(partial, place)
            finally:
                recover(place)


def check_place(path: Path, check: Check) -> None:
    """Check what `replaced_folder` would replace, before the work that leads to it. Raises `InputError`."""
    place = path.resolve()
    if is_unfinished(place):
        with locked(_lock_of(place, is_fixed(place))):
            recover(place)
    check(path)


def _lock_of(place: Path, fixed: bool) -> Path:
    return place / ".lock" if fixed else lock_beside(place)


@contextmanager
def unreplaced(folder: Path) -> Iterator[None]:
    """Raise `InputError` at the end of the block if the folder was replaced since its beginning: what was read in it
    may then be of two folders."""
    before = _identity(folder)
    yield
    if _identity(folder) != before:
        raise InputError(f"{folder} was replaced while it was read; run the command again")


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        told = folder.stat()
    except OSError:
        return None
    return told.st_dev, told.st_ino


@contextmanager
def _partial(path: Path, parent: Path, alone: bool) -> Iterator[Path]:
    """A folder to write what becomes `path`; under its lock, those that killed writers left are removed first."""
    if alone:
        name = re.compile(rf"\.{re.escape(path.name)}(\.[0-9a-f]+)?\.partial")
        for leftover in parent.iterdir():
            if name.fullmatch(leftover.name):
                shutil.rmtree(leftover, ignore_errors=True)
    partial = parent / f".{path.name}.{secrets.token_hex(4)}.partial"
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
