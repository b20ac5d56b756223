"""A benchmark from the raw data to its results: prepare the data, run the jobs that are missing, collect figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from benchmarks.preset import Ablation, Preset
from benchmarks.reproduce import collect
from benchmarks.reproduce.cold_and_warm_results import cold_and_warm_fields
from benchmarks.reproduce.comparisons import compare_models, group_by_history, load_all_ranks
from benchmarks.reproduce.datasets import BenchmarkData
from benchmarks.reproduce.jobs import RUN, Job, JobFolder, finished_record, run_job
from benchmarks.reproduce.merge import merge_results
from benchmarks.reproduce.message_cost import run_cost
from benchmarks.reproduce.registry import jobs_of, select_jobs
from benchmarks.results_file import (
    AblationResult,
    BenchmarkResult,
    DataInfo,
    Environment,
    Result,
    load_result,
    save_result,
)
from fedrec import console
from fedrec.data.manifest import read_manifest
from fedrec.data.storage.locks import lock_beside, locked


@dataclass(frozen=True)
class Benchmark:
    """A preset, and the folder in which it is reproduced."""

    name: str
    preset: Preset | Ablation
    base: Preset  # the preset that is trained: itself, or an ablation's base
    out: Path
    source: Path | None  # the raw data, if the user has them

    @property
    def data(self) -> BenchmarkData:
        return BenchmarkData(self.base.data, self.source, self.out)

    def jobs(self) -> list[Job]:
        return jobs_of(self.preset, self.base)

    def run_jobs(self, names: Sequence[str]) -> None:
        """Prepare the data and run the jobs of these names (all if empty) that have not finished."""
        jobs = select_jobs(self.jobs(), names)
        self.data.prepare_for(jobs)
        for number, job in enumerate(jobs, start=1):
            stamp = self.data.stamp(job.preparation)
            place = JobFolder(self.data.folder(job.preparation), self.out / job.name)
            if finished_record(job, place.folder, stamp):
                console.status(f"{number}/{len(jobs)}  {job.name}: already made")
                continue
            console.status("", heading=f"{number}/{len(jobs)}  {job.name}")
            run_job(job, place, stamp)

    def collect_result(self) -> Result | None:
        """Collect the figures of all finished jobs; None if no job has finished."""
        records = {job.name: record for job in self.jobs() if (record := self._finished(job))}
        if not records:
            return None
        manifest = read_manifest(self.data.folder())
        common = {
            "name": self.name,
            "command": f"fedrec reproduce {self.name}" + (f" --source {self.source.name}" if self.source else ""),
            "split": manifest["split"],
            "data": DataInfo(**{name: manifest[name] for name in DataInfo.model_fields}),
            **collect.environment_fields(records),
            **collect.time_fields(records),
        }
        if isinstance(self.preset, Ablation):
            return AblationResult(
                **common,
                preset=self.preset,
                seeds=(self.preset.seed,),
                base_settings=dict(self.base.settings),
                variants=collect.variant_results(self.preset, records),
            )
        ranks = load_all_ranks(records, self.out)
        return BenchmarkResult(
            **common,
            preset=self.preset,
            seeds=self.preset.seeds,
            comparisons=compare_models(ranks),
            by_history=group_by_history(ranks, self.data.folder()),
            **collect.model_fields(records),
            **cold_and_warm_fields(records),
        )

    def _finished(self, job: Job) -> collect.FinishedJob | None:
        """Read the figures of a finished job and the cost of its run; None if it has not finished."""
        folder = self.out / job.name
        record = finished_record(job, folder, self.data.stamp(job.preparation))
        if not record or not record.figures or not record.machine:
            return None
        cost = run_cost(folder / RUN, record.figures.test.users) if (folder / RUN).is_dir() else None
        environment = Environment(machine=record.machine, versions=record.versions)
        return collect.FinishedJob(job, record.figures, record.seconds, environment, cost)


def reproduce(benchmark: Benchmark, names: Sequence[str], results: Path) -> Result:
    """Run the jobs and write the results of all that have finished, also if an interrupt ends the work."""
    path = results / f"{benchmark.name}.json"
    _load_existing(path)  # a file of another kind is refused before any work
    try:
        benchmark.run_jobs(names)
    except KeyboardInterrupt as interrupt:
        console.status("Stopped; finished jobs are kept. The same command resumes from here.")
        raise typer.Exit(130) from interrupt
    finally:
        result = _write_finished(benchmark, path)
    assert result, "all jobs that were asked for have finished"
    return result


def _write_finished(benchmark: Benchmark, path: Path) -> Result | None:
    result = benchmark.collect_result()
    if result:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock_beside(path)):
            _write(benchmark, result, path)
    return result


def _write(benchmark: Benchmark, result: Result, path: Path) -> None:
    """Write the results to `path`, merged with the jobs that only the file there has. If they cannot be merged, that
    file stays and the results are written beside the jobs."""
    existing = _load_existing(path)
    lost = _jobs_only_in(existing, result, benchmark.jobs()) if existing else {}
    if existing and lost:
        names = ", ".join(lost)
        if merged := merge_results(existing, result, lost):
            console.status(f"{path} also holds jobs that were made elsewhere ({names}): they stay in it")
            result = merged
        else:
            console.status(f"{path} holds jobs that were not made here ({names}), so it is left as it is")
            path = benchmark.out / path.name
    save_result(path, result)
    console.status(f"Wrote {path}")


def _jobs_only_in(existing: Result, new: Result, jobs: Sequence[Job]) -> Mapping[str, str]:
    """Return the jobs that only the existing results have, with their models."""
    missing = existing.part_seconds.keys() - new.part_seconds.keys()
    return {job.name: job.model for job in jobs if job.name in missing}


def _load_existing(path: Path) -> Result | None:
    """Load the results file; None if there is none. Raises `InputError` for a file of another kind."""
    return load_result(path, "move it away, or name another folder with --results") if path.exists() else None
