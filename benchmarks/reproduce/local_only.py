"""Parts in which every client trains a copy of its own: alone, or after the federation."""

from functools import partial
from typing import Any

from benchmarks.reproduce.jobs import Figures, Job, JobFolder, keep_ranks
from benchmarks.reproduce.preset import Device, Preset
from benchmarks.reproduce.runs import finished_run
from fedrec.data.dataset import Dataset
from fedrec.federation.config import RunConfig, to_flat
from fedrec.personalise import Choices, clients_of, tune_and_rank
from fedrec.recsys.embeddings import resolve
from fedrec.recsys.evaluation.ranking import metric_means, metric_sums
from fedrec.recsys.model.two_tower import Model
from fedrec.recsys.recommender import Recommender
from fedrec.recsys.training.personalisation import SCORE, PersonalConfig


def alone(preset: Preset) -> list[Job]:
    """The same model trained on each client's events alone, with the first seed."""
    config = preset.config(preset.seeds[0])
    return [_part("alone", config, preset.alone, None)]


def personal(preset: Preset) -> list[Job]:
    """Each client's own fine-tuning of what the first seed's federation learned."""
    config = preset.config(preset.seeds[0])
    return [_part("personal", config, preset.personal, f"federated-{config.seed}")]


def _part(model: str, config: RunConfig, device: Device, start: str | None) -> Job:
    settings = to_flat(config) | device.model_dump(mode="json")
    return Job(model, model, f"{model}-{config.seed}", settings, partial(_tune, config, device, start))


def _tune(config: RunConfig, device: Device, start: str | None, place: JobFolder) -> Figures:
    if start is None:
        model, adapter = Model(config.model, resolve(config.model.encoder), config.seed), None
    else:
        recommender = Recommender.load(finished_run(place.folder.parent / start, f"--part {start}"))
        model, adapter = recommender.model, recommender.adapter
    choices = Choices(list(device.steps), list(device.rates), list(device.parts))
    choice, trials, test = tune_and_rank(clients_of(Dataset.open(place.data), model, adapter), config, choices)
    keep_ranks(place.folder, test.ranks)
    validation = max((trial["validation"] for trial in trials), key=lambda metrics: metrics[SCORE])
    return {
        "test": metric_means(metric_sums(test.ranks)),
        "validation": validation,
        "tuning": _told(device, choice, trials),
    }


def _told(device: Device, choice: PersonalConfig, trials: list[dict[str, Any]]) -> Figures:
    names = ("steps", "rate") if len(device.parts) == 1 else ("steps", "rate", "parts")
    return {
        "settings": choice.described(),
        "chosen": {name: choice.described()[name] for name in names},
        "trials": [
            {"settings": {name: trial[name] for name in names}, SCORE: round(trial["validation"][SCORE], 6)}
            for trial in trials
        ],
    }
