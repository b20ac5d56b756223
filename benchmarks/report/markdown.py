"""Figures, names and tables as markdown."""

from collections.abc import Iterable, Sequence

from benchmarks.results_file import Comparison, MeanAndStd, UserGroup

DIGITS = 4

Figure = MeanAndStd | float | None
"""A metric over seeds, a single value, or unknown."""

OURS = {
    "federated": ("fedrec, federated", "federated"),
    "central": ("the same model on pooled data", "centrally"),
    "refit": ("fedrec, trained on the validation items too", "federated"),
    "alone": ("the same model, each client alone", "alone"),
    "personal": ("fedrec, personalised on each device", "federated"),
}
"""Our models: family → the label, and how it is trained."""

LABELS = {
    "closed-form-ids": "fedrec, closed form over ids",
    "closed-form-text": "fedrec, closed form over texts",
    "hybrid": "fedrec, towers and closed form",
    "hybrid-text": "fedrec, towers and closed form over texts, in few bytes",
    "fedmf": "FedMF",
    "pfedrec": "PFedRec",
    "pfedrec-leak": "PFedRec with the leak of its code",
}

SHORT = {
    "closed-form-ids": "ids",
    "closed-form-text": "texts",
    "hybrid": "hybrid",
    "hybrid-text": "hybrid in few bytes",
}
"""Models with a closed form → their names in a table of these alone."""

LEAKING = ("pfedrec-leak",)
"""Federated baselines whose training reveals the test item: shown for reference, excluded from comparisons."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Build a markdown table; columns of numbers are aligned to the right."""
    right = [all(row[column][:1] in "0123456789–+−*" for row in rows) for column in range(len(header))]
    rules = ["---:" if numeric and column else "---" for column, numeric in enumerate(right)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rules, *rows])


def figure(value: Figure, best: float | None = None) -> str:
    """Format `0.0785 ± 0.0012`: the mean, and the deviation over several seeds. In bold if it is `best`."""
    if value is None:
        return "–"
    deviation = f" ± {value.sd:.{DIGITS}f}" if isinstance(value, MeanAndStd) and value.sd is not None else ""
    text = f"{mean_of(value):.{DIGITS}f}{deviation}"
    return f"**{text}**" if round(mean_of(value), DIGITS) == best else text


def best_of(values: Iterable[Figure]) -> float | None:
    """Return the highest value as it is printed, so that equal figures tie; None if there are not two to compare."""
    printed = [round(mean_of(value), DIGITS) for value in values if value is not None]
    return max(printed) if len(printed) > 1 else None


def mean_of(value: Figure) -> float:
    """Return the number to sort by."""
    return value.mean if isinstance(value, MeanAndStd) else value or 0.0


def label(model: str) -> str:
    """Return a model's name as readers know it."""
    return OURS[model][0] if model in OURS else LABELS.get(model, model)


def verdict(one: Comparison) -> str:
    """Describe a difference: `better: +0.0400 (+0.0300 to +0.0500), p = 0.0001`."""
    low, high = one.interval
    word = "better" if low > 0 else "worse" if high < 0 else "not clear"
    return f"{word}: {one.difference:+.4f} ({low:+.4f} to {high:+.4f}), p = {one.p:.4f}".replace("-", "−")


def span(group: UserGroup) -> str:
    """Describe a group by the lengths of its histories: `short: 19 to 41`."""
    shortest, longest = f"{group.from_:,}", f"{group.to:,}"
    return f"{group.group}: {shortest}" + (f" to {longest}" if longest != shortest else "")
