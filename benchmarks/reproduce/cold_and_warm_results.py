"""The figures of the two further tests: cold items, and a warm start from another dataset's adapter."""

from collections.abc import Sequence
from typing import Any

from benchmarks.reproduce.collect import OURS, Records, jobs_of_model, round_figure, rounded_metrics
from benchmarks.results_file import ColdStart, Mark, RoundsNeeded, WarmStart

SHARE = 0.95
"""The mark that a warm start and a run from scratch are raced to, as a share of the latter's best validation score."""

Curve = Sequence[tuple[int, float]]


def cold_and_warm_fields(records: Records) -> dict[str, Any]:
    """Collect the figures of both tests, as far as their jobs have finished."""
    return {"cold": cold_start(records), "start": warm_start(records)}


def cold_start(records: Records) -> dict[str, ColdStart]:
    """Collect each model's test metrics on data with cold items."""
    return {
        record.job.model: ColdStart(
            users=record.figures.test.users,
            all=rounded_metrics(record.figures.test),
            cold=rounded_metrics(record.figures.cold),
            listed=record.figures.cold_listed,
        )
        for record in records.values()
        if record.job.family == "cold" and record.figures.cold
    }


def warm_start(records: Records) -> WarmStart | None:
    """Collect the warm start's metrics, and the rounds that it and the run from scratch need to reach the mark."""
    record = next(iter(jobs_of_model(records, "start", "start")), None)
    if not record or not record.figures.before or not record.figures.validation:
        return None
    scratch = next(iter(jobs_of_model(records, OURS, OURS)), None)
    curves = (record.cost.curve, scratch.cost.curve) if record.cost and scratch and scratch.cost else None
    return WarmStart(
        from_=record.job.settings["start"],
        before=rounded_metrics(record.figures.before),
        **rounded_metrics(record.figures.test).by_field(),
        validation=rounded_metrics(record.figures.validation),
        **(_race(*curves) if curves else {}),
    )


def _race(warm: Curve, scratch: Curve) -> dict[str, Any]:
    mark = SHARE * max(score for _, score in scratch)
    return {
        "mark": Mark(ndcg_10=round_figure(mark), share=SHARE),
        "rounds": RoundsNeeded(start=_first_at(mark, warm), scratch=_first_at(mark, scratch)),
    }


def _first_at(mark: float, curve: Curve) -> int | None:
    """Return the first validated round at the mark or above; None if there is none."""
    return next((number for number, score in curve if score >= mark), None)
