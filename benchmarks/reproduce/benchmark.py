"""A benchmark from the raw data to its results: prepare, make the parts that are missing, collect what they found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from benchmarks.reproduce import cold_and_warm_results, collect, merge
from benchmarks.reproduce.comparisons import by_history, comparisons, ranks_of
from benchmarks.reproduce.datasets import Dataset
from benchmarks.reproduce.jobs import Figures, Job, JobFolder, finished, run_job
from benchmarks.reproduce.message_cost import cost
from benchmarks.reproduce.preset import Ablation, Preset
from benchmarks.reproduce.registry import choose, parts_of
from benchmarks.reproduce.runs import RUN
from fedrec import console
from fedrec.data.errors import InputError
from fedrec.data.manifest import MANIFEST, read_manifest
from fedrec.data.storage.locks import lock_beside, locked
from fedrec.data.storage.reading import read_json
from fedrec.recsys.recommender import save_json

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

    def parts(self) -> list[Job]:
        return parts_of(self.preset, self.base)

    def make(self, names: Sequence[str]) -> None:
        """Prepare the data and make the parts of these names (all, where none is named) that are not there yet."""
        parts = choose(self.parts(), names)
        self.dataset.prepare(parts)
        for number, part in enumerate(parts, start=1):
            stamp = self.dataset.stamp(part.preparation)
            place = JobFolder(self.dataset.folder(part.preparation), self.out / part.name)
            if finished(part, place.folder, stamp):
                console.status(f"{number}/{len(parts)}  {part.name}: already made")
                continue
            console.status("", heading=f"{number}/{len(parts)}  {part.name}")
            run_job(part, place, stamp)

    def collected(self) -> Figures:
        """The results of all parts that are finished."""
        manifest = read_manifest(self.dataset.folder())
        records = {part.name: record for part in self.parts() if (record := self._record(part))}
        return {
            "name": self.name,
            "command": f"fedrec reproduce {self.name}" + (f" --source {self.source.name}" if self.source else ""),
            "split": manifest["split"],
            "data": {name: manifest[name] for name in DATA},
            "preset": self.preset.model_dump(mode="json"),
            **collect.circumstances_of(records),
            **self._found(records),
            **collect.seconds_of(records),
        }

    def _record(self, part: Job) -> dict[str, Any] | None:
        """What a finished part left, with what its run cost; None of one that is not."""
        folder = self.out / part.name
        record = finished(part, folder, self.dataset.stamp(part.preparation))
        if record and (folder / RUN).is_dir():
            record["figures"] |= cost(folder / RUN, part.settings["bits"])
        return {"family": part.family, "model": part.model, **record, "settings": part.settings} if record else None

    def _found(self, records: collect.Records) -> Figures:
        if isinstance(self.preset, Ablation):
            variants = collect.variants(self.preset, records)
            return {"seeds": [self.preset.seed], "base_settings": dict(self.base.settings), "variants": variants}
        ranks = ranks_of(records, self.out)
        return {
            "seeds": list(self.preset.seeds),
            **collect.overall(records),
            "comparisons": comparisons(ranks),
            "by_history": by_history(ranks, self.dataset.folder()),
            **cold_and_warm_results.others(records),
        }


def reproduce(benchmark: Benchmark, names: Sequence[str], results: Path) -> Figures:
    """Make the parts and write what all finished ones found, also where making them was interrupted."""
    path = results / f"{benchmark.name}.json"
    _told(path)
    try:
        benchmark.make(names)
    except KeyboardInterrupt as interrupt:
        console.status("Stopped; what is made is kept. The same command goes on from here.")
        raise typer.Exit(130) from interrupt
    finally:
        if (benchmark.dataset.folder() / MANIFEST).is_file():
            found = benchmark.collected()
            results.mkdir(parents=True, exist_ok=True)
            with locked(lock_beside(path)):
                _write(benchmark, found, path)
    return found


def _write(benchmark: Benchmark, found: Figures, path: Path) -> None:
    """To `path`, with what the file there tells of parts that were made elsewhere; beside the parts where that is not
    of the same benchmark, or of the same models."""
    told = _told(path)
    missing = told["part_seconds"].keys() - found["part_seconds"].keys()
    lost = {part.name: part.model for part in benchmark.parts() if part.name in missing}
    if lost and (joined := merge.merge_results(told, found, lost)):
        console.status(f"{path} tells of parts that were made elsewhere ({', '.join(lost)}): they stay in it")
        found = joined
    elif lost:
        console.status(f"{path} also tells of parts that are not made here ({', '.join(lost)}), so it is left as it is")
        path = benchmark.out / path.name
    save_json(path, found)
    console.status(f"Wrote {path}")


def _told(path: Path) -> Figures:
    """What the results' file tells already. Raises `InputError` if it is of another kind, which is not replaced."""
    remedy = "move it away, or name another folder with --results"
    told = read_json(path, remedy) if path.exists() else {"part_seconds": {}}
    if not isinstance(told.get("part_seconds"), dict):
        raise InputError(f"{path} holds no results of a benchmark; {remedy}")
    return told
