"""A dataset: a prepared folder, opened once."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import polars as pl

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.prepare import read_manifest
from fedrec.data.shard import Shard
from fedrec.data.user_ids import load_people


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a prepared folder holds: the public catalogue and manifest, and the private histories of its users.

    A federation's server has a folder without histories: there, `shard` and `users` raise `InputError`.
    """

    folder: Path
    manifest: Mapping[str, Any]
    catalogue: Catalogue

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a prepared folder. Raises `InputError` if it is none, or if its parts do not belong together."""
        manifest, catalogue = read_manifest(folder), Catalogue.load(folder)
        if catalogue.fingerprint != manifest["catalogue_fingerprint"]:
            raise InputError(f"{folder}: the catalogue is not the one that was prepared; prepare the data again")
        return cls(folder, manifest, catalogue)

    @property
    def name(self) -> str:
        """The dataset's name, as its manifest has it."""
        return self.manifest["name"]

    @cached_property
    def shard(self) -> Shard:
        """The users' histories, opened at the first use. Raises `InputError` if they are missing or damaged, or if the
        folder was prepared again since it was opened."""
        shard = Shard.load(self.folder)
        if read_manifest(self.folder) != self.manifest:
            raise InputError(f"{self.folder} was replaced while it was read; run the command again")
        return shard

    @cached_property
    def users(self) -> pl.Series:
        """The users' ids, in the order of the shard. Raises `InputError` if they are missing."""
        return load_people(self.folder)
