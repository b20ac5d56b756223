"""A benchmark from the raw data to its results: prepare, make the parts that are missing, collect what they found."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from data.prepare import MANIFEST, read_manifest
from fedrec import view
from fedrec.reproduce import apart, collect
from fedrec.reproduce.compare import by_history, comparisons, ranks_of
from fedrec.reproduce.families import choose, parts_of
from fedrec.reproduce.parts import Figures, Part, Place, finished, perform
from fedrec.reproduce.prepared import Dataset
from fedrec.reproduce.preset import Ablation, Preset
from recsys.recommender import save_json

DATA = ("name", "users", "items", "interactions", "source", "catalogue_fingerprint", "citation")
"""Of the manifest: what results say of their data."""


@dataclass(frozen=True)
class Benchmark:
    """A preset at work in one folder."""

    name: str
    preset: Preset | Ablation
    base: Preset  # what is trained: the preset, or the one that it varies
    out: Path
    source: Path | None  # the raw data, where they are at hand

    @property
    def dataset(self) -> Dataset:
        return Dataset(self.base.data, self.source, self.out)

    def parts(self) -> list[Part]:
        return parts_of(self.preset, self.base)

    def make(self, names: Sequence[str]) -> None:
        """Prepare the data and make the parts of these names (all, where none is named) that are not there yet."""
        parts = choose(self.parts(), names)
        self.dataset.prepare(parts)
        for number, part in enumerate(parts, start=1):
            stamp = self.dataset.stamp(part.preparation)
            place = Place(self.dataset.folder(part.preparation), self.out / part.name)
            if finished(part, place.folder, stamp):
                view.say(f"{number}/{len(parts)}  {part.name}: already made")
                continue
            view.say(f"[bold]{number}/{len(parts)}  {part.name}[/bold]")
            perform(part, place, stamp)

    def collected(self) -> Figures:
        """The results of all parts that are finished."""
        manifest = read_manifest(self.dataset.folder())
        records = {
            part.name: {"family": part.family, "model": part.model, **record}
            for part in self.parts()
            if (record := finished(part, self.out / part.name, self.dataset.stamp(part.preparation)))
        }
        return {
            "name": self.name,
            "command": f"fedrec reproduce {self.name}",
            "split": manifest["split"],
            "data": {name: manifest[name] for name in DATA},
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
            "by_history": by_history(ranks, self.dataset.folder()),
            "cold": apart.cold(records),
            "start": apart.start(records),
        }


def reproduce(benchmark: Benchmark, names: Sequence[str], results: Path) -> Figures:
    """Make the parts and write what all finished ones found to `results`, also where making them was interrupted."""
    try:
        benchmark.make(names)
    except KeyboardInterrupt as interrupt:
        view.say("Stopped; what is made is kept. The same command goes on from here.")
        raise typer.Exit(130) from interrupt
    finally:
        if (benchmark.dataset.folder() / MANIFEST).is_file():
            save_json(results / f"{benchmark.name}.json", benchmark.collected())
    return json.loads((results / f"{benchmark.name}.json").read_text())
