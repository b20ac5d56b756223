"""The files of each kind of folder: a folder that holds any other file is not replaced."""

import os
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from fedrec.data.errors import InputError

_PASSING = re.compile(r"\.(.+\.)?(lock|partial)|lost\+found")
"""Locks, leftovers of killed writers, and the folder that some file systems begin with."""


def is_vacant(folder: Path, but: Collection[str] = ()) -> bool:
    """Check whether a place is free for a new folder: absent, or a folder without other entries than those in `but`."""
    return not folder.exists() or (folder.is_dir() and all(path.name in but for path in _entries(folder)))


def refuse_occupied(folder: Path, option: str = "`out`", remedy: str = "choose another folder") -> None:
    """Raise `InputError` if a place for a new folder is not free."""
    if not is_vacant(folder):
        raise InputError(f"{option} {folder} is not empty; {remedy}")


@dataclass(frozen=True)
class Contents:
    """The files of a kind of folder, as patterns of their paths; a pattern is matched part by part of a path."""

    kind: str
    mark: str  # the file that identifies such a folder
    patterns: tuple[str, ...]

    def check(self, folder: Path, option: str = "`out`") -> None:
        """Raise `InputError` if there is a folder that is not of this kind, or that holds a foreign file."""
        if is_vacant(folder):
            return
        if not (folder / self.mark).is_file():
            raise InputError(f"{option} {folder} exists and is no {self.kind}; choose another folder")
        if foreign := self.foreign(folder):
            raise InputError(
                f"{option} {folder} holds {foreign}, which is no file of a {self.kind} and would be lost; move it "
                "away, or choose another folder"
            )

    def foreign(self, folder: Path) -> PurePath | None:
        """Return the path of a file or folder in `folder` that is foreign to this kind; None if there is none."""
        return next((path for path in _paths(folder) if not self._holds(path, (folder / path).is_dir())), None)

    def clear(self, folder: Path) -> None:
        """Remove the entries of a folder of this kind, its mark last, so that after a kill it is still identified.

        Raises `InputError` as `check` does, and then removes nothing.
        """
        self.check(folder)
        for path in sorted(_entries(folder), key=lambda path: path.name == self.mark) if folder.is_dir() else ():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _holds(self, path: PurePath, is_folder: bool) -> bool:
        patterns = [PurePath(pattern).parts for pattern in self.patterns]
        if is_folder:
            patterns = [parts[: len(path.parts)] for parts in patterns if len(parts) > len(path.parts)]
        return any(
            len(parts) == len(path.parts) and all(map(fnmatchcase, path.parts, parts)) for parts in patterns
        ) or bool(_PASSING.fullmatch(path.name))


def _entries(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if not _PASSING.fullmatch(path.name))


def _paths(folder: Path) -> Iterator[PurePath]:
    """Iterate over all paths in a folder, at any depth, without the passing ones."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _PASSING.fullmatch(name))
        yield from (Path(place, name).relative_to(folder) for name in [*folders, *sorted(files)])
