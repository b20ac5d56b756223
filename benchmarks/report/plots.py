"""The pictures of the results: drawn by matplotlib, stamped with the figures that they show."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report.markdown import label
from benchmarks.report.results_file import Result, title
from benchmarks.report.tables import span
from fedrec.data.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
"""Told apart by all eyes: Wong 2011, doi:10.1038/nmeth.1618."""
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
    """A plot, and all that it shows."""

    file: str
    about: str
    shown: Any  # ready for JSON
    draw: Callable[["Figure", Any], None]

    @property
    def stamp(self) -> str:
        """Names the figures: it stands in the file, so that a plot of other figures is known without drawing it."""
        return hashlib.sha256(json.dumps([self.about, self.shown]).encode()).hexdigest()


def pictures(result: Result) -> Iterator[Picture]:
    """The plots that a benchmark's results give."""
    name = result["name"]
    if result.get("curve"):
        shown = {"curve": result["curve"], "central": _reference(result)}
        yield Picture(f"{name}-curve.svg", f"{title(result)}: NDCG@10 by rounds, and by what is sent", shown, _curve)
    if result.get("by_history"):
        about = f"{title(result)}: NDCG@10 by length of history"
        yield Picture(f"{name}-history.svg", about, _foremost(result["by_history"]), _history)
    if result["preset"].get("against_bytes"):
        shown = [
            [found["group"], found["about"], found["bytes_up_per_client_round"], found["test"]["ndcg@10"]]
            for found in result["variants"]
        ]
        yield Picture(f"{name}-bytes.svg", f"{title(result)}: NDCG@10 by bytes a round", shown, _bytes)


def _reference(result: Result) -> float | None:
    return result["central"]["validation"]["ndcg@10"]["mean"] if "central" in result else None


def _foremost(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of all models ours, the common bar, and the best others: as many as can be told apart."""
    users = sum(group["users"] for group in groups)
    overall = {
        model: sum(group["users"] * group["ndcg@10"][model] for group in groups) / users
        for model in groups[0]["ndcg@10"]
    }
    always = [model for model in ALWAYS if model in overall]
    others = sorted((model for model in overall if model not in always), key=lambda model: -overall[model])
    shown = [model for model in overall if model in always + others[: len(COLOURS) - 1 - len(always)]]
    return [group | {"ndcg@10": {model: group["ndcg@10"][model] for model in shown}} for group in groups]


def save(picture: Picture, path: Path) -> None:
    """Draw it. Raises `InputError` where matplotlib is not installed."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib; install it with: pip install 'fedrec[plots]'") from error
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        picture.draw(figure, picture.shown)
        figure.suptitle(picture.about)
        metadata = {"Date": None, "Description": picture.stamp}
        figure.savefig(path, metadata=metadata if path.suffix == ".svg" else None, dpi=150)


def _curve(figure: "Figure", shown: dict[str, Any]) -> None:
    columns = {"round": "rounds", "megabytes_up_per_client": "MB that a client has sent, on average"}
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (column, name) in zip(axes, columns.items(), strict=True):
        ax.plot(
            [point[column] for point in shown["curve"]],
            [point["ndcg@10"] for point in shown["curve"]],
            color=COLOURS[0],
            label="federated",
        )
        if shown["central"] is not None:
            ax.axhline(shown["central"], color=COLOURS[6], linestyle="--", label="pooled data, at its best")
        ax.set_xlabel(name)
        ax.set_xlim(left=0)
    axes[0].set_ylabel("validation NDCG@10")
    axes[0].legend(loc="lower right")


def _history(figure: "Figure", groups: list[dict[str, Any]]) -> None:
    ax = figure.subplots()
    models = list(groups[0]["ndcg@10"])
    width = 0.8 / len(models)
    for number, model in enumerate(models):
        heights = [group["ndcg@10"][model] for group in groups]
        places = [place + (number - (len(models) - 1) / 2) * width for place in range(len(groups))]
        ax.bar(places, heights, width, color=COLOURS[number % len(COLOURS)], label=label(model))
    ax.set_xticks(range(len(groups)), [f"{span(group)}\n{group['users']:,} users" for group in groups])
    ax.set_xlabel("events before the test item")
    ax.grid(axis="x", visible=False)
    _legend_beside(ax)


def _bytes(figure: "Figure", shown: list[list[Any]]) -> None:
    ax = figure.subplots()
    for number, group in enumerate(dict.fromkeys(row[0] for row in shown)):
        points = sorted((sent / 1000, score, about) for name, about, sent, score in shown if name == group)
        colour = COLOURS[number % len(COLOURS)]
        ax.plot([p[0] for p in points], [p[1] for p in points], "o-", color=colour, label=group)
        for sent, score, about in points:
            ax.annotate(about, (sent, score), textcoords="offset points", xytext=(5, -10), fontsize=7, color=colour)
    sizes = [sent / 1000 for _, _, sent, _ in shown]
    ax.set_xscale("log")
    ax.set_xticks(ticks := _ticks(min(sizes), max(sizes)), [f"{tick:g}" for tick in ticks], minor=False)
    ax.set_xticks([], minor=True)
    ax.margins(0.1)
    ax.set_xlabel("kB that a client sends in a round")
    _legend_beside(ax)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten, about from `low` to `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for power in powers for step in (1, 2, 5) if low / 1.5 <= (tick := step * 10.0**power) <= high * 1.5]


def _legend_beside(ax: "Axes") -> None:
    ax.set_ylabel("NDCG@10")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
