"""The models of a benchmark, one row each: ours, the baselines, and what others report."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from benchmarks.preset import slug
from benchmarks.report.markdown import LEAKING, OURS, SHORT, Figure, best_of, figure, label, mean_of, table
from benchmarks.report.sources import Published, title
from benchmarks.report.traffic import bytes_over_run
from benchmarks.results_file import BenchmarkResult, Metrics, Trial, Tuning

UNTRAINED = ("random", "text neighbours", "whitened text neighbours")
"""Baselines without training."""


@dataclass(frozen=True)
class Row:
    """One model's row in a benchmark's table."""

    model: str
    trained: str
    metrics: Metrics[Any]
    made_by: str  # the option that makes it, or the source of a published figure
    note: str = ""
    competes: bool = True  # for the best of a column
    sent: int | None = None  # bytes of a client over a run; None if there are no clients


def model_rows(result: BenchmarkResult, published: Sequence[Published]) -> list[Row]:
    """Return the rows of a benchmark: ours, then the baselines from best to worst, then published figures."""
    ours = [
        Row(
            *OURS[name],
            model,
            f"`--part {name}`",
            choice_of(model.tuning),
            sent=bytes_over_run(result, name, model),
        )
        for name, model in result.own_models().items()
    ]
    baselines = chain(_federated_baselines(result), _baselines(result))
    ranked = sorted(baselines, key=lambda row: -mean_of(row.metrics.ndcg_10))
    return [*ours, *_closed_forms(result), *ranked, *_published(result, published)]


def choice_of(tuning: Tuning | None) -> str:
    """Describe the choice on validation: ` (ridge = 200; of 5 tried)`. Empty if there was none."""
    if not tuning or not tuning.chosen:
        return ""
    if tuning.chosen.get("steps") == 0 and len(tuning.trials) > 1:
        return _left_out(tuning.trials)
    chosen = ", ".join(f"{name} = {_setting(value)}{_edge(name, tuning)}" for name, value in tuning.chosen.items())
    return f" ({chosen}; of {len(tuning.trials)} tried)"


def _left_out(trials: Sequence[Trial]) -> str:
    """Describe a choice of zero steps, beside the best of the other trials."""
    without, *others = sorted(trials, key=lambda trial: trial.settings["steps"])
    best = max(trial.ndcg_10 for trial in others)
    return f" (left out: {best:.4f} on validation at best, of {len(others)} tried, and {without.ndcg_10:.4f} without)"


def _edge(name: str, tuning: Tuning) -> str:
    """Mark a choice at the edge of the grid, beyond which a better one may lie: ` (the lowest)`."""
    chosen, values = tuning.chosen[name], [trial.settings[name] for trial in tuning.trials]
    if isinstance(chosen, list) or len(set(values)) < 2:
        return ""
    lowest = chosen == min(values) and chosen not in (0, 1)  # 0 and 1 have no smaller neighbour
    return " (the lowest)" if lowest else " (the highest)" if chosen == max(values) else ""


def _setting(value: Any) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else f"{value:g}"


def _closed_forms(result: BenchmarkResult) -> Iterator[Row]:
    for name, model in result.closed_forms.items():
        part = "hybrid" if name.startswith("hybrid") else "closed-form"
        sent = bytes_over_run(result, name, model)
        yield Row(label(name), "federated", model, f"`--part {part}`", choice_of(model.tuning), sent=sent)


def _federated_baselines(result: BenchmarkResult) -> Iterator[Row]:
    for name, model in result.federated_baselines.items():
        sent = f" ({model.rounds} rounds, {kilobytes(model.bytes_up_per_client_round or 0)} kB each)"
        over_run = bytes_over_run(result, name, model)
        yield Row(label(name), "federated", model, "`--part peers`", sent, name not in LEAKING, over_run)


def _baselines(result: BenchmarkResult) -> Iterator[Row]:
    for name, model in result.baselines.items():
        trained = "not at all" if name in UNTRAINED else "centrally"
        yield Row(label(name), trained, model, f"`--part baseline-{slug(name)}`", choice_of(model.tuning))


def _published(result: BenchmarkResult, published: Sequence[Published]) -> Iterator[Row]:
    for one in published:
        if one.benchmark == result.name:
            rule = f"; {one.rule}" if one.rule else ""
            trained = "federated" if one.federated else "centrally"
            yield Row(one.model, trained, one, one.source + rule, f", *{one.kind or 'as published'}*")


def kilobytes(size: int) -> str:
    """Format bytes as kilobytes: `1,037.2`."""
    return f"{size / 1000:,.1f}"


def megabytes(size: int | None) -> str:
    """Format bytes as megabytes: `1.07`."""
    return "–" if size is None else f"{size / 1e6:,.2f}"


def summary(results: Sequence[BenchmarkResult], published: Sequence[Published]) -> str:
    """Build the README's table of NDCG@10, the best of each row in bold.

    It leaves out benchmarks with no other model than ours, leaking baselines, and figures that are not published.
    """
    header = [
        "NDCG@10",
        "fedrec, federated",
        "with a closed form",
        "the same on pooled data",
        "best federated baseline",
        "best baseline",
        "published",
    ]
    return table(
        header, [_summary_row(result, published) for result in results if len(model_rows(result, published)) > 1]
    )


def _summary_row(result: BenchmarkResult, published: Sequence[Published]) -> list[str]:
    ours = [model.ndcg_10 if model else None for model in (result.federated, result.central)]
    solved, which = _best_closed_form(result)
    papers = [one for one in published if not one.kind]
    fair = (row for row in _federated_baselines(result) if row.competes)
    firsts = [_first(rows) for rows in (fair, _baselines(result), _published(result, papers))]
    best = best_of([*ours, solved, *(value for value, _ in firsts)])
    return [
        title(result),
        figure(ours[0], best),
        f"{figure(solved, best)}{which}",
        figure(ours[1], best),
        *(f"{figure(value, best)}{name}" for value, name in firsts),
    ]


def _best_closed_form(result: BenchmarkResult) -> tuple[Figure, str]:
    """Return the NDCG@10 and the name of the closed form that is best on validation, so that no choice is by the test
    items; None and no name if there is none."""
    validated = {name: model for name, model in result.closed_forms.items() if model.validation}
    if not validated:
        return None, ""
    name, model = max(validated.items(), key=lambda item: mean_of(item[1].validation and item[1].validation.ndcg_10))
    return model.ndcg_10, f" ({SHORT[name]})"


def _first(rows: Iterable[Row]) -> tuple[Figure, str]:
    """Return the highest NDCG@10 and its model's name; None and no name if there is no row."""
    first = max(rows, key=lambda row: mean_of(row.metrics.ndcg_10), default=None)
    return (first.metrics.ndcg_10, f" ({first.model})") if first else (None, "")
