"""What the finished parts found, as one table of figures ready for JSON. No user is in it."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.reproduce.jobs import Figures
from benchmarks.reproduce.preset import Ablation
from fedrec.federation.rounds import SCORE

METRICS = ("ndcg@5", "ndcg@10", "ndcg@20", "recall@5", "recall@10", "recall@20", "mrr", "coverage@10")
OURS, CENTRAL = "federated", "central"
GROUPS = ("baselines", "peers")
"""Families of several models."""
APART = ("cold", "start")
"""Families whose figures do not stand beside the others: they are of other data, or of another beginning."""
TOLD = ("tuning",)
"""What stands beside a model's metrics, from its first seed."""
COSTS = ("rounds", "adapter_parameters", "bytes_up_per_client_round")
RATIOS = ("ndcg@10", "recall@10")

Records = Mapping[str, Mapping[str, Any]]
"""Of each finished part, by its name: `family`, `model`, `settings`, `figures`, `seconds`, `machine`, `versions`."""


def of_model(records: Records, family: str, model: str) -> list[Figures]:
    """What the parts of one model found, a seed each."""
    return [r["figures"] for r in records.values() if (r["family"], r["model"]) == (family, model)]


def overall(records: Records) -> Figures:
    """What the models of a benchmark reached over their seeds, and how the federated one did it."""
    found: Figures = {}
    for family, model in dict.fromkeys((record["family"], record["model"]) for record in records.values()):
        if family in APART:
            continue
        figures = of_model(records, family, model)
        table = found.setdefault(family, {}) if family in GROUPS else found
        told = (*TOLD, *COSTS) if family == "peers" else TOLD
        table[model] = over_seeds(figures) | {name: figures[0][name] for name in told if name in figures[0]}
    runs = [record for record in records.values() if record["family"] == OURS]
    return with_ratio(found) | (_of_runs(runs) if runs else {})


def with_ratio(found: Figures) -> Figures:
    """With what the federated model reaches of the central one's metrics, where both are there."""
    if not {OURS, CENTRAL} <= found.keys():
        return found
    ratio = {
        metric: rounded(found[OURS][metric]["mean"] / found[CENTRAL][metric]["mean"])
        for metric in RATIOS
        if found[CENTRAL][metric]["mean"]
    }
    return found | {"ratio": ratio}


def over_seeds(figures: Sequence[Figures]) -> Figures:
    """Each metric's mean, sample standard deviation (None of one seed) and values: the test's; within, the others'."""

    def summed(split: str) -> Figures:
        return {
            name: mean_and_std([run[split][name] for run in figures]) for name in METRICS if name in figures[0][split]
        }

    beside = [split for split in ("validation", "sampled-99") if all(split in run for run in figures)]
    return {**summed("test"), **{split: summed(split) for split in beside}}


def mean_and_std(values: Sequence[float]) -> Figures:
    return {
        "mean": rounded(statistics.fmean(values)),
        "sd": rounded(statistics.stdev(values)) if len(values) > 1 else None,
        "seeds": [rounded(value) for value in values],
    }


def metrics_of(split: Mapping[str, float]) -> Figures:
    return {name: rounded(split[name]) for name in METRICS if name in split}


def variants(ablation: Ablation, records: Records) -> list[Figures]:
    """What each variant changed, scored and cost."""
    told = ("adapter_parameters", "bytes_up_per_client_round", "rounds", "best_round")
    return [
        {
            "name": name,
            **variant.model_dump(mode="json"),
            **{split: metrics_of(record["figures"][split]) for split in ("test", "validation")},
            **{figure: record["figures"][figure] for figure in told},
        }
        for name, variant in ablation.variant.items()
        if (record := records.get(name))
    ]


def _of_runs(runs: Sequence[Mapping[str, Any]]) -> Figures:
    """What federated runs of several seeds cost and how they went."""
    settings, figures = runs[0]["settings"], [run["figures"] for run in runs]
    return {
        **{name: figures[0][name] for name in ("adapter_parameters", "bytes_up_per_client_round")},
        "bits": settings["bits"],
        "rounds": settings["rounds"],
        "best_round": [run["best_round"] for run in figures],
        "clients_per_round": settings["clients_per_round"],
        "curve": _curve(settings, figures),
    }


def _curve(settings: Mapping[str, Any], figures: Sequence[Figures]) -> list[Figures]:
    """Validation by rounds, mean over seeds, with the megabytes that a client has sent by then on average."""
    users = figures[0]["test"]["users"]
    share = min(1, settings["clients_per_round"] / users)  # of the rounds a client takes part in
    sent = share * figures[0]["bytes_up_per_client_round"] / 1e6
    return [
        {
            "round": points[0][0],
            SCORE: rounded(statistics.fmean(score for _, score in points)),
            "megabytes_up_per_client": rounded(points[0][0] * sent),
        }
        for points in zip(*(run["curve"] for run in figures), strict=True)
    ]


def circumstances_of(records: Records) -> Figures:
    """Machine and versions; parts that were made under others are listed `elsewhere` with theirs."""
    seen: list[tuple[Figures, list[str]]] = []
    for name, record in records.items():
        made = {key: record[key] for key in ("machine", "versions")}
        names = next((names for other, names in seen if other == made), None)
        if names is None:
            seen.append((made, [name]))
        else:
            names.append(name)
    first, *others = seen or [({}, [])]
    elsewhere = [{"parts": names, **made} for made, names in others]
    return first[0] | ({"elsewhere": elsewhere} if elsewhere else {})


def seconds_of(records: Records) -> Figures:
    """How long the parts took, and all of them. Of a part that was killed, its rounds are known at least."""
    took = {
        name: max(record["seconds"], record["figures"].get("training_seconds", 0.0)) for name, record in records.items()
    }
    return {"wall_seconds": round(sum(took.values()), 1), "part_seconds": took}


def rounded(value: float) -> float:
    return round(value, 6)


def rows(found: Figures) -> dict[str, dict[str, float]]:
    """A result's test metrics by what was measured, for a table."""
    if "variants" in found:
        return {variant["name"]: variant["test"] for variant in found["variants"]}
    models = {name: found[name] for name in (OURS, CENTRAL) if name in found}
    for group in GROUPS:
        models |= found.get(group, {})
    return {name: {m: model[m]["mean"] for m in METRICS if m in model} for name, model in models.items()}
