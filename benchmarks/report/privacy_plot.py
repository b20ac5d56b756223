"""The plot of utility under differential privacy."""

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.report.plots import COLOURS, Picture
from benchmarks.report.privacy import PrivacyResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def privacy_picture(result: PrivacyResult) -> Picture:
    """Plot what is kept of the NDCG@10 without noise, against ε."""
    kept = {
        world.name: [(p.epsilon, p.ndcg_10 / world.without_privacy) for p in world.points] for world in result.worlds
    }
    about = "NDCG@10 under differential privacy, as a share of that without"
    return Picture("privacy.svg", about, kept, partial(_draw_kept, kept))


def _draw_kept(kept: dict[str, list[tuple[float, float]]], figure: "Figure") -> None:
    ax = figure.subplots()
    for colour, (name, points) in zip(COLOURS, kept.items(), strict=False):
        ax.plot([epsilon for epsilon, _ in points], [share for _, share in points], "o-", color=colour, label=name)
    ax.axhline(1.0, color=COLOURS[6], linestyle="--", linewidth=1)
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks := [epsilon for epsilon, _ in next(iter(kept.values()))], [f"{tick:g}" for tick in ticks])
    ax.set_xlabel("ε, for a user")
    ax.set_ylabel("NDCG@10 that is kept")
    ax.legend(loc="lower right")
