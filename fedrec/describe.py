"""The description of a dataset as tables for the terminal, and as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from fedrec import console
from fedrec.data.description import HEADS, QUANTILES, Description, Spread
from fedrec.data.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE = "#0072b2", "#d55e00"
"""Distinguishable with any colour vision: Wong 2011, doi:10.1038/nmeth.1618."""

BINS = 40
WIDE = 20
"""The quotient of the largest and the least value from which an axis is logarithmic."""


def description_tables(about: Description) -> list[Table]:
    """Build the tables of a description: the splits, and the spreads."""
    parts = console.table("split", *map(console.figures, ("users", "events", "items", "mean history")))
    for name, part in about.parts.items():
        parts.add_row(name, f"{part.users:,}", f"{part.events:,}", f"{part.items:,}", f"{part.history:.1f}")
    names = [_quantile_name(share) for share in QUANTILES]
    spreads = console.table("", *map(console.figures, [*names, "mean"]))
    rows = {
        "events of a user": about.histories,
        "events of an item": about.popularity,
        "characters of a text": about.texts,
    }
    for name, spread in rows.items():
        spreads.add_row(name, *(f"{value:,}" for value in spread.quantiles), f"{spread.mean:,.1f}")
    return [parts, spreads]


def _quantile_name(share: float) -> str:
    return {0.0: "least", 0.5: "median", 1.0: "most"}.get(share, f"{share:.0%}")


def description_lines(about: Description) -> list[str]:
    """Describe in words what is in no table."""
    heads = ", ".join(f"the {share:.0%} most popular items {about.head_share(share):.0%}" for share in HEADS)
    untrained = int((about.popularity.values == 0).sum())
    times = f"{about.time_range[0]} to {about.time_range[1]}" if about.time_range else "not recorded"
    return [
        f"{about.name}: {about.users:,} users, {about.items:,} items, {about.events:,} events; "
        f"sparsity {about.sparsity:.2%}",
        f"times: {times}",
        f"shares of the training events: {heads}; {untrained:,} items have none",
        f"items known by their id alone: {about.bare_items:,}",
    ]


def plot_description(about: Description, file: Path) -> None:
    """Draw the spreads as a picture of four panels. Raises `InputError` if matplotlib is not installed."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("`plot` needs matplotlib: pip install 'fedrec[plots]'") from error
    style: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}
    with mpl.rc_context(style | {"axes.grid": True, "grid.alpha": 0.3}):
        picture = Figure(figsize=(9, 6.2), layout="constrained")
        picture.suptitle(
            f"{about.name}: {about.users:,} users, {about.items:,} items, {about.events:,} events, "
            f"sparsity {about.sparsity:.2%}"
        )
        axes = picture.subplots(2, 2)
        _draw_spread(axes[0, 0], about.histories, "training events of a user", "users")
        _draw_popularity(axes[0, 1], about)
        _draw_spread(axes[1, 0], about.texts, "characters of an item's text", "items")
        _draw_parts(axes[1, 1], about)
        try:
            picture.savefig(file, dpi=120)
        except (OSError, ValueError) as error:
            raise InputError(
                f"`plot` {file} cannot be written ({error}); give a file.png in a folder of yours"
            ) from error


def _draw_spread(axes: "Axes", spread: Spread, what: str, whose: str) -> None:
    """Draw a histogram, over a logarithmic axis if the values differ much, with the median."""
    least, most = max(1, int(spread.values[0])), max(2, int(spread.values[-1]))
    wide = most > WIDE * least
    edges = np.geomspace(least, most + 1, BINS) if wide else np.linspace(least, most + 1, BINS)
    axes.hist(np.maximum(spread.values, 1), bins=np.unique(np.round(edges)).tolist(), color=BLUE)
    axes.set(xscale="log" if wide else "linear", xlabel=what, ylabel=whose)
    median = spread.quantiles[QUANTILES.index(0.5)]
    axes.axvline(max(median, 1), color=ORANGE, label=f"median {median:,}")
    axes.legend(frameon=False)


def _draw_popularity(axes: "Axes", about: Description) -> None:
    """Draw which share of the events the most popular items have."""
    events = about.popularity.values[::-1].cumsum() / about.popularity.values.sum()
    axes.plot(np.arange(1, about.items + 1) / about.items, events, color=BLUE)
    axes.plot([0, 1], [0, 1], color="#555555", linewidth=0.8, linestyle=":")
    axes.set(xlabel="share of the items, the most popular first", ylabel="share of the training events")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))


def _draw_parts(axes: "Axes", about: Description) -> None:
    """Draw how many users each split has."""
    labels = [f"{name}\n{part.users:,}" for name, part in about.parts.items()]
    axes.barh(labels, [part.users for part in about.parts.values()], color=[BLUE, ORANGE, ORANGE])
    axes.invert_yaxis()
    axes.set(xlabel="users")
    axes.grid(visible=False, axis="y")
