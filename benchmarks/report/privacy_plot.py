"""The plot of utility under differential privacy."""

import math
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.report.plots import COLOURS, Picture
from benchmarks.report.privacy import PrivacyResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def privacy_picture(result: PrivacyResult) -> Picture:
    """Plot NDCG@10 against ε: a panel for each dataset, a line for each number of neighbours."""
    panels: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for world in result.worlds:
        line = [(point.epsilon, point.ndcg_10) for point in world.points]
        panels.setdefault(world.name, {})[world.neighbours] = [*line, (math.inf, world.without_privacy)]
    about = "NDCG@10 under differential privacy, by the neighbours with which an item is counted"
    return Picture("privacy.svg", about, panels, partial(_draw_panels, panels))


def _draw_panels(panels: dict[str, dict[int, list[tuple[float, float]]]], figure: "Figure") -> None:
    for ax, (name, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for colour, (neighbours, line) in zip(COLOURS, lines.items(), strict=False):
            epsilons, scores = zip(*line, strict=True)
            ax.plot(range(len(line)), scores, "o-", color=colour, label=f"{neighbours}")
            ax.set_xticks(range(len(line)), [f"{e:g}" if math.isfinite(e) else "∞" for e in epsilons])
        ax.set_title(name, fontsize="small")
        ax.set_xlabel("ε, for a user")
        ax.set_ylim(0, 1.1 * max(score for line in lines.values() for _, score in line))
    figure.axes[0].set_ylabel("NDCG@10")
    figure.axes[0].legend(title="neighbours", loc="lower right", fontsize="small", title_fontsize="small")
