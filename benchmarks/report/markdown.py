"""Figures as markdown: numbers as a reader wants them, names as a reader knows them, and tables of both."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

DIGITS = 4

Figure = Mapping[str, Any] | float | None
"""A metric: over seeds, or one number, or not known."""

OURS = {
    "federated": ("fedrec, federated", "federated"),
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


def figure(value: Figure, best: float | None = None) -> str:
    """`0.0785 ± 0.0012`: the mean and the standard deviation over seeds, where there are several. In bold if `best`."""
    if value is None:
        return "–"
    spread = f" ± {value['sd']:.{DIGITS}f}" if isinstance(value, Mapping) and value["sd"] is not None else ""
    text = f"{middle(value):.{DIGITS}f}{spread}"
    return f"**{text}**" if round(middle(value), DIGITS) == best else text


def best_of(values: Iterable[Figure]) -> float | None:
    """The highest as it is printed, so that equals are equal; None if there are not two to compare."""
    known = [round(middle(value), DIGITS) for value in values if value is not None]
    return max(known) if len(known) > 1 else None


def middle(value: Figure) -> float:
    """The number to sort by."""
    return value["mean"] if isinstance(value, Mapping) else value or 0.0


def label(model: str) -> str:
    return OURS[model][0] if model in OURS else LABELS.get(model, model)
