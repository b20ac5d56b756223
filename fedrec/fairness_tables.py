"""The fairness report as tables for the terminal."""

from collections.abc import Iterable, Iterator
from itertools import groupby, zip_longest

from rich.table import Column, Table

from fedrec.console import figures, table, words
from fedrec.fairness import Fairness
from fedrec.recsys.evaluation.fairness import FairnessReport, GroupDifference, GroupQuality

NAME_WIDTH = 22


def build_tables(fairness: Fairness) -> Iterator[Table]:
    """Build a table of quality for each way to group, and one of exposure; another run's figures are beside them."""
    paired = zip_longest(fairness.report.quality, fairness.differences)
    for by, rows in groupby(paired, key=lambda pair: pair[0].by):
        yield _quality_table(by, rows, compared=bool(fairness.differences))
    yield _exposure_table(fairness.report, fairness.against)


def _quality_table(by: str, rows: Iterable[tuple[GroupQuality, GroupDifference | None]], compared: bool) -> Table:
    columns = [figures("users"), figures("ndcg@10"), _interval(), figures("recall@10"), _interval()]
    others = [figures("against"), figures("difference"), _interval(signs=2)] if compared else []
    shown = table(words("", NAME_WIDTH), *columns, *others, title=f"test items, users by {by}")
    for row, other in rows:
        ndcg = f"{row.ndcg:.4f}", f"{row.ndcg_low:.4f} to {row.ndcg_high:.4f}"
        recall = f"{row.recall:.4f}", f"{row.recall_low:.4f} to {row.recall_high:.4f}"
        shown.add_row(row.group, f"{row.users:,}", *ndcg, *recall, *(_difference(other) if other else ()))
    return shown


def _difference(row: GroupDifference) -> tuple[str, str, str]:
    return f"{row.against:.4f}", f"{row.difference:+.4f}", f"{row.low:+.4f} to {row.high:+.4f}"


def _exposure_table(report: FairnessReport, against: FairnessReport | None) -> Table:
    columns = figures("items"), figures("of events"), figures("of top 10s")
    title = f"items by popularity: Gini {report.gini:.3f}, coverage {report.coverage:.3f}"
    if against:
        title += f"; against: Gini {against.gini:.3f}, coverage {against.coverage:.3f}"
    shown = table(words("", NAME_WIDTH), *columns, *([figures("against")] if against else []), title=title)
    others = [f"{other.recommendations:.1%}" for other in against.exposure] if against else []
    for place, part in enumerate(report.exposure):
        cells = f"{part.items:,}", f"{part.events:.1%}", f"{part.recommendations:.1%}"
        shown.add_row(part.part, *cells, *others[place : place + 1])
    return shown


def _interval(signs: int = 0) -> Column:
    return figures("95 %", len("0.0000 to 0.0000") + signs)
