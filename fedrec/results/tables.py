"""Figures as markdown: numbers as a reader wants them, and tables of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedrec.reproduce.preset import slug
from fedrec.results.files import Result, title

Figure = Mapping[str, Any] | float | None
"""A metric: over seeds, or one number, or not known."""

OURS = {
    "federated": ("**fedrec, federated**", "federated"),
    "central": ("the same model on pooled data", "centrally"),
    "alone": ("the same model, each client alone", "alone"),
    "personal": ("fedrec, then tuned on each device", "federated"),
}
LABELS = {"fedmf": "FedMF", "pfedrec": "PFedRec", "pfedrec-leak": "PFedRec with the leak of its code"}


@dataclass(frozen=True)
class Row:
    """One model's line in a benchmark's table."""

    model: str
    trained: str
    metrics: Mapping[str, Figure]
    how: str  # the part that makes it, or who published it
    note: str = ""

    def cells(self, names: Sequence[str]) -> list[str]:
        return [self.model + self.note, self.trained, *(figure(self.metrics.get(name)) for name in names), self.how]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; columns of numbers stand to the right."""
    right = [all(row[column][:1] in "0123456789–+−*" for row in rows) for column in range(len(header))]
    rules = ["---:" if numeric and column else "---" for column, numeric in enumerate(right)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rules, *rows])


def figure(value: Figure, digits: int = 4) -> str:
    """`0.0785 ± 0.0012`: the mean and the standard deviation over seeds, where there are several."""
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        spread = "" if value["sd"] is None else f" ± {value['sd']:.{digits}f}"
        return f"{value['mean']:.{digits}f}{spread}"
    return f"{value:.{digits}f}"


def middle(value: Figure) -> float:
    """The number to sort by."""
    return value["mean"] if isinstance(value, Mapping) else value or 0.0


def label(model: str) -> str:
    return OURS[model][0] if model in OURS else LABELS.get(model, model)


def rows(result: Result, published: Sequence[Result]) -> list[Row]:
    """All models of a benchmark: ours, those that were run beside it, best first, and others' figures."""
    ours = [Row(*OURS[name], result[name], f"`--part {name}`") for name in OURS if name in result]
    return [
        *ours,
        *sorted(_beside(result), key=lambda row: -middle(row.metrics["ndcg@10"])),
        *_theirs(result, published),
    ]


def _beside(result: Result) -> Iterator[Row]:
    for name, found in result.get("peers", {}).items():
        yield Row(label(name), "federated", found, f"`--part peer-{name}`")
    for name, found in result.get("baselines", {}).items():
        chosen = ", ".join(f"{key} = {value:g}" for key, value in found["tuning"]["chosen"].items())
        tuned = f" ({chosen}; of {len(found['tuning']['trials'])} tried)" if chosen else ""
        yield Row(label(name), "centrally", found, f"`--part baseline-{slug(name)}`", tuned)


def _theirs(result: Result, published: Sequence[Result]) -> Iterator[Row]:
    for found in published:
        if found["benchmark"] == result["name"]:
            rule = f"; {found['rule']}" if "rule" in found else ""
            trained = "federated" if found.get("federated") else "centrally"
            yield Row(found["model"], trained, found, found["source"] + rule, ", *as published*")


def comparisons(result: Result) -> str:
    """Who beats whom, as a list."""
    return "\n".join(f"* {_said(found)}" for found in result.get("comparisons", []))


def _said(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    verb = "beats" if low > 0 else "falls behind" if high < 0 else "cannot be told from"
    metric = found["metric"].replace("ndcg", "NDCG").replace("recall", "Recall")
    return (
        f"{label(found['a'])} {verb} {label(found['b'])}: {found['difference']:+.4f} {metric} "
        f"(95 % interval {low:+.4f} to {high:+.4f}, p = {found['p']:.4f})"
    ).replace("-0.", "−0.")


def by_history(result: Result) -> str:
    """NDCG@10 by the length of the history."""
    groups = result["by_history"]
    models = list(groups[0]["ndcg@10"])
    lines = [
        [span(group), f"{group['users']:,}", *(figure(group["ndcg@10"][model]) for model in models)] for group in groups
    ]
    return table(["events to learn from", "users", *map(label, models)], lines)


def span(group: Result) -> str:
    """How many events its users have: `short: 19 to 41`."""
    return f"{group['group']}: {group['from']:,} to {group['to']:,}"


def variants(result: Result) -> str:
    """What each variant gave and cost, in the order of the preset."""
    lines = [
        [
            found["group"],
            found["about"],
            figure(found["validation"]["ndcg@10"]),
            figure(found["test"]["ndcg@10"]),
            figure(found["test"]["recall@10"]),
            f"{found['adapter_parameters']:,}",
            f"{found['bytes_up_per_client_round'] / 1000:,.1f}",
        ]
        for found in result["variants"]
    ]
    header = ["what", "how", "validation NDCG@10", "NDCG@10", "Recall@10", "adapter", "kB a client sends a round"]
    return table(header, lines)


def summary(results: Sequence[Result], published: Sequence[Result]) -> str:
    """A line for each benchmark: federated beside pooled data, the best baseline, and the best that is published."""

    def best(rows: Iterator[Row] | list[Row]) -> str:
        first = max(rows, key=lambda row: middle(row.metrics.get("ndcg@10")), default=None)
        return f"{figure(first.metrics['ndcg@10'])} ({first.model})" if first else "–"

    lines = [
        [
            title(result),
            f"**{figure(result['federated']['ndcg@10'])}**" if "federated" in result else "–",
            figure(result["central"]["ndcg@10"]) if "central" in result else "–",
            best(row for row in _beside(result) if row.trained == "federated"),
            best(row for row in _beside(result) if row.trained == "centrally"),
            best(list(_theirs(result, published))),
        ]
        for result in results
    ]
    header = ["NDCG@10", "fedrec, federated", "the same on pooled data", "federated peer", "best baseline", "published"]
    return table(header, lines)
