"""Results whose jobs were made on several machines: each machine adds its own to the file.

Users' ranks do not leave a machine, so models of two machines are not compared user by user.
"""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from benchmarks.reproduce.collect import ratio_of
from benchmarks.results_file import AblationResult, BenchmarkResult, JobsElsewhere, Result, UserGroup

Kind = TypeVar("Kind", AblationResult, BenchmarkResult)

MUST_AGREE = ("name", "split", "data", "seeds")
"""Fields that two machines must agree on, beside the preset's settings."""

MAY_DIFFER = {"parts", "baselines", "closed_form", "alone", "personal", "cold"}
"""Fields of the preset that may differ: the families it asks for, and grids, which the models' tunings record."""

ENVIRONMENT = ("machine", "versions", "elsewhere")


def merge_results(existing: Result, new: Result, only_in_existing: Mapping[str, str]) -> Result | None:
    """Add new results to those of an existing file; `only_in_existing` maps the jobs that only the file has to their
    models. A model that both have is taken from `new`.

    None if the two are not of the same benchmark, or if a model's seeds were made in both places.
    """
    if not _same_benchmark(existing, new):
        return None
    if isinstance(existing, AblationResult) and isinstance(new, AblationResult):
        return _merge_variants(_merge_common(existing, new, only_in_existing), existing, new)
    if isinstance(existing, BenchmarkResult) and isinstance(new, BenchmarkResult):
        if _model_names(new) & set(only_in_existing.values()):
            return None
        return _merge_models(_merge_common(existing, new, only_in_existing), existing, new)
    return None


def _same_benchmark(existing: Result, new: Result) -> bool:
    presets = (result.preset.model_dump(exclude=MAY_DIFFER) for result in (existing, new))
    return next(presets) == next(presets) and all(getattr(existing, f) == getattr(new, f) for f in MUST_AGREE)


def _merge_common(existing: Kind, new: Kind, only_in_existing: Collection[str]) -> Kind:
    """Merge the fields that every result has, and take what `new` measured for the others."""
    measured = {name: value for name, value in _set_fields(new).items() if name not in ENVIRONMENT}
    seconds = {name: existing.part_seconds[name] for name in only_in_existing} | new.part_seconds
    times = {"wall_seconds": round(sum(seconds.values()), 1), "part_seconds": seconds}
    return existing.model_copy(update=measured | _merge_environments(existing, new, only_in_existing) | times)


def _set_fields(result: Result) -> dict[str, Any]:
    """Return the fields of a result that differ from their defaults."""
    fields = type(result).model_fields
    return {name: value for name, value in result if fields[name].is_required() or value != fields[name].default}


def _merge_environments(existing: Result, new: Result, only_in_existing: Collection[str]) -> dict[str, Any]:
    """Keep the file's machine with its remaining jobs and list the new one `elsewhere`; if all jobs of the file's own
    machine were made again, the new machine takes its place."""
    elsewhere = tuple(
        entry.model_copy(update={"parts": jobs})
        for entry in existing.elsewhere
        if (jobs := tuple(name for name in entry.parts if name in only_in_existing))
    )
    if set(only_in_existing) == {name for entry in elsewhere for name in entry.parts}:
        return {"machine": new.machine, "versions": new.versions, "elsewhere": elsewhere}
    added = JobsElsewhere(parts=tuple(new.part_seconds), machine=new.machine, versions=new.versions)
    return {"elsewhere": (*elsewhere, added)}


def _merge_variants(merged: AblationResult, existing: AblationResult, new: AblationResult) -> AblationResult:
    """Merge the variants, in the order of the preset."""
    variants = {variant.name: variant for variant in (*existing.variants, *new.variants)}
    ordered = tuple(variants[name] for name in existing.preset.variant if name in variants)
    return merged.model_copy(update={"variants": ordered})


def _merge_models(merged: BenchmarkResult, existing: BenchmarkResult, new: BenchmarkResult) -> BenchmarkResult:
    """Merge the models, and keep the comparisons between models of the existing file alone."""
    kept = (one for one in existing.comparisons if not _model_names(new) & {one.a, one.b})
    groups = {group.group: group for group in new.by_history}
    return merged.model_copy(
        update={
            "baselines": existing.baselines | new.baselines,
            "closed_forms": existing.closed_forms | new.closed_forms,
            "federated_baselines": existing.federated_baselines | new.federated_baselines,
            "cold": existing.cold | new.cold,
            "ratio": ratio_of(merged.federated, merged.central),
            "comparisons": (*kept, *new.comparisons),
            "by_history": tuple(_merge_group(group, groups.get(group.group)) for group in existing.by_history),
        }
    )


def _merge_group(existing: UserGroup, new: UserGroup | None) -> UserGroup:
    """Merge the models of a group of users, which has the same users on every machine."""
    return existing.model_copy(update={"ndcg_10": existing.ndcg_10 | new.ndcg_10}) if new else existing


def _model_names(result: BenchmarkResult) -> set[str]:
    return {*result.own_models(), *result.baselines, *result.closed_forms, *result.federated_baselines}
