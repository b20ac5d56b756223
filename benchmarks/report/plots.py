"""The plots of the results: drawn by matplotlib, and stamped with a hash of their figures."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.report.markdown import LEAKING, label, span
from benchmarks.report.sources import title
from benchmarks.report.traffic import bytes_over_run
from benchmarks.results_file import AblationResult, BenchmarkResult, CurvePoint, Result, UserGroup
from fedrec.data.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
"""Distinguishable with any colour vision: Wong 2011, doi:10.1038/nmeth.1618."""
ALWAYS = ("federated", "central", "popularity")
STYLE: Any = {
    "svg.hashsalt": "fedrec",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Picture:
    """A plot, and the figures that it shows."""

    file: str
    about: str
    figures: Any  # ready for JSON
    draw: Callable[["Figure"], None]

    @property
    def stamp(self) -> str:
        """A hash of the figures, which the plot's file contains: other figures are noticed without drawing."""
        return hashlib.sha256(json.dumps([self.about, self.figures]).encode()).hexdigest()


def pictures(result: Result) -> list[Picture]:
    """Return the plots of a benchmark's results."""
    if isinstance(result, AblationResult):
        return [_bytes_picture(result)] if result.preset.against_bytes else []
    curve = [_curve_picture(result)] if result.curve else []
    sent = [_run_bytes_picture(result)] if result.closed_forms and result.curve else []
    return curve + sent + ([_history_picture(result)] if result.by_history else [])


def _curve_picture(result: BenchmarkResult) -> Picture:
    central = result.central and result.central.validation
    pooled = central.ndcg_10.mean if central else None
    figures = {"curve": [point.to_json() for point in result.curve], "central": pooled}
    about = f"{title(result)}: NDCG@10 by rounds, and by what is sent"
    return Picture(f"{result.name}-curve.svg", about, figures, partial(_draw_curve, result.curve, pooled))


def _history_picture(result: BenchmarkResult) -> Picture:
    groups = _foremost(result.by_history)
    figures = [group.to_json() for group in groups]
    about = f"{title(result)}: NDCG@10 by length of history"
    return Picture(f"{result.name}-history.svg", about, figures, partial(_draw_history, groups))


def _bytes_picture(result: AblationResult) -> Picture:
    points = [
        BytesPoint(variant.group, variant.about, variant.bytes_up_per_client_round, variant.test.ndcg_10)
        for variant in result.variants
    ]
    about = f"{title(result)}: NDCG@10 by bytes a round"
    axis = BytesAxis(1000, "kB that a client sends in a round", "NDCG@10")
    return Picture(f"{result.name}-bytes.svg", about, points, partial(_draw_bytes, points, axis))


def _run_bytes_picture(result: BenchmarkResult) -> Picture:
    """Plot the towers after each validated round, and every other federated model at the end of its run."""
    towers = [
        BytesPoint(label("federated"), "", round(point.megabytes_up_per_client * 1e6), point.ndcg_10)
        for point in result.curve
    ]
    others = [
        BytesPoint(label(name), "", sent, model.validation.ndcg_10.mean)
        for name, model in (result.closed_forms | result.federated_baselines).items()
        if model.validation and name not in LEAKING and (sent := bytes_over_run(result, name, model))
    ]
    about = f"{title(result)}: NDCG@10 by bytes over a run"
    axis = BytesAxis(1e6, "MB that a client sends over a run, on average", "validation NDCG@10")
    points = towers + others
    return Picture(f"{result.name}-bytes.svg", about, points, partial(_draw_bytes, points, axis))


def _foremost(groups: Sequence[UserGroup]) -> list[UserGroup]:
    """Keep our models, popularity, and the best others, up to the number of distinguishable colours."""
    users = sum(group.users for group in groups)
    overall = {
        model: sum(group.users * group.ndcg_10[model] for group in groups) / users for model in groups[0].ndcg_10
    }
    always = [model for model in ALWAYS if model in overall]
    others = sorted((model for model in overall if model not in always), key=lambda model: -overall[model])
    shown = [model for model in overall if model in always + others[: len(COLOURS) - 1 - len(always)]]
    return [group.model_copy(update={"ndcg_10": {model: group.ndcg_10[model] for model in shown}}) for group in groups]


