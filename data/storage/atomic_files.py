"""Atomic replacement: a crash at any moment leaves the old file or folder or the new one, never a part of one.

Several processes may write the same file or folder: they take turns, and each writes beside it in a folder of its own.
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
from fedrec.data.storage.swap import is_fixed, is_unfinished, recover_folder, replace_entries, replace_folder


@contextmanager
def replaced_file(path: Path, rights: int | None = None) -> Iterator[Path]:
    """Yield a path to write to; on success it replaces `path` in one step.

    The file has these `rights`, or the user's default. It is written in a folder of its own beside `path`, because some
    writers put a temporary file beside theirs, which a kill leaves.
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
"""A function that raises `InputError` if the contents of a folder may not be lost."""


@contextmanager
def replaced_folder(path: Path, check: Check) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it replaces `path`, or the target of `path` if that is a symbolic link.

    The old folder is checked when the new one is whole. A folder cannot always be replaced in one step: after a kill
    between the steps, the next writer first puts the old one back or the new one in place.
    """
    place = path.resolve()
    fixed = is_fixed(place)
    parent = place if fixed else place.parent
    parent.mkdir(parents=True, exist_ok=True)
    with locked(_lock_of(place, fixed)) as alone:
        recover_folder(place)
        with _partial(place, parent, alone) as partial:
            yield partial
            check(path)
            try:
                replace_entries(partial, place) if fixed else replace_folder(partial, place)
            finally:
                recover_folder(place)


def check_place(path: Path, check: Check) -> None:
    """Check what `replaced_folder` would replace, before the work that leads to it. Raises `InputError`."""
    place = path.resolve()
    if is_unfinished(place):
        with locked(_lock_of(place, is_fixed(place))):
            recover_folder(place)
    check(path)


def _lock_of(place: Path, fixed: bool) -> Path:
    return place / ".lock" if fixed else lock_beside(place)


@contextmanager
def unreplaced(folder: Path) -> Iterator[None]:
    """Raise `InputError` at the end of the block if the folder was replaced meanwhile, since reads may then mix two."""
    before = _identity(folder)
    yield
    if _identity(folder) != before:
        raise InputError(f"{folder} was replaced while it was read; run the command again")


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def _partial(path: Path, parent: Path, alone: bool) -> Iterator[Path]:
    """Yield a folder to write the new `path` in; under the lock, remove those that killed writers left."""
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
