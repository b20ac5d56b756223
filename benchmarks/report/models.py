"""Every model of a benchmark on a line: ours, those that were run beside it, and what others report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from benchmarks.report.markdown import OURS, Figure, best_of, figure, label, middle, table
from benchmarks.report.results_file import Result, title
from benchmarks.report.tables import LEAKING
from benchmarks.reproduce.preset import slug

UNTRAINED = ("random", "text neighbours")
"""Baselines that learn from nobody."""


@dataclass(frozen=True)
class Row:
    """One model's line in a benchmark's table."""

    model: str
    trained: str
    metrics: Mapping[str, Figure]
    how: str  # the part that makes it, or who published it
    note: str = ""
    competes: bool = True  # for the best of a column


def rows(result: Result, published: Sequence[Result]) -> list[Row]:
    """All models of a benchmark: ours, those that were run beside it, best first, and others' figures."""
    ours = [Row(*OURS[name], result[name], f"`--part {name}`", tuned(result[name])) for name in OURS if name in result]
    return [
        *ours,
        *sorted(chain(_peers(result), _baselines(result)), key=lambda row: -middle(row.metrics["ndcg@10"])),
        *_theirs(result, published),
    ]


def cells(rows: Sequence[Row], names: Sequence[str]) -> list[list[str]]:
    """The lines of a table, the best of each metric's column in bold."""
    best = {name: best_of(row.metrics.get(name) for row in rows if row.competes) for name in names}
    return [
        [
            row.model + row.note,
            row.trained,
            *(figure(row.metrics.get(name), best[name] if row.competes else None) for name in names),
            row.how,
        ]
        for row in rows
    ]


def tuned(found: Result) -> str:
    """What validation chose, where it had a choice: ` (ridge = 200; of 5 tried)`."""
    tuning = found.get("tuning", {"chosen": {}, "trials": []})
    if tuning["chosen"].get("steps") == 0 and len(tuning["trials"]) > 1:
        without, *tried = sorted(tuning["trials"], key=lambda trial: trial["settings"]["steps"])
        best = f"{max(trial['ndcg@10'] for trial in tried):.4f} at best, of {len(tried)} tried"
        return f" (left out: on validation {best}, and {without['ndcg@10']:.4f} without)"
    chosen = ", ".join(f"{name} = {_setting(value)}{_edge(name, tuning)}" for name, value in tuning["chosen"].items())
    return f" ({chosen}; of {len(tuning['trials'])} tried)" if chosen else ""


def _edge(name: str, tuning: Result) -> str:
    """Says where the choice lies at the edge of what was tried, so that more might be better: ` (the least)`."""
    chosen, tried = tuning["chosen"][name], [trial["settings"][name] for trial in tuning["trials"]]
    if isinstance(chosen, list) or len(set(tried)) < 2:
        return ""
    least = chosen == min(tried) and chosen not in (0, 1)  # whose like has nothing below
    return " (the least)" if least else " (the most)" if chosen == max(tried) else ""


def _setting(value: Any) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else f"{value:g}"


def _peers(result: Result, fair: bool = False) -> Iterator[Row]:
    """Those that are `fair` alone: the leak tells training which item is held out."""
    for name, found in result.get("peers", {}).items():
        if fair and name in LEAKING:
            continue
        sent = f" ({found['rounds']} rounds, {found['bytes_up_per_client_round'] / 1000:,.1f} kB each)"
        yield Row(label(name), "federated", found, "`--part peers`", sent, competes=name not in LEAKING)


def _baselines(result: Result) -> Iterator[Row]:
    for name, found in result.get("baselines", {}).items():
        trained = "not at all" if name in UNTRAINED else "centrally"
        yield Row(label(name), trained, found, f"`--part baseline-{slug(name)}`", tuned(found))


def _theirs(result: Result, published: Sequence[Result]) -> Iterator[Row]:
    for found in published:
        if found["benchmark"] == result["name"]:
            rule = f"; {found['rule']}" if "rule" in found else ""
            trained = "federated" if found.get("federated") else "centrally"
            note = f", *{found.get('kind', 'as published')}*"
            yield Row(found["model"], trained, found, found["source"] + rule, note)


def summary(results: Sequence[Result], published: Sequence[Result]) -> str:
    """A line for each benchmark that has more models than ours: federated beside pooled data, the best peer without a
    leak, the best baseline, and the best that is published: not what is known in another way. The best is in bold."""
    header = [
        "NDCG@10",
        "fedrec, federated",
        "the same on pooled data",
        "best federated peer",
        "best baseline",
        "published",
    ]
    return table(header, [_line(result, published) for result in results if len(rows(result, published)) > 1])


def _line(result: Result, published: Sequence[Result]) -> list[str]:
    ours = [result[name]["ndcg@10"] if name in result else None for name in ("federated", "central")]
    named = [found for found in published if "kind" not in found]
    firsts = [_first(found) for found in (_peers(result, fair=True), _baselines(result), _theirs(result, named))]
    best = best_of([*ours, *(value for value, _ in firsts)])
    return [
        title(result),
        *(figure(value, best) for value in ours),
        *(f"{figure(value, best)}{name}" for value, name in firsts),
    ]


def _first(rows: Iterator[Row]) -> tuple[Figure, str]:
    """The highest NDCG@10, and whose it is; None and nothing if there is no row."""
    first = max(rows, key=lambda row: middle(row.metrics.get("ndcg@10")), default=None)
    return (first.metrics["ndcg@10"], f" ({first.model})") if first else (None, "")
