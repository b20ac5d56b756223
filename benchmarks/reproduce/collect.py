"""The figures of all finished jobs, collected into the fields of a result."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.preset import Ablation
from benchmarks.reproduce.closed_forms import FAMILY as CLOSED_FORM
from benchmarks.reproduce.federated_baselines import FAMILY as FEDERATED_BASELINES
from benchmarks.reproduce.jobs import Figures, Job
from benchmarks.reproduce.message_cost import RunCost
from benchmarks.results_file import (
    AblationResult,
    CurvePoint,
    Environment,
    JobsElsewhere,
    MeanAndStd,
    Metrics,
    ModelResult,
    Ratio,
    Result,
    VariantResult,
    json_key,
)

COSTS = ("rounds", "adapter_parameters", "bytes_up_per_client_round")
OURS, CENTRAL = "federated", "central"
GROUPS = {
    "baselines": "baselines",
    CLOSED_FORM: "closed_forms",
    "hybrid": "closed_forms",
    FEDERATED_BASELINES: "federated_baselines",
}
"""Families of several models → their field in the result."""
SEPARATE = ("cold", "start")
"""Families that are not compared with the others: they have other data, or another initial adapter."""


@dataclass(frozen=True)
class FinishedJob:
    """A job with its figures, the cost of its run if it trained one, and how it was made."""

    job: Job
    figures: Figures
    seconds: float
    environment: Environment
    cost: RunCost | None


Records = Mapping[str, FinishedJob]
"""The finished jobs, by name."""


def jobs_of_model(records: Records, family: str, model: str) -> list[FinishedJob]:
    """Return the jobs of one model, one for each seed."""
    return [record for record in records.values() if (record.job.family, record.job.model) == (family, model)]


def model_fields(records: Records) -> dict[str, Any]:
    """Collect the models' figures over their seeds, and the course and cost of the federated runs."""
    fields: dict[str, Any] = {}
    for family, model in dict.fromkeys((record.job.family, record.job.model) for record in records.values()):
        if family in SEPARATE:
            continue
        result = over_seeds(jobs_of_model(records, family, model))
        if family in GROUPS:
            fields.setdefault(GROUPS[family], {})[model] = result
        else:
            fields[model] = result
    runs = jobs_of_model(records, OURS, OURS)
    return fields | {"ratio": ratio_of(fields.get(OURS), fields.get(CENTRAL))} | (_run_fields(runs) if runs else {})


def ratio_of(federated: ModelResult | None, central: ModelResult | None) -> Ratio | None:
    """Divide the federated model's means by the central one's; None if one of them is missing."""
    if not federated or not central:
        return None
    ours, theirs = federated.by_field(), central.by_field()
    return Ratio(
        **{name: round_figure(ours[name].mean / theirs[name].mean) for name in Ratio.model_fields if theirs[name].mean}
    )


def over_seeds(jobs: Sequence[FinishedJob]) -> ModelResult:
    """Collect one model's metrics over its seeds; the tuning is the first seed's."""
    figures, first = [job.figures for job in jobs], jobs[0]
    measured = {split: [getattr(run, split) for run in figures] for split in ("validation", "sampled_99")}
    beside = {split: Metrics[MeanAndStd](**_means(seeds)) for split, seeds in measured.items() if all(seeds)}
    fields: dict[str, Any] = _means([run.test for run in figures]) | beside | {"tuning": first.figures.tuning}
    if first.cost and first.job.family != CENTRAL:
        costs = COSTS if first.job.family in GROUPS else ()
        fields |= {name: getattr(first.cost, name) for name in ("bytes_up_per_client_run", *costs)}
    return ModelResult(**fields)


def _means(metrics: Sequence[Metrics[float]]) -> dict[str, Any]:
    """Compute each metric's mean and deviation over the seeds, by the names of the fields."""
    seeds = [one.by_field() for one in metrics]
    return {name: mean_and_std([seed[name] for seed in seeds]) for name in seeds[0]}


def mean_and_std(values: Sequence[float]) -> MeanAndStd:
    """Compute the mean and the sample standard deviation; one value has no deviation."""
    return MeanAndStd(
        mean=round_figure(statistics.fmean(values)),
        sd=round_figure(statistics.stdev(values)) if len(values) > 1 else None,
        seeds=tuple(map(round_figure, values)),
    )


