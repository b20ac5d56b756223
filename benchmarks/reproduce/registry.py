"""Which parts a preset asks for: a family for each kind of thing that a benchmark compares."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.reproduce.baselines import baselines
from benchmarks.reproduce.cold_and_warm_start import cold, start
from benchmarks.reproduce.federated_baselines import peers
from benchmarks.reproduce.jobs import Job, Preparation
from benchmarks.reproduce.local_only import alone, personal
from benchmarks.reproduce.preset import Ablation, Preset, Variant
from benchmarks.reproduce.runs import training
from fedrec.data.errors import InputError
from fedrec.federation.config import RunConfig


def federated(preset: Preset) -> list[Job]:
    return [training("federated", "federated", f"federated-{seed}", preset.config(seed)) for seed in preset.seeds]


def central(preset: Preset) -> list[Job]:
    """The same model on pooled data."""
    changes = {"mode": "central", **preset.central}
    return [training("central", "central", f"central-{seed}", preset.config(seed, **changes)) for seed in preset.seeds]


def refit(preset: Preset) -> list[Job]:
    """The federated runs on the validation items too, as long: the last round is kept, and only the test measured."""
    return [training("refit", "refit", f"refit-{seed}", preset.config(seed, held_out=1)) for seed in preset.seeds]


FAMILIES: dict[str, Callable[[Preset], list[Job]]] = {
    "federated": federated,
    "central": central,
    "refit": refit,
    "baselines": baselines,
    "peers": peers,
    "alone": alone,
    "personal": personal,
    "cold": cold,
    "start": start,
}
"""In the order in which they are made: a later family may start from what an earlier one left."""


def parts_of(preset: Preset | Ablation, base: Preset) -> list[Job]:
    """All parts of a preset, in the order of making; `base` is the preset itself, or what the variants change.

    Raises `InputError` for a family or a setting that does not exist.
    """
    if isinstance(preset, Ablation):
        shared = base.settings | preset.settings
        varied = Preset(data=base.data, seeds=(preset.seed,), settings=shared)
        return [
            _varied(name, variant, varied.config(preset.seed, **variant.settings))
            for name, variant in preset.variant.items()
        ]
    for name in preset.parts:
        if name not in FAMILIES:
            raise InputError(f"parts: {name!r} is not known; choose of {', '.join(FAMILIES)}")
    return [part for name, family in FAMILIES.items() if name in preset.parts for part in family(preset)]


def _varied(name: str, variant: Variant, config: RunConfig) -> Job:
    return replace(training(variant.group, name, name, config), preparation=Preparation(texts=variant.text))


def choose(parts: Sequence[Job], names: Sequence[str]) -> list[Job]:
    """The parts of these names or families, or all where none is named. Raises `InputError` for a name of none."""
    for name in names:
        if name not in (known := dict.fromkeys(word for part in parts for word in (part.family, part.name))):
            raise InputError(f"--part {name!r} is none of this benchmark's; choose of {', '.join(known)}")
    return [part for part in parts if not names or {part.name, part.family} & set(names)]
