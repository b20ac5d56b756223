"""Jobs that fit a baseline: validation chooses from its grid, and the best setting is ranked on the test items."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from benchmarks.preset import Preset, slug
from benchmarks.reproduce.jobs import Figures, Job, JobFolder, Measured
from benchmarks.reproduce.runs import rank_held_out
from benchmarks.results_file import Trial, Tuning
from fedrec import console
from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.recsys.baselines.registry import BASELINES
from fedrec.recsys.baselines.tuning import TrainingData, TuningResult, grid_configs, tune
from fedrec.recsys.embeddings import embed_catalogue
from fedrec.recsys.encoders.joined import open_encoder

BASELINE = "baseline"


@dataclass(frozen=True)
class BaselineRun:
    """A baseline with the grid, seed and encoder that a preset gives it."""

    name: str
    grid: Mapping[str, list[Any]]  # in place of the baseline's own values
    seed: int
    encoder: str


def baseline_jobs(preset: Preset) -> list[Job]:
    """Build a job for each baseline. Raises `InputError` for the grid of an unknown baseline, or an invalid one."""
    names = {slug(name): name for name in BASELINES}
    for key, grid in preset.baselines.items():
        if key not in names:
            raise InputError(f"baselines.{key} is not known; the baselines are {', '.join(names)}")
        grid_configs(BASELINES[names[key]], grid)
    config = preset.config(preset.seeds[0])
    return [
        _job(BaselineRun(name, preset.baselines.get(key, {}), config.seed, config.model.encoder))
        for key, name in names.items()
    ]


def _job(run: BaselineRun) -> Job:
    settings = asdict(run) | {"grid": [asdict(config) for config in grid_configs(BASELINES[run.name], run.grid)]}
    return Job("baselines", run.name, f"{BASELINE}-{slug(run.name)}", settings, partial(_tune_and_rank, run))


def _tune_and_rank(run: BaselineRun, place: JobFolder) -> Figures:
    catalogue = Catalogue.load(place.data)
    public = embed_catalogue(catalogue, open_encoder(run.encoder, folder=place.data), place.data)
    data = TrainingData(Shard.load(place.data), public.matrix, run.seed)
    tuned = tune(
        BASELINES[run.name], data, run.grid, console.show_epoch, refit=len(catalogue.trainable_rows) == len(catalogue)
    )
    best = max(trial.ndcg for trial in tuned.trials)
    choice = {"validation": Measured(ndcg_10=best), "tuning": _tuning(tuned)}
    return rank_held_out(tuned.score, place, ["test"]).model_copy(update=choice)


def _tuning(tuned: TuningResult) -> Tuning:
    """Describe the grid and the choice; the trials hold only the settings that vary."""
    trials = [trial.settings for trial in tuned.trials]
    varied = [name for name in tuned.settings if len({settings[name] for settings in trials}) > 1]
    return Tuning(
        settings=tuned.settings,
        chosen={name: tuned.settings[name] for name in varied},
        trials=tuple(
            Trial(settings={name: trial.settings[name] for name in varied}, ndcg_10=round(trial.ndcg, 6))
            for trial in tuned.trials
        ),
    )
