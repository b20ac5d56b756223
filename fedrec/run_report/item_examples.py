"""Examples of a model's answers that begin from public items: nobody's history is shown."""

from dataclasses import dataclass

from fedrec.run import Run
from fedrec.run_report.item_map import popular_rows

COUNT, LISTED = 6, 5
"""Examples, and items in each list."""


@dataclass(frozen=True)
class Example:
    """An item, its neighbours, and what is recommended after it alone."""

    title: str
    similar: list[str]
    following: list[str]


def item_examples(run: Run) -> list[Example]:
    """Return examples of the most popular items of a run's catalogue."""
    catalogue = run.recommender.catalogue
    return [_example(run, catalogue.ids[row], catalogue.titles[row]) for row in popular_rows(catalogue, COUNT)]


def _example(run: Run, item_id: str, title: str) -> Example:
    similar = run.similar(item_id, LISTED)["title"].to_list()
    return Example(title, similar, run.recommend(history=[item_id], k=LISTED)["title"].to_list())
