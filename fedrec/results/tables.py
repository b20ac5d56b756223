"""What a benchmark found beside its main table: differences, groups of users, cold items, variants."""

from collections.abc import Mapping
from typing import Any

from fedrec.results.files import Result
from fedrec.results.markdown import figure, label, table

METRICS = ("ndcg@10", "recall@10")


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


def cold(result: Result) -> str:
    """Models on users whose held-out item is in no training event: among all items, and among such items alone."""
    lines = [
        [label(model), *(figure(found[among][metric]) for among in ("all", "cold") for metric in METRICS)]
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
