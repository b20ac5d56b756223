"""A dataset: a prepared folder, opened once."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import polars as pl

from fedrec.data.catalogue import Catalogue
from fedrec.data.description import Description, describe
from fedrec.data.errors import InputError
from fedrec.data.manifest import read_manifest
from fedrec.data.shard import Shard
from fedrec.data.split import Split
from fedrec.data.user_ids import load_user_ids


@dataclass(frozen=True, eq=False)
class Dataset:
    """The contents of a prepared folder: the public catalogue and manifest, and the private histories of its users.

    The folder of a federation's server has no histories: there, `shard` and `users` raise `InputError`.
    """

    folder: Path
    manifest: Mapping[str, Any]
    catalogue: Catalogue

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a prepared folder. Raises `InputError` if it is not one, or if its parts do not belong together."""
        manifest, catalogue = read_manifest(folder), Catalogue.load(folder)
        if catalogue.fingerprint != manifest["catalogue_fingerprint"]:
            raise InputError(
                f"{folder}: the catalogue is not the one that was prepared; copy it again, or prepare the data again"
            )
        return cls(folder, manifest, catalogue)

    @property
    def name(self) -> str:
        """The dataset's name in its manifest."""
        return self.manifest["name"]

    @property
    def split(self) -> Split:
        """The split by which the histories were cut."""
        return Split.from_record(self.manifest, str(self.folder))

    @cached_property
    def shard(self) -> Shard:
        """The users' histories, opened at the first use. Raises `InputError` if they are missing or damaged, or if the
        folder was prepared again since it was opened."""
        shard = Shard.load(self.folder)
        if read_manifest(self.folder) != self.manifest:
            raise InputError(f"{self.folder} was replaced while it was read; run the command again")
        return shard

    def describe(self) -> Description:
        """Compute the figures that describe the dataset. Raises `InputError` as `shard` does."""
        return describe(self.catalogue, self.shard, self.manifest)

    @cached_property
    def users(self) -> pl.Series:
        """The users' ids, in the order of the shard; raises `InputError` if they are missing."""
        return load_user_ids(self.folder)
