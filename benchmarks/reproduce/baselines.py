"""Parts that fit a baseline: each setting of its grid, chosen on validation, and the best one ranked on the test."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from benchmarks.reproduce.jobs import Figures, Job, JobFolder
from benchmarks.reproduce.preset import Preset, slug
from benchmarks.reproduce.runs import scored
from fedrec import console
from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.recsys.baselines.tuning import BASELINES, METRIC, TrainingData, Tuned, configs, tune
from fedrec.recsys.embeddings import embed, resolve

BASELINE = "baseline"


@dataclass(frozen=True)
class BaselineRun:
    """A baseline as a preset asks for it."""

    name: str
    grid: Mapping[str, list[Any]]  # in place of the baseline's own values
    seed: int
    encoder: str


def baselines(preset: Preset) -> list[Job]:
    """A part for each baseline. Raises `InputError` for a grid of none, or one with a setting that does not fit."""
    known = {slug(name): name for name in BASELINES}
    for name, grid in preset.baselines.items():
        if name not in known:
            raise InputError(f"baselines.{name} is not known; the baselines are {', '.join(known)}")
        configs(BASELINES[known[name]], grid)
    config = preset.config(preset.seeds[0])
    rivals = [
        BaselineRun(name, preset.baselines.get(key, {}), config.seed, config.model.encoder)
        for key, name in known.items()
    ]
    return [_part(rival) for rival in rivals]


def _part(rival: BaselineRun) -> Job:
    settings = asdict(rival) | {"grid": [asdict(config) for config in configs(BASELINES[rival.name], rival.grid)]}
    return Job("baselines", rival.name, f"{BASELINE}-{slug(rival.name)}", settings, partial(_fit, rival))


def _fit(rival: BaselineRun, place: JobFolder) -> Figures:
    catalogue = Catalogue.load(place.data)
    public = embed(catalogue, resolve(rival.encoder), place.data)
    given = TrainingData(Shard.load(place.data), public.matrix, rival.seed)
    tuned = tune(
        BASELINES[rival.name], given, rival.grid, console.show_epoch, refit=len(catalogue.warm) == len(catalogue)
    )
    best = max(trial.ndcg for trial in tuned.trials)
    return scored(tuned.score, place, ["test"]) | {"validation": {METRIC: best}, "tuning": _told(tuned)}


def _told(tuned: Tuned) -> Figures:
    """What was tried, and what was chosen of it; settings that were not varied are told once."""
    tried = [trial.settings for trial in tuned.trials]
    varied = [name for name in tuned.settings if len({settings[name] for settings in tried}) > 1]
    return {
        "settings": tuned.settings,
        "chosen": {name: tuned.settings[name] for name in varied},
        "trials": [
            {"settings": {name: trial.settings[name] for name in varied}, METRIC: round(trial.ndcg, 6)}
            for trial in tuned.trials
        ],
    }
