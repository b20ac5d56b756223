"""Groups of users and of items: by length of history, activity, popularity, and the catalogue's public columns.

A group is a mask over the ranked users; groups by a column of several values to an item overlap.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.popularity import POPULARITY
from fedrec.recsys.evaluation.ranking import metric_means, metric_sums

NAMES = ("short", "middle", "long")
SHARES = ("head", "middle", "tail")
"""The items with the first, second and last third of the training events, the most popular first."""

ACTIVE = 0.05
"""The share of users who count as the most active (Li et al. 2021, doi:10.1145/3442381.3449866)."""
MAX_VALUES, SHOWN_VALUES = 50, 8
"""Distinct values of a column of text that is grouped by, at most, and the most frequent of them, which are groups."""
SEPARATOR = "|"
"""The character between several values of one item, such as its genres."""
NO_GROUPS = {"item_id", "title", "text", "cold", POPULARITY}
"""Columns that are no ground for groups: names, free text, and what other groups show."""

Masks = dict[str, np.ndarray]
"""Name of a group → which of the users are in it: (U,) of bool."""


@dataclass(frozen=True)
class Group:
    """Users with histories of similar length, and the metrics over them."""

    name: str
    shortest: int  # events
    longest: int  # events, inclusive
    users: int
    metrics: dict[str, float]


def by_length(lengths: np.ndarray, ranks: np.ndarray) -> list[Group]:
    """Group users into thirds by the length of their histories, the short first: lengths (U,) in events, ranks (U,).

    Users of one length stay together. So thirds are uneven if many lengths are equal, and one may be missing.
    """
    masks = split_in_thirds(lengths)
    return [_measure_group(NAMES[third], lengths[mask], ranks[mask]) for third, mask in enumerate(masks) if mask.any()]


def split_in_thirds(values: np.ndarray) -> list[np.ndarray]:
    """Split users into thirds by a value, the low first, equal values together: (U,) → three masks, or none."""
    if not len(values):
        return []
    bounds = np.quantile(values, [1 / 3, 2 / 3], method="inverted_cdf")
    third = np.searchsorted(bounds, values)  # 0, 1 or 2; a bound itself belongs below
    return [third == number for number in range(3)]


def _measure_group(name: str, lengths: np.ndarray, ranks: np.ndarray) -> Group:
    metrics = metric_means(metric_sums(ranks))
    users = int(metrics.pop("users"))
    return Group(name, int(lengths.min()), int(lengths.max()), users, metrics)


def group_users(dataset: Dataset, users: np.ndarray, split: str) -> dict[str, Masks]:
    """Group ranked users (U,) in every way that a dataset offers: what the groups are by → the groups.

    By history and activity, which are the user's own; by the popularity of the held-out item; and by each public column
    of that item with few values. (Datasets have no public columns of users.) Empty groups are left out.
    """
    shard = dataset.shard
    lengths = np.array([len(shard.history(user, split)) for user in users], dtype=np.int64)
    held_out = shard.held_out(users, split)
    groups = {
        "length of history": _named_thirds(lengths, "events"),
        "activity": _by_activity(lengths),
        "popularity of the held-out item": {
            name: mask[held_out] for name, mask in split_by_popularity(count_events(dataset)).items()
        },
    }
    for column, masks in _group_items(dataset.catalogue).items():
        groups[f"{column} of the held-out item"] = {name: mask[held_out] for name, mask in masks.items()}
    filled = {by: {name: mask for name, mask in masks.items() if mask.any()} for by, masks in groups.items()}
    return {by: masks for by, masks in filled.items() if masks}


def count_events(dataset: Dataset) -> np.ndarray:
    """Count the training events of each item: (N,)."""
    return np.bincount(dataset.shard.events("train")[1], minlength=len(dataset.catalogue))


def split_by_popularity(events: np.ndarray) -> Masks:
    """Split items into head, middle and tail, by thirds of all events (N,): items without any are in the tail.

    An item belongs to the third in which its first event lies, so that the head has at least one item.
    """
    order = np.argsort(-events, kind="stable")
    before = np.empty(len(events))
    before[order] = np.cumsum(events[order]) - events[order]
    third = np.minimum(2, 3 * before // max(1, events.sum())).astype(np.int64)
    third[events == 0] = 2
    return {name: third == number for number, name in enumerate(SHARES)}


def _by_activity(lengths: np.ndarray) -> Masks:
    """Separate the users with the longest histories, a share `ACTIVE` of all or few more, from the others."""
    if not len(lengths):
        return {}
    least = np.quantile(lengths, 1 - ACTIVE, method="inverted_cdf")
    active = lengths > least if (lengths > least).any() else lengths >= least
    return {f"most active {ACTIVE:.0%}": active, "all others": ~active}


def _named_thirds(values: np.ndarray, unit: str = "") -> Masks:
    """Split by thirds of a value, each named by its range."""
    masks = [mask for mask in split_in_thirds(values) if mask.any()]
    return {f"{values[m].min():g} to {values[m].max():g} {unit}".rstrip(): m for m in masks}


def _group_items(catalogue: Catalogue) -> dict[str, Masks]:
    """Group the items by each public column: thirds of numbers, or the most frequent values of text."""
    groups: dict[str, Masks] = {}
    for column in catalogue.frame.iter_columns():
        build: Callable[[pl.Series], Masks] | None = None
        if column.dtype.is_numeric():
            build = _numeric_groups
        elif column.dtype == pl.String:
            build = _value_groups
        if build and column.name not in NO_GROUPS and (masks := build(column)):
            groups[column.name] = masks
    return groups


def _numeric_groups(column: pl.Series) -> Masks:
    """Split items by thirds of a number; those without one are a group of their own."""
    known = column.is_not_null().to_numpy() & column.is_finite().fill_null(False).to_numpy()
    masks: Masks = {}
    for name, mask in _named_thirds(column.to_numpy()[known].astype(np.float64)).items():
        masks[name] = np.zeros(len(column), dtype=bool)
        masks[name][known] = mask
    return masks | {"unknown": ~known}


def _value_groups(column: pl.Series) -> Masks:
    """Group items by the most frequent values of a column of text; none if it has too many values."""
    values = [frozenset((value or "").split(SEPARATOR)) - {""} for value in column.to_list()]
    counts: dict[str, int] = {}
    for value in (value for several in values for value in several):
        counts[value] = counts.get(value, 0) + 1
    if not counts or len(counts) > MAX_VALUES:
        return {}
    shown = sorted(counts, key=lambda value: (-counts[value], value))[:SHOWN_VALUES]
    masks = {value: np.array([value in several for several in values]) for value in shown}
    return masks | {"other values": np.array([bool(several - set(shown)) for several in values])}
