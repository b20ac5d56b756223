"""The experiments that a preset can ask for: each builds the jobs of one family."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.preset import Ablation, Preset, Variant
from benchmarks.reproduce.baselines import baseline_jobs
from benchmarks.reproduce.closed_forms import FAMILY as CLOSED_FORM
from benchmarks.reproduce.closed_forms import closed_form_jobs, hybrid_jobs
from benchmarks.reproduce.cold_and_warm_start import cold_start_jobs, warm_start_jobs
from benchmarks.reproduce.federated_baselines import federated_baseline_jobs
from benchmarks.reproduce.jobs import Job, Preparation
from benchmarks.reproduce.local_only import local_only_jobs, personal_jobs
from benchmarks.reproduce.runs import training_job
from fedrec.data.errors import InputError
from fedrec.federation.config import RunConfig


def federated_jobs(preset: Preset) -> list[Job]:
    """Build the federated runs, one for each seed."""
    return [training_job("federated", "federated", f"federated-{seed}", preset.config(seed)) for seed in preset.seeds]


def central_jobs(preset: Preset) -> list[Job]:
    """Build the runs of the same model on pooled data, one for each seed."""
    changes = {"mode": "central", **preset.central}
    return [
        training_job("central", "central", f"central-{seed}", preset.config(seed, **changes)) for seed in preset.seeds
    ]


def refit_jobs(preset: Preset) -> list[Job]:
    """Build the federated runs that also train on the validation items, for as many rounds; the last round is kept."""
    return [training_job("refit", "refit", f"refit-{seed}", preset.config(seed, held_out=1)) for seed in preset.seeds]


EXPERIMENTS: dict[str, Callable[[Preset], list[Job]]] = {
    "federated": federated_jobs,
    "central": central_jobs,
    "refit": refit_jobs,
    CLOSED_FORM: closed_form_jobs,
    "hybrid": hybrid_jobs,
    "baselines": baseline_jobs,
    "peers": federated_baseline_jobs,
    "alone": local_only_jobs,
    "personal": personal_jobs,
    "cold": cold_start_jobs,
    "start": warm_start_jobs,
}
"""Family → its jobs, in the order in which they run: a later family may start from an earlier one's runs."""


def jobs_of(preset: Preset | Ablation, base: Preset) -> list[Job]:
    """Build all jobs of a preset, in the order in which they run; `base` is the preset itself, or an ablation's base.

    Raises `InputError` for an unknown family or setting.
    """
    if isinstance(preset, Ablation):
        shared = base.settings | preset.settings
        varied = Preset(data=base.data, seeds=(preset.seed,), settings=shared)
        return [
            _variant_job(name, variant, varied.config(preset.seed, **variant.settings))
            for name, variant in preset.variant.items()
        ]
    for name in preset.parts:
        if name not in EXPERIMENTS:
            raise InputError(f"parts: {name!r} is not known; choose of {', '.join(EXPERIMENTS)}")
    return [job for name, build in EXPERIMENTS.items() if name in preset.parts for job in build(preset)]


def _variant_job(name: str, variant: Variant, config: RunConfig) -> Job:
    return replace(training_job(variant.group, name, name, config), preparation=Preparation(texts=variant.text))


def select_jobs(jobs: Sequence[Job], names: Sequence[str]) -> list[Job]:
    """Return the jobs with these names or families, or all if `names` is empty. Raises `InputError` for an unknown
    name."""
    known = dict.fromkeys(word for job in jobs for word in (job.family, job.name))
    for name in names:
        if name not in known:
            raise InputError(f"--part {name!r} is not in this benchmark; choose of {', '.join(known)}")
    return [job for job in jobs if not names or {job.name, job.family} & set(names)]
