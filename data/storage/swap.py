"""How a new folder takes the place of an old one, and how a kill in between is mended.

Linux exchanges the two in one step. Elsewhere it takes two renames; and the entries of a folder that cannot be renamed
are moved one by one.
"""

import ctypes
import os
import shutil
from pathlib import Path

import psutil

LEAVING, OLD, NEW = ".leaving", ".old", ".new.partial"
"""In a folder that cannot be renamed: old entries while they are moved out, all of them once they are, and the new
ones, which are moved in after that."""

HERE, EXCHANGE = -100, 2
"""Of Linux's renameat2: AT_FDCWD and RENAME_EXCHANGE."""


def is_fixed(folder: Path) -> bool:
    """Tell whether an existing folder cannot be renamed: a mount point, the working folder or one above it, or a
    folder beside which nothing may be written."""
    if not folder.is_dir():
        return False
    mounts = {Path(mount.mountpoint) for mount in psutil.disk_partitions(all=True)}  # binds of one device, too
    here = Path.cwd().is_relative_to(folder)
    return folder.is_mount() or folder in mounts or here or not os.access(folder.parent, os.W_OK)


def swap(new: Path, folder: Path) -> None:
    """Put `new` in the place of a folder beside it, and the old one, for a moment, in its place or in `.NAME.old`."""
    old = _old(folder)
    if folder.exists():
        if _exchanged(new, folder):
            return
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
    new.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def inside(new: Path, folder: Path) -> None:
    """Put the entries of `new`, which lies in the folder, in the place of the folder's own."""
    new = new.replace(folder / NEW)
    leaving = folder / LEAVING
    leaving.mkdir()
    _move([path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "lost+found"], leaving)
    leaving.replace(folder / OLD)
    _move(list(new.iterdir()), folder)
    shutil.rmtree(folder / OLD)
    new.rmdir()


def recover(folder: Path) -> None:
    """Mend what a kill has left of `swap` or `inside`: the old folder comes back, or the new one is put in place."""
    if (old := _old(folder)).exists() and not folder.exists():
        old.replace(folder)
    if (leaving := folder / LEAVING).is_dir():
        _move(list(leaving.iterdir()), folder)
        leaving.rmdir()
    elif (folder / OLD).is_dir():
        _move(list((folder / NEW).iterdir()) if (folder / NEW).is_dir() else [], folder)
        shutil.rmtree(folder / OLD)
    shutil.rmtree(folder / NEW, ignore_errors=True)


def is_unfinished(folder: Path) -> bool:
    """Tell whether a folder is being replaced, or was when its writer was killed."""
    return (_old(folder).exists() and not folder.exists()) or any((folder / name).is_dir() for name in (LEAVING, OLD))


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two paths in one step, if the system and the file system can; nothing has changed if they cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and rename(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _move(paths: list[Path], folder: Path) -> None:
    for path in paths:
        path.replace(folder / path.name)
