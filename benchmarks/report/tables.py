"""What a benchmark found beside its main table: differences, groups of users, cold items, variants."""

from collections.abc import Mapping
from typing import Any

from benchmarks.report.markdown import best_of, figure, label, table
from benchmarks.report.results_file import Result

METRICS = ("ndcg@10", "recall@10")

LEAKING = ("pfedrec-leak",)
"""Peers whose training can tell the held-out item: they show that the peers are fair, and compete with nobody."""


def comparisons(result: Result) -> str:
    """Who beats whom: the federated model against each other one, by each metric."""
    found = {(one["b"], one["metric"]): one for one in result["comparisons"]}
    others = dict.fromkeys(other for other, _ in found)
    lines = [[label(other), *(_said(found[other, metric]) for metric in METRICS)] for other in others]
    return table([f"{label('federated')} against", "NDCG@10", "Recall@10"], lines)


def _said(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    verdict = "better" if low > 0 else "worse" if high < 0 else "cannot be told"
    told = f"{verdict}: {found['difference']:+.4f} ({low:+.4f} to {high:+.4f}), p = {found['p']:.4f}"
    return told.replace("-", "−")


def by_history(result: Result) -> str:
    """NDCG@10 by the length of the history."""
    groups = result["by_history"]
    models = list(groups[0]["ndcg@10"])
    lines = []
    for group in groups:
        found = group["ndcg@10"]
        best = best_of(found[model] for model in models if model not in LEAKING)
        figures = (figure(found[model], None if model in LEAKING else best) for model in models)
        lines.append([span(group), f"{group['users']:,}", *figures])
    return table(["events before the test item", "users", *map(label, models)], lines)


def span(group: Result) -> str:
    """How many events its users have: `short: 19 to 41`."""
    shortest, longest = f"{group['from']:,}", f"{group['to']:,}"
    return f"{group['group']}: {shortest}" + (f" to {longest}" if longest != shortest else "")


def cold(result: Result) -> str:
    """Models on users whose held-out item is in no training event: among all items, and among such items alone."""
    columns = [(among, metric) for among in ("all", "cold") for metric in METRICS]
    best = {(among, m): best_of(found[among][m] for found in result["cold"].values()) for among, m in columns}
    lines = [
        [label(model), *(figure(found[among][m], best[among, m]) for among, m in columns)]
        for model, found in sorted(result["cold"].items(), key=lambda pair: -pair[1]["all"]["ndcg@10"])
    ]
    return table(
        ["model", *(f"{m} among {who}" for who in ("all", "the cold") for m in ("NDCG@10", "Recall@10"))], lines
    )


def sampled(peers: Result) -> str:
    """Peers' figures against 99 sampled items, in a line."""
    told = ((label(name), *(figure(found["sampled-99"][m]) for m in METRICS)) for name, found in peers.items())
    return "; ".join(f"{name} NDCG@10 {ndcg}, Recall@10 {recall}" for name, ndcg, recall in told)


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
