"""Jobs in which every client trains a copy of its own: from scratch, or after the federation."""

from functools import partial
from typing import Any

from benchmarks.preset import Device, Preset
from benchmarks.reproduce.jobs import Figures, Job, JobFolder, Measured, Ranked, keep_ranks
from benchmarks.reproduce.runs import finished_run
from benchmarks.results_file import Trial, Tuning
from fedrec.data.dataset import Dataset
from fedrec.federation.config import RunConfig, to_flat
from fedrec.personalise import Choices, clients_of, tune_and_rank
from fedrec.recsys.encoders.find import resolve_encoder
from fedrec.recsys.evaluation.ranking import metric_means, metric_sums
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.recommender import Recommender
from fedrec.recsys.training.personalisation import SELECTION_METRIC, PersonalConfig


def local_only_jobs(preset: Preset) -> list[Job]:
    """Build the job that trains the same model on each client's events alone, with the first seed."""
    config = preset.config(preset.seeds[0])
    return [_job("alone", config, preset.alone, None)]


def personal_jobs(preset: Preset) -> list[Job]:
    """Build the job in which each client fine-tunes the adapter of the first seed's federated run."""
    config = preset.config(preset.seeds[0])
    return [_job("personal", config, preset.personal, f"federated-{config.seed}")]


def _job(model: str, config: RunConfig, device: Device, start: str | None) -> Job:
    settings = to_flat(config) | device.model_dump(mode="json")
    return Job(model, model, f"{model}-{config.seed}", settings, partial(_tune_and_rank, config, device, start))


def _tune_and_rank(config: RunConfig, device: Device, start: str | None, place: JobFolder) -> Figures:
    if start is None:
        model, adapter = TwoTowerModel(config.model, resolve_encoder(config.model.encoder), config.seed), None
    else:
        recommender = Recommender.load(finished_run(place.folder.parent / start, f"--part {start}"))
        model, adapter = recommender.model, recommender.adapter
    choices = Choices(list(device.steps), list(device.rates), list(device.parts))
    choice, trials, test = tune_and_rank(clients_of(Dataset.open(place.data), model, adapter), config, choices)
    keep_ranks(place.folder, test.ranks)
    return Figures(
        test=Ranked.model_validate(metric_means(metric_sums(test.ranks))),
        validation=max(map(_validation, trials), key=lambda metrics: metrics.ndcg_10),
        tuning=_tuning(device, choice, trials),
    )


def _validation(trial: dict[str, Any]) -> Measured:
    return Measured.model_validate(trial["validation"])


def _tuning(device: Device, choice: PersonalConfig, trials: list[dict[str, Any]]) -> Tuning:
    """Describe the grid and the choice; `parts` is left out if it does not vary."""
    names = ("steps", "rate") if len(device.parts) == 1 else ("steps", "rate", "parts")
    return Tuning(
        settings=choice.as_dict(),
        chosen={name: choice.as_dict()[name] for name in names},
        trials=tuple(
            Trial(
                settings={name: trial[name] for name in names}, ndcg_10=round(trial["validation"][SELECTION_METRIC], 6)
            )
            for trial in trials
        ),
    )