def save(picture: Picture, path: Path) -> None:
    """Draw a plot. Raises `InputError` if matplotlib is not installed."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib; install it with: pip install 'fedrec[plots]'") from error
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        picture.draw(figure)
        figure.suptitle(picture.about)
        metadata = {"Date": None, "Description": picture.stamp}
        figure.savefig(path, metadata=metadata if path.suffix == ".svg" else None, dpi=150)


def _draw_curve(curve: Sequence[CurvePoint], pooled: float | None, figure: "Figure") -> None:
    scores = [point.ndcg_10 for point in curve]
    columns = {
        "rounds": [point.round for point in curve],
        "MB that a client has sent, on average": [point.megabytes_up_per_client for point in curve],
    }
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (name, column) in zip(axes, columns.items(), strict=True):
        ax.plot(column, scores, color=COLOURS[0], label="federated")
        if pooled is not None:
            ax.axhline(pooled, color=COLOURS[6], linestyle="--", label="pooled data, at its best")
        ax.set_xlabel(name)
        ax.set_xlim(left=0)
    axes[0].set_ylabel("validation NDCG@10")
    axes[0].legend(loc="lower right")


def _draw_history(groups: Sequence[UserGroup], figure: "Figure") -> None:
    ax = figure.subplots()
    models = list(groups[0].ndcg_10)
    width = 0.8 / len(models)
    for number, model in enumerate(models):
        heights = [group.ndcg_10[model] for group in groups]
        places = [place + (number - (len(models) - 1) / 2) * width for place in range(len(groups))]
        ax.bar(places, heights, width, color=COLOURS[number % len(COLOURS)], label=label(model))
    ax.set_xticks(range(len(groups)), [f"{span(group)}\n{group.users:,} users" for group in groups])
    ax.set_xlabel("events before the test item")
    ax.grid(axis="x", visible=False)
    _add_legend_beside(ax)


class BytesPoint(NamedTuple):
    """A variant in the plot of quality against bytes."""

    group: str
    about: str
    bytes_sent: int
    ndcg: float


class BytesAxis(NamedTuple):
    """The axes of a plot of quality against bytes."""

    unit: float  # bytes
    about: str
    quality: str


def _draw_bytes(points: Sequence[BytesPoint], axis: BytesAxis, figure: "Figure") -> None:
    ax = figure.subplots()
    for number, group in enumerate(dict.fromkeys(point.group for point in points)):
        line = sorted((p.bytes_sent / axis.unit, p.ndcg, p.about) for p in points if p.group == group)
        colour = COLOURS[number % len(COLOURS)]
        ax.plot([sent for sent, _, _ in line], [score for _, score, _ in line], "o-", color=colour, label=group)
        for sent, score, about in line:
            ax.annotate(about, (sent, score), textcoords="offset points", xytext=(5, -10), fontsize=7, color=colour)
    sizes = [point.bytes_sent / axis.unit for point in points]
    ax.set_xscale("log")
    ax.set_xticks(ticks := _ticks(min(sizes), max(sizes)), [f"{tick:g}" for tick in ticks], minor=False)
    ax.set_xticks([], minor=True)
    ax.margins(0.1)
    ax.set_xlabel(axis.about)
    _add_legend_beside(ax)
    ax.set_ylabel(axis.quality)


def _ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten, approximately from `low` to `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for power in powers for step in (1, 2, 5) if low / 1.5 <= (tick := step * 10.0**power) <= high * 1.5]


def _add_legend_beside(ax: "Axes") -> None:
    ax.set_ylabel("NDCG@10")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
