"""What the parts found that were put to another test: cold items, and a start from another dataset's run."""

from typing import Any

from benchmarks.reproduce.collect import OURS, Records, metrics_of, of_model
from benchmarks.reproduce.jobs import Figures
from fedrec.federation.rounds import SCORE

NEAR = 0.95
"""Of the best validation score that training from scratch reaches: the mark that both beginnings are timed by."""


def others(records: Records) -> Figures:
    """The figures of these families, as far as their parts are finished."""
    found = {"cold": cold(records), "start": start(records)}
    return {family: figures for family, figures in found.items() if figures}


def cold(records: Records) -> Figures:
    """Each model's test metrics where some items are cold: ranked among all items, and among the cold ones."""
    found = [record for record in records.values() if record["family"] == "cold"]
    return {
        record["model"]: {
            "users": record["figures"]["test"]["users"],
            "all": metrics_of(record["figures"]["test"]),
            "cold": metrics_of(record["figures"]["cold"]),
        }
        for record in found
    }


def start(records: Records) -> Figures | None:
    """The warm start's metrics, those of its beginning, and how many rounds it and one from scratch need."""
    found = [record for record in records.values() if record["family"] == "start"]
    if not found:
        return None
    figures = found[0]["figures"]
    told = {
        "from": found[0]["settings"]["start"],
        "before": metrics_of(figures["before"]),
        **metrics_of(figures["test"]),
        "validation": metrics_of(figures["validation"]),
    }
    scratch = of_model(records, OURS, OURS)
    return told | (_rounds_needed(figures["curve"], scratch[0]["curve"]) if scratch else {})


def _rounds_needed(warm: list[list[Any]], scratch: list[list[Any]]) -> Figures:
    mark = NEAR * max(score for _, score in scratch)
    return {
        "mark": {SCORE: round(mark, 6), "share": NEAR},
        "rounds": {name: _first(curve, mark) for name, curve in (("start", warm), ("scratch", scratch))},
    }


def _first(curve: list[list[Any]], mark: float) -> int | None:
    """The first round that was validated at the mark or above; None where none was."""
    return next((number for number, score in curve if score >= mark), None)
