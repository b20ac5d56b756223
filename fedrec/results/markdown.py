"""Figures as markdown: numbers as a reader wants them, names as a reader knows them, and tables of both."""

from collections.abc import Mapping, Sequence
from typing import Any

Figure = Mapping[str, Any] | float | None
"""A metric: over seeds, or one number, or not known."""

OURS = {
    "federated": ("**fedrec, federated**", "federated"),
    "central": ("the same model on pooled data", "centrally"),
    "refit": ("fedrec, trained on the validation items too", "federated"),
    "alone": ("the same model, each client alone", "alone"),
    "personal": ("fedrec, with a private part of each user's own", "federated"),
}
LABELS = {"fedmf": "FedMF", "pfedrec": "PFedRec", "pfedrec-leak": "PFedRec with the leak of its code"}


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
