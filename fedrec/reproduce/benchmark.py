"""A benchmark from the raw data to its results: prepare, make the parts that are missing, collect what they found."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from data.download import md5_of
from data.prepare import MANIFEST, prepare, read_manifest
from data.sources import source_named
from fedrec import view
from fedrec.reproduce import collect
from fedrec.reproduce.compare import by_history, comparisons, ranks_of
from fedrec.reproduce.families import choose, parts_of
from fedrec.reproduce.parts import Figures, Part, Place, finished, perform
from fedrec.reproduce.preset import Ablation, Preset
from recsys.recommender import save_json

STAMP = ("name", "users", "items", "interactions", "split", "catalogue_fingerprint")
"""Of the manifest: what tells whether a part was made on the same data."""


@dataclass(frozen=True)
class Benchmark:
    """A preset at work in one folder."""

    name: str
    preset: Preset | Ablation
    base: Preset  # what is trained: the preset, or the one that it varies
    out: Path
    source: Path | None  # the raw data, where they are at hand

    @property
    def data(self) -> Path:
        return self.out / "data"

    def parts(self) -> list[Part]:
        return parts_of(self.preset, self.base)

    def make(self, names: Sequence[str]) -> None:
        """Prepare the data and make the parts of these names (all, where none is named) that are not there yet."""
        parts = choose(self.parts(), names)
        self._prepare()
        stamp = stamp_of(self.data)
        for number, part in enumerate(parts, start=1):
            folder = self.out / part.name
            if finished(part, folder, stamp):
                view.say(f"{number}/{len(parts)}  {part.name}: already made")
                continue
            view.say(f"[bold]{number}/{len(parts)}  {part.name}[/bold]")
            perform(part, Place(self.data, folder), stamp)

    def _prepare(self) -> None:
        source = source_named(self.base.data)
        if (self.data / MANIFEST).is_file():
            manifest = read_manifest(self.data)
            given = md5_of(self.source) if self.source and self.source.is_file() else manifest["source_md5"]
            if (manifest["name"], manifest["source_md5"]) == (source.name, given):
                return
        with view.counting(f"fetching {source.name}", download=True) as progress:
            prepare(source, self.data, self.source, progress, view.warn)

    def collected(self) -> Figures:
        """The results of all parts that are finished."""
        manifest = read_manifest(self.data)
        stamp = stamp_of(self.data)
        records = {
            part.name: {"family": part.family, "model": part.model, **record}
            for part in self.parts()
            if (record := finished(part, self.out / part.name, stamp))
        }
        return {
            "name": self.name,
            "command": f"fedrec reproduce {self.name}",
            "split": manifest["split"],
            "data": {
                name: manifest[name]
                for name in ("name", "users", "items", "interactions", "source", "catalogue_fingerprint", "citation")
            },
            "preset": self.preset.model_dump(mode="json"),
            **collect.circumstances_of(records),
            **self._found(records),
            **collect.seconds_of(records),
        }

    def _found(self, records: collect.Records) -> Figures:
        if isinstance(self.preset, Ablation):
            return {"seeds": [self.preset.seed], "variants": collect.variants(self.preset, records)}
        ranks = ranks_of(records, self.out)
        return {
            "seeds": list(self.preset.seeds),
            **collect.overall(records),
            "comparisons": comparisons(ranks),
            "by_history": by_history(ranks, self.data),
        }


def stamp_of(data: Path) -> dict[str, Any]:
    manifest = read_manifest(data)
    return {name: manifest[name] for name in STAMP}


def reproduce(benchmark: Benchmark, names: Sequence[str], results: Path) -> Figures:
    """Make the parts and write what all finished ones found to `results`, also where making them was interrupted."""
    try:
        benchmark.make(names)
    except KeyboardInterrupt as interrupt:
        view.say("Stopped; what is made is kept. The same command goes on from here.")
        raise typer.Exit(130) from interrupt
    finally:
        if (benchmark.data / MANIFEST).is_file():
            save_json(results / f"{benchmark.name}.json", benchmark.collected())
    return json.loads((results / f"{benchmark.name}.json").read_text())
