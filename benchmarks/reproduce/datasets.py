"""The prepared folders of a benchmark: the dataset as usual, and as some jobs want it."""

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
from fedrec.data.readers.source import Source
from fedrec.data.readers.sources import source_named
from fedrec.data.split import Split
from fedrec.data.storage.names import plain_name

STAMP = ("name", "users", "items", "interactions", "split", "catalogue_fingerprint")
"""Keys of the manifest that identify the data of a finished job."""


@dataclass(frozen=True)
class BenchmarkData:
    """A dataset by name, its raw files if the user has them, and the folder of its prepared folders."""

    name: str
    raw: Path | None
    out: Path

    def folder(self, preparation: Preparation = USUAL) -> Path:
        return self.out / plain_name(f"data{preparation.suffix}", "the prepared folder")

    def prepare_for(self, jobs: Iterable[Job]) -> None:
        """Prepare the dataset as usual and in every way that these jobs want, unless that is done already."""
        for preparation in dict.fromkeys([USUAL, *(job.preparation for job in jobs)]):
            self._prepare(_source(self.name, preparation), self.folder(preparation))

    def _prepare(self, source: Source, folder: Path) -> None:
        if (folder / MANIFEST).is_file():
            manifest = read_manifest(folder)
            md5 = compute_md5(self.raw) if self.raw and self.raw.is_file() else manifest["source_md5"]
            if (manifest["name"], manifest["source_md5"]) == (source.name + source.split.suffix, md5):
                return
        with console.counting(f"fetching {source.name}", download=True) as progress:
            prepare(source, folder, self.raw, progress, console.warn)

    def stamp(self, preparation: Preparation) -> dict[str, Any] | None:
        """Return the identity of the prepared data, for a job's record; None if they are not prepared."""
        folder = self.folder(preparation)
        if not (folder / MANIFEST).is_file():
            return None
        manifest = read_manifest(folder)
        return {name: manifest[name] for name in STAMP} | {HISTORIES: fingerprint_of(folder)}


def _source(name: str, preparation: Preparation) -> Source:
    source = source_named(name)
    split = Split(preparation.cold_share) if preparation.cold_share else source.split
    return replace(source, split=split, texts=preparation.texts)