def rounded_metrics(metrics: Metrics[float]) -> Metrics[float]:
    """Round metrics as they are written."""
    return Metrics[float](**{name: round_figure(value) for name, value in metrics.by_field().items()})


def variant_results(ablation: Ablation, records: Records) -> tuple[VariantResult, ...]:
    """Collect the finished variants, in the order of the preset."""
    return tuple(
        _variant_result(ablation, name, records[name], cost)
        for name in ablation.variant
        if name in records and (cost := records[name].cost)
    )


def _variant_result(ablation: Ablation, name: str, record: FinishedJob, cost: RunCost) -> VariantResult:
    assert record.figures.validation, "a variant's run has validation items"
    return VariantResult(
        name=name,
        **dict(ablation.variant[name]),
        test=rounded_metrics(record.figures.test),
        validation=rounded_metrics(record.figures.validation),
        adapter_parameters=cost.adapter_parameters,
        bytes_up_per_client_round=cost.bytes_up_per_client_round,
        bytes_up_per_client_run=cost.bytes_up_per_client_run,
        rounds=cost.rounds,
        best_round=cost.best_round,
    )


def _run_fields(runs: Sequence[FinishedJob]) -> dict[str, Any]:
    """Collect the cost and the course of the federated runs over their seeds."""
    settings, costs = runs[0].job.settings, [run.cost for run in runs if run.cost]
    return {
        "adapter_parameters": costs[0].adapter_parameters,
        "bytes_up_per_client_round": costs[0].bytes_up_per_client_round,
        "bits": settings["bits"],
        "rounds": settings["rounds"],
        "best_round": tuple(cost.best_round for cost in costs),
        "clients_per_round": settings["clients_per_round"],
        "curve": _curve(settings["clients_per_round"] / runs[0].figures.test.users, costs),
    }


def _curve(clients_per_user: float, costs: Sequence[RunCost]) -> tuple[CurvePoint, ...]:
    """Compute the validation curve, mean over seeds, with the megabytes that a client has sent by then on average."""
    share = min(1, clients_per_user)  # of the rounds in which a client takes part
    sent = share * costs[0].bytes_up_per_client_round / 1e6
    return tuple(
        CurvePoint(
            round=points[0][0],
            ndcg_10=round_figure(statistics.fmean(score for _, score in points)),
            megabytes_up_per_client=round_figure(points[0][0] * sent),
        )
        for points in zip(*(cost.curve for cost in costs), strict=True)
    )


def environment_fields(records: Records) -> dict[str, Any]:
    """Return the first job's machine and versions; jobs with others are listed `elsewhere` with theirs."""
    names: dict[str, list[str]] = {}
    for name, record in records.items():
        names.setdefault(record.environment.model_dump_json(), []).append(name)
    first, *others = [(records[jobs[0]].environment, tuple(jobs)) for jobs in names.values()]
    elsewhere = tuple(JobsElsewhere(parts=jobs, **dict(environment)) for environment, jobs in others)
    return dict(first[0]) | {"elsewhere": elsewhere}


def time_fields(records: Records) -> dict[str, Any]:
    """Return the seconds of each job and their sum; a job that was killed counts at least its rounds."""
    seconds = {
        name: max(record.seconds, record.cost.training_seconds if record.cost else 0.0)
        for name, record in records.items()
    }
    return {"wall_seconds": round(sum(seconds.values()), 1), "part_seconds": seconds}


def round_figure(value: float) -> float:
    """Round a figure as it is written."""
    return round(value, 6)


def metrics_by_model(result: Result) -> dict[str, dict[str, float]]:
    """Return a result's test metrics by model or variant, as a table shows them."""
    if isinstance(result, AblationResult):
        tables = {variant.name: variant.test.by_field() for variant in result.variants}
    else:
        shown = {name: model for name, model in result.own_models().items() if name in (OURS, CENTRAL)}
        models = shown | result.closed_forms | result.baselines | result.federated_baselines
        tables = {
            name: {metric: value.mean for metric, value in model.by_field().items()} for name, model in models.items()
        }
    return {name: {json_key(metric): value for metric, value in table.items()} for name, table in tables.items()}
