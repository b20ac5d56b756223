"""Jobs that train a run with a closed form, resumed if it was interrupted, and rank every user's held-out item."""

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.preset import Preset
from benchmarks.reproduce.jobs import RUN, Figures, Job, JobFolder, Measured
from benchmarks.reproduce.runs import rank_held_out, train_or_resume
from benchmarks.results_file import Trial, Tuning
from fedrec.data.errors import InputError
from fedrec.federation import round_log
from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig, to_flat
from fedrec.federation.round_log import SCORE
from fedrec.run import Run

FAMILY, HYBRID, SMALL_HYBRID = "closed-form", "hybrid", "hybrid-text"
HYBRIDS = (HYBRID, SMALL_HYBRID)

CLOSED_FORMS = {
    "closed-form-ids": {"method": "closed-form", "features": "ids", "bits": 32, "final_held_out": 1},
    "closed-form-text": {"method": "closed-form", "features": "text", "bits": 32, "final_held_out": 1},
    HYBRID: {"method": "hybrid", "final_held_out": 1},
    SMALL_HYBRID: {"method": "hybrid", "features": "text", "final_held_out": 1},
}
"""Model → its own settings, over those of the preset. All are solved once more with the validation items, as the tuned
baselines are fitted once more; a preset may say otherwise."""


def closed_form_jobs(preset: Preset) -> list[Job]:
    """Build the runs without towers: over texts one for each seed, and over ids, which no draw enters, one.

    Raises `InputError` for settings of an unknown model.
    """
    if unknown := preset.closed_form.keys() - CLOSED_FORMS.keys():
        raise InputError(f"closed_form.{min(unknown)} is not known; the models are {', '.join(CLOSED_FORMS)}")
    ids = job_of(preset, "closed-form-ids", preset.seeds[0])
    return [ids, *(job_of(preset, "closed-form-text", seed) for seed in preset.seeds)]


def hybrid_jobs(preset: Preset) -> list[Job]:
    """Build the runs with towers and a closed form, one for each seed; and those that send few bytes, if the preset has
    settings of theirs."""
    hybrids = [model for model in models_of(preset) if model in HYBRIDS]
    return [job_of(preset, model, seed) for model in hybrids for seed in preset.seeds]


def models_of(preset: Preset) -> list[str]:
    """Return the models of a preset, in their order: all but the hybrid in few bytes, unless it has settings."""
    return [model for model in CLOSED_FORMS if model != SMALL_HYBRID or model in preset.closed_form]


def job_of(preset: Preset, model: str, seed: int, **changes: Any) -> Job:
    """Build the run of one of `CLOSED_FORMS` with a seed, and with changes to its settings."""
    config = preset.config(seed, **CLOSED_FORMS[model] | preset.closed_form.get(model, {}) | changes)
    family = HYBRID if model in HYBRIDS else FAMILY
    return Job(family, model, f"{model}-{seed}", to_flat(config), partial(_train_and_rank, config))


def _train_and_rank(config: RunConfig, place: JobFolder) -> Figures:
    """Train, and rank by the artifact: what is served is measured, with the closed form cut to its rank."""
    figures, run = rank_held_out(train_or_resume(config, place).scorer(), place, config.measured), place.folder / RUN
    found: dict[str, Any] = {"tuning": _tuning(config, run)}
    if config.final_sums:  # they hold the items of validation, which was measured before them
        found["validation"] = Measured.model_validate(Run.open(run).metrics["validation"])
    return figures.model_copy(update=found)


def _tuning(config: RunConfig, run: Path) -> Tuning:
    """Describe the candidate solutions and the choice; both hold only the hyperparameters that vary."""
    state, records = State.load(run), round_log.read(run)
    assert state, "a finished run has a state"
    assert state.chosen, "a finished run has chosen a solution"
    tried = [(record["candidate"], record["validation"][SCORE]) for record in records if record.get("candidate")]
    varied = [name for name in state.chosen.as_record() if len({candidate[name] for candidate, _ in tried}) > 1]
    return Tuning(
        settings=to_flat(config.closed_form),
        chosen={name: state.chosen.as_record()[name] for name in varied},
        trials=tuple(
            Trial(settings={name: candidate[name] for name in varied}, ndcg_10=round(score, 6))
            for candidate, score in tried
        ),
    )
