"""The page: what a run, its log and its artifact say, rendered by a template with everything inside.

Nothing in it is about one user: metrics are means, counts are over all users, and examples begin from public items.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedrec import console
from fedrec.data.dataset import Dataset
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.federation import round_log
from fedrec.federation.config import RunConfig, to_flat
from fedrec.recsys.card import SERVABLE
from fedrec.recsys.evaluation.fairness import FairnessReport, report_fairness
from fedrec.run import Run
from fedrec.run_report.charts import Chart, draw_curves, draw_groups, draw_traffic, draw_worth
from fedrec.run_report.item_examples import Example, item_examples
from fedrec.run_report.item_map import ItemMap, map_items

TEMPLATE = "page.html.jinja"
SHOWN_METRICS = ("ndcg@10", "recall@10", "recall@20", "mrr", "coverage@10")


@dataclass(frozen=True)
class Wanted:
    """The parts of a report that are measured anew, on a dataset."""

    dataset: Dataset | None = None
    groups: bool = False
    nodes: bool = False


@dataclass(frozen=True, eq=False)
class RunReport:
    """What the page tells of a run."""

    run: Run
    wanted: Wanted = Wanted()

    @property
    def card(self) -> Any:
        """The run's card."""
        return self.run.card

    @property
    def method(self) -> str:
        """The method that the run was trained by."""
        return self.run.config.method

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The log of the rounds; empty for an exported run."""
        return round_log.read(self.run.folder)

    @cached_property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The final metrics by split, and protocol if there are several; empty if nothing was measured."""
        if not self.card.get("finished"):
            return {}
        found = self.run.metrics_by_protocol.items()
        return {s if p == "full" else f"{s}, {p}": by_name for s, of in found for p, by_name in of.items()}

    @cached_property
    def bytes_crossed(self) -> int:
        """All bytes that crossed, both ways; 0 if the log does not say, as under differential privacy."""
        return sum(int(record["bytes_down"] + record["bytes_up"]) for record in self.records)

    @property
    def settings(self) -> list[tuple[str, Any, bool]]:
        """Each setting: name, value, and whether it is the default."""
        defaults = to_flat(RunConfig())
        return [(name, value, value == defaults[name]) for name, value in to_flat(self.run.config).items()]

    @cached_property
    def fairness(self) -> FairnessReport | None:
        """The quality for groups of users on the test items, if it is wanted."""
        if not (self.wanted.groups and self.wanted.dataset):
            return None
        dataset = self.wanted.dataset
        return report_fairness(self.run.rank_held_out(dataset, "full", "test"), dataset, "test")

    @cached_property
    def worth(self) -> list[dict[str, Any]]:
        """The worth of each node to the closed form, if it is wanted."""
        return self.run.contributions(self.wanted.dataset).to_dicts() if self.wanted.nodes else []

    @cached_property
    def charts(self) -> dict[str, Chart]:
        """The drawings by name; one without figures is left out."""
        drawn = {
            "curves": draw_curves(self.records, self.card.get("best_round")),
            "traffic": draw_traffic(self.records),
            "groups": draw_groups(self.fairness),
            "worth": draw_worth(self.worth),
        }
        return {name: chart for name, chart in drawn.items() if chart}

    @property
    def has_items(self) -> bool:
        """Whether there is an artifact with items to show."""
        return bool(self.card.get("finished")) and self.method in SERVABLE

    @cached_property
    def item_map(self) -> ItemMap | None:
        """The map of the item vectors."""
        return map_items(self.run.recommender, self.method) if self.has_items else None

    @cached_property
    def examples(self) -> list[Example]:
        """The neighbours of some items."""
        return item_examples(self.run) if self.has_items else []


def write_report(run: Run, out: str | Path, wanted: Wanted = Wanted()) -> None:
    """Write the report of a run to a file. Raises `InputError` if the extra `plots` is not installed."""
    page = render_page(RunReport(run, wanted))
    with replaced_file(Path(out)) as partial:
        partial.write_text(page, "utf-8")


def render_page(report: RunReport) -> str:
    """Render the page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=True,  # titles and names come from anywhere
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"thousands": "{:,}".format, "size": console.size, "percent": "{:.1%}".format}
    measured = [name for name in SHOWN_METRICS if any(name in found for found in report.metrics.values())]
    return environment.get_template(TEMPLATE).render(report=report, shown=measured)
