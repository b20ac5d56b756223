"""A map of the item vectors: their two principal components, with the items' titles."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from fedrec.data.catalogue import Catalogue
from fedrec.data.popularity import POPULARITY
from fedrec.recsys.closed_form.fusion import exact_covariance
from fedrec.recsys.recommender import Recommender

MOST = 2500
"""Items on a map: the most popular ones of a larger catalogue."""

KINDS = 6
"""Kinds of items with a colour of their own."""

SIDE = 1000.0
"""Width and height of the map's coordinates."""

OWN = ("item_id", "title", "text")
"""Columns that every catalogue has."""

_FIRST = re.compile(r"[|,;/]")
"""What separates several kinds in one text: the first one counts."""


class Place(NamedTuple):
    """An item on the map."""

    x: float
    y: float
    title: str
    kind: int  # an index of `kinds`; the last is for all others


@dataclass(frozen=True)
class ItemMap:
    """The places of items, and what their colours stand for."""

    places: list[Place]
    column: str | None  # the column of the catalogue that kinds are taken from
    kinds: list[str]
    items: int  # in the catalogue
    explained: float  # the share of the variance along both axes


def map_items(recommender: Recommender, method: str) -> ItemMap:
    """Map the items of a recommender: by the towers' vectors or, of a closed form alone, by the candidate vectors."""
    closed_form = recommender.closed_form
    vectors = closed_form.model.candidates if closed_form and method == "closed-form" else recommender.vectors
    plane, explained = principal_plane(vectors)
    rows = popular_rows(recommender.catalogue, MOST)
    column, kinds, kind_of = _kinds(recommender.catalogue.frame)
    corners, titles = scale(plane[rows]), recommender.catalogue.titles
    places = [
        Place(round(x, 1), round(y, 1), titles[row], kind_of[row]) for row, (x, y) in zip(rows, corners, strict=True)
    ]
    return ItemMap(places, column, kinds, len(recommender.catalogue), explained)


def principal_plane(vectors: Tensor) -> tuple[np.ndarray, float]:
    """Project vectors on their two principal components: (N, E) → (N, 2), and the share of the variance in them.

    Along each axis the largest weight is positive, so that the same vectors give the same picture.
    """
    width = vectors.shape[1]
    if width < 2:
        return np.zeros((len(vectors), 2)), 0.0
    variances, axes = torch.linalg.eigh(exact_covariance(vectors))
    axes = axes[:, [-1, -2]]  # (E, 2)
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    explained = float(variances[-2:].sum() / variances.sum().clamp(min=torch.finfo(torch.float64).tiny))
    return ((vectors - vectors.mean(0)).double() @ axes).numpy(), explained


def popular_rows(catalogue: Catalogue, most: int) -> np.ndarray:
    """Return the rows of the most popular items, or rows at even distances if their popularity is unknown."""
    if POPULARITY in catalogue.frame.columns:
        return np.argsort(-catalogue.frame[POPULARITY].fill_null(0).to_numpy(), kind="stable")[:most]
    return np.unique(np.linspace(0, len(catalogue) - 1, min(most, len(catalogue))).astype(np.int64))


def scale(points: np.ndarray) -> np.ndarray:
    """Scale points to the square of the map, with the middle 99 % of each axis in it, and y upwards: (n, 2)."""
    low, high = np.quantile(points, [0.005, 0.995], axis=0)
    unit = ((points - low) / np.where(high > low, high - low, 1)).clip(-0.02, 1.02)
    return SIDE * (0.04 + 0.92 * np.column_stack([unit[:, 0], 1 - unit[:, 1]]))


def _kinds(frame: pl.DataFrame) -> tuple[str | None, list[str], list[int]]:
    """Choose a column of text by which the items fall into a few kinds: its name, the kinds, and the kind of each row.

    It is the one whose largest kinds hold the most items; there is none unless they hold a quarter of all.
    """
    best: tuple[int, str | None, list[str]] = (frame.height // 4, None, [])
    for name, kind in frame.schema.items():
        if kind == pl.String and name not in OWN:
            common = Counter(filter(None, map(_first_kind, frame[name]))).most_common(KINDS)
            held = sum(count for _, count in common)
            if len(common) > 1 and held > best[0]:
                best = held, name, [value for value, _ in common]
    _, column, kinds = best
    if column is None:
        return None, [], [0] * frame.height
    index = {value: place for place, value in enumerate(kinds)}
    return column, kinds, [index.get(_first_kind(value), len(kinds)) for value in frame[column]]


def _first_kind(text: str | None) -> str:
    """Return the first of the kinds in a text."""
    return _FIRST.split(text or "")[0].strip()
