"""The prepared data that parts work on: as a dataset usually is, or as a part wants it otherwise."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.reproduce.jobs import HISTORIES, USUAL, Job, Preparation
from fedrec import console
from fedrec.data.fingerprint import fingerprint_of
from fedrec.data.manifest import MANIFEST, read_manifest
from fedrec.data.prepare import prepare
from fedrec.data.readers.download import compute_md5
from fedrec.data.readers.sources import Source, source_named
from fedrec.data.split import Split
from fedrec.data.storage.names import plain_name

STAMP = ("name", "users", "items", "interactions", "split", "catalogue_fingerprint")
"""Of the manifest: what tells whether a part was made on the same data."""


@dataclass(frozen=True)
class Dataset:
    """A dataset by name, its raw files where they are at hand, and the folder that its prepared ones stand in."""

    name: str
    given: Path | None
    out: Path

    def folder(self, preparation: Preparation = USUAL) -> Path:
        return self.out / plain_name(f"data{preparation.suffix}", "the prepared folder")

    def prepare(self, parts: Iterable[Job]) -> None:
        """Prepare it in every way that these parts want, where that is not done yet."""
        for preparation in dict.fromkeys([USUAL, *(part.preparation for part in parts)]):
            self._prepare(_source(self.name, preparation), self.folder(preparation))

    def _prepare(self, source: Source, folder: Path) -> None:
        if (folder / MANIFEST).is_file():
            manifest = read_manifest(folder)
            md5 = compute_md5(self.given) if self.given and self.given.is_file() else manifest["source_md5"]
            if (manifest["name"], manifest["source_md5"]) == (source.name + source.split.suffix, md5):
                return
        with console.counting(f"fetching {source.name}", download=True) as progress:
            prepare(source, folder, self.given, progress, console.warn)

    def stamp(self, preparation: Preparation) -> dict[str, Any] | None:
        """What a part's record says of its data; None where they are not prepared."""
        folder = self.folder(preparation)
        if not (folder / MANIFEST).is_file():
            return None
        manifest = read_manifest(folder)
        return {name: manifest[name] for name in STAMP} | {HISTORIES: fingerprint_of(folder)}


def _source(name: str, preparation: Preparation) -> Source:
    source = source_named(name)
    split = Split(preparation.cold_share) if preparation.cold_share else source.split
    return replace(source, split=split, texts=preparation.texts)
