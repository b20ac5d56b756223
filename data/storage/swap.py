"""The replacement of a folder by a new one, and the repair after a kill in between.

Linux exchanges the two in one step. Other systems need two renames; and the entries of a folder that cannot be renamed
are moved one by one.
"""

import ctypes
import os
import shutil
from pathlib import Path

import psutil

LEAVING, OLD, NEW = ".leaving", ".old", ".new.partial"
"""The folders within a folder that cannot be renamed: of old entries while they are moved out, of all old entries after
that, and of the new entries, which are then moved in."""

HERE, EXCHANGE = -100, 2
"""Arguments of Linux's renameat2: AT_FDCWD and RENAME_EXCHANGE."""


def is_fixed(folder: Path) -> bool:
    """Check whether an existing folder cannot be renamed.

    It is a mount point, the working folder or one above it, or its parent may not be written to.
    """
    if not folder.is_dir():
        return False
    mounts = {Path(mount.mountpoint) for mount in psutil.disk_partitions(all=True)}  # binds of one device, too
    here = Path.cwd().is_relative_to(folder)
    return folder.is_mount() or folder in mounts or here or not os.access(folder.parent, os.W_OK)


def replace_folder(new: Path, folder: Path) -> None:
    """Replace a folder by `new`, beside it; for a moment, the old one is in the place of `new` or in `.NAME.old`."""
    old = _old(folder)
    if folder.exists():
        if _exchanged(new, folder):
            return
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
    new.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def replace_entries(new: Path, folder: Path) -> None:
    """Replace a folder's entries by those of `new`, which lies in the folder."""
    new = new.replace(folder / NEW)
    leaving = folder / LEAVING
    leaving.mkdir()
    _move([path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "lost+found"], leaving)
    leaving.replace(folder / OLD)
    _move(list(new.iterdir()), folder)
    shutil.rmtree(folder / OLD)
    new.rmdir()


def recover_folder(folder: Path) -> None:
    """Restore a folder after a kill in `replace_folder` or `replace_entries`.

    The old folder comes back, or the new one is put in place.
    """
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
    """Check whether a folder is being replaced, or was being replaced when its writer was killed."""
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
