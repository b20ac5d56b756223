"""Which parts a preset asks for: a family for each kind of thing that a benchmark compares."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from data.errors import InputError
from federation.config import RunConfig
from fedrec.reproduce.devices import alone, personal
from fedrec.reproduce.otherwise import cold, start
from fedrec.reproduce.parts import Part, Preparation
from fedrec.reproduce.peers import peers
from fedrec.reproduce.preset import Ablation, Preset, Variant
from fedrec.reproduce.rivals import baselines
from fedrec.reproduce.runs import training


def federated(preset: Preset) -> list[Part]:
    return [training("federated", "federated", f"federated-{seed}", preset.config(seed)) for seed in preset.seeds]


def central(preset: Preset) -> list[Part]:
    """The same model on pooled data."""
    changes = {"mode": "central", **preset.central}
    return [training("central", "central", f"central-{seed}", preset.config(seed, **changes)) for seed in preset.seeds]


def refit(preset: Preset) -> list[Part]:
    """The federated runs on the validation items too, as long: the last round is kept, and only the test measured."""
    return [training("refit", "refit", f"refit-{seed}", preset.config(seed, held_out=1)) for seed in preset.seeds]


FAMILIES: dict[str, Callable[[Preset], list[Part]]] = {
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


def parts_of(preset: Preset | Ablation, base: Preset) -> list[Part]:
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


def _varied(name: str, variant: Variant, config: RunConfig) -> Part:
    return replace(training(variant.group, name, name, config), preparation=Preparation(texts=variant.text))


def choose(parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """The parts of these names or families, or all where none is named. Raises `InputError` for a name of none."""
    for name in names:
        if name not in (known := dict.fromkeys(word for part in parts for word in (part.family, part.name))):
            raise InputError(f"--part {name!r} is none of this benchmark's; choose of {', '.join(known)}")
    return [part for part in parts if not names or {part.name, part.family} & set(names)]
