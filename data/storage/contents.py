"""Which files each kind of folder is made of: a folder that holds anything else is not replaced."""

import os
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from fedrec.data.errors import InputError

_PASSING = re.compile(r"\.(.+\.)?(lock|partial)|lost\+found")
"""Locks, what killed writers left, and the folder that some file systems begin with."""


def is_vacant(folder: Path, but: Collection[str] = ()) -> bool:
    """Tell whether a place is free for a new folder: absent, or a folder with nothing in it but what is named."""
    return not folder.exists() or (folder.is_dir() and all(path.name in but for path in _entries(folder)))


def refuse_occupied(folder: Path, option: str = "--out", remedy: str = "choose another folder") -> None:
    """Raise `InputError` if a place for a new folder is not free."""
    if not is_vacant(folder):
        raise InputError(f"{option} {folder} is not empty; {remedy}")


@dataclass(frozen=True)
class Contents:
    """The files of a kind of folder, as patterns of their paths: a pattern matches one part of a path at a time."""

    kind: str
    mark: str  # the file by which such a folder is known
    patterns: tuple[str, ...]

    def check(self, folder: Path, option: str = "--out") -> None:
        """Raise `InputError` if a folder is there that is not of this kind, or that holds a file of another hand."""
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
        """Return a path within the folder that is none of this kind's; None if there is none."""
        return next((path for path in _paths(folder) if not self._holds(path, (folder / path).is_dir())), None)

    def clear(self, folder: Path) -> None:
        """Empty a folder of this kind, which stays; its mark goes last, so that after a kill it is still known.

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
    """Everything in a folder at any depth, but for what passes."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _PASSING.fullmatch(name))
        yield from (Path(place, name).relative_to(folder) for name in [*folders, *sorted(files)])
