"""The figures of attacks as tables in the terminal."""

from collections.abc import Sequence

from benchmarks.attacks.attack import Column
from benchmarks.attacks.registry import ATTACKS
from benchmarks.attacks.results import AttackResult, CaseResult
from fedrec import console


def show_results(results: Sequence[AttackResult]) -> None:
    """Show a table for each attack."""
    for result in results:
        attack = ATTACKS[result.name]
        table = console.table("what is attacked", "defence", *(column.heading for column in attack.columns))
        for case in result.cases:
            table.add_row(*cells_of(case, attack.columns))
        console.show(table)


def cells_of(case: CaseResult, columns: Sequence[Column]) -> list[str]:
    """Return the cells of a row."""
    about = f"{case.about} (control)" if case.control else case.about
    if case.refused:
        return [about, case.defence, "refused", *[""] * (len(columns) - 1)]
    return [about, case.defence, *(format_figure(case.figures.get(column.name), column) for column in columns)]


def format_figure(value: float | None, column: Column) -> str:
    """Format a figure: `0.980`, `37.0 %`, or `1,000`."""
    if value is None or value != value:
        return "–"
    if column.count:
        return f"{value:,.0f}"
    return (f"{value:.1%}".replace("%", " %") if column.percent else f"{value:.3f}").replace("-", "−")
