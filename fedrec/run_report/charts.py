"""The drawings of a report: SVG by matplotlib, in the colours of the page, light or dark."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from fedrec.data.errors import InputError
from fedrec.federation.rounds import SCORE
from fedrec.recsys.evaluation.fairness import FairnessReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Chart = Markup
INK, SERIES = "#010203", ("#010211", "#010212", "#010213")
"""Colours that stand for those of the page: of text and axes, and of what is drawn."""

PAGE_COLOURS = {INK: "currentColor"} | {colour: f"var(--series-{n})" for n, colour in enumerate(SERIES, start=1)}
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text, in the font of the page
    "svg.hashsalt": "fedrec",
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "legend.frameon": False,
}


def draw_svg(draw: Callable[["Figure"], None], width: float, height: float) -> Chart:
    """Draw an SVG of a size in inches. Raises `InputError` if matplotlib is not installed."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("a report needs the package matplotlib; install it by pip install 'fedrec[plots]'") from error
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(file := io.StringIO(), format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    for stand_in, colour in PAGE_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return Markup(svg)  # matplotlib escapes the texts in it


def draw_curves(records: Sequence[Mapping[str, Any]], best: int | None) -> Chart | None:
    """Draw the loss and NDCG@10 on validation by round; None if there is neither.

    Rounds in which candidates of a closed form are tried are drawn apart from those that train.
    """
    losses = [(record["round"], record["loss"]) for record in records if record["loss"] is not None]
    scored = [record for record in records if record["validation"]]
    trained = [_score_of(record) for record in scored if "candidate" not in record]
    tried = [_score_of(record) for record in scored if "candidate" in record]
    if not (losses or scored):
        return None

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(1, bool(losses) + bool(scored), squeeze=False)[0]
        if losses:
            panels[0].plot(*zip(*losses, strict=True), color=SERIES[0], lw=1.6)
            panels[0].set(xlabel="round", ylabel="training loss")
        if scored:
            _draw_scores(panels[-1], trained, tried, best)

    return draw_svg(draw, 8.4, 2.7)


def _score_of(record: Mapping[str, Any]) -> tuple[int, float]:
    return record["round"], record["validation"][SCORE]


def _draw_scores(
    axes: "Axes", trained: list[tuple[int, float]], tried: list[tuple[int, float]], best: int | None
) -> None:
    """Draw NDCG@10 on validation, and mark the round that was kept."""
    if trained:
        axes.plot(*zip(*trained, strict=True), "o-", color=SERIES[0], ms=4, lw=1.6, label="trained")
    if tried:
        axes.plot(*zip(*tried, strict=True), "s", color=SERIES[1], ms=4, label="with a closed form")
    if kept := [point for point in (*trained, *tried) if point[0] == best]:
        axes.plot(*kept[-1], "o", ms=11, mfc="none", mec=INK, label=f"kept: {kept[-1][1]:.4f}")
    axes.set(xlabel="round", ylabel="NDCG@10 on validation")
    axes.legend(loc="best")


def draw_traffic(records: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Draw the bytes of each round, and those of all rounds so far; None if the log has no bytes."""
    rounds = [record["round"] for record in records]
    up, down = ([record[name] / 1e6 for record in records] for name in ("bytes_up", "bytes_down"))
    if not sum(up) + sum(down):
        return None

    def draw(figure: "Figure") -> None:
        each, whole = figure.subplots(1, 2)
        total = 0.0
        crossed = [total := total + a + b for a, b in zip(up, down, strict=True)]
        each.plot(rounds, down, color=SERIES[0], lw=1.6, label="to the nodes")
        each.plot(rounds, up, color=SERIES[1], lw=1.6, label="from the nodes")
        each.set(xlabel="round", ylabel="MB in a round", ylim=(0, None))
        each.legend(loc="best")
        whole.fill_between(rounds, crossed, color=SERIES[2], alpha=0.25, lw=0)
        whole.plot(rounds, crossed, color=SERIES[2], lw=1.6)
        whole.set(xlabel="round", ylabel="MB so far, both ways", ylim=(0, None))

    return draw_svg(draw, 8.4, 2.5)


def draw_groups(report: FairnessReport | None) -> Chart | None:
    """Draw NDCG@10 of each group of users with its interval; None without a report."""
    if report is None:
        return None
    groups = report.quality
    labels = [f"{one.by}: {one.group} ({one.users:,})" for one in groups]

    def draw(figure: "Figure") -> None:
        axes, places = figure.subplots(), range(len(groups), 0, -1)
        axes.barh(places, [one.ndcg for one in groups], color=SERIES[0], alpha=0.8, height=0.62)
        spans = [one.ndcg_low for one in groups], [one.ndcg_high for one in groups]
        axes.hlines(places, *spans, color=INK, lw=1.1)
        axes.set_yticks(places, labels)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="NDCG@10 on the test, with 95 % intervals")

    return draw_svg(draw, 8.4, 0.9 + 0.24 * len(groups))


def draw_worth(nodes: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Draw what NDCG@10 loses without each node; None without nodes."""
    if not nodes:
        return None

    def draw(figure: "Figure") -> None:
        axes, places = figure.subplots(), range(len(nodes), 0, -1)
        axes.barh(places, [node["worth"] for node in nodes], color=SERIES[2], height=0.62)
        axes.axvline(0, color=INK, lw=0.8)
        axes.set_yticks(places, [f"node {node['node']} ({node['users']:,} users)" for node in nodes])
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="NDCG@10 lost without the node")

    return draw_svg(draw, 8.4, 0.9 + 0.24 * len(nodes))
