"""What is on offer: the catalogue's items and those put in since, less those taken out; by id, by row, by property.

A shelf does not change: one with an item more or less is another one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from data.catalogue import Catalogue
from serving.index import Index

TOLD = ("item_id", "title", "text")
"""Columns that every catalogue has, and nothing is filtered by."""

POPULARITY = "popularity"
"""A number column of the catalogue, by which to answer who has no history."""

SEPARATOR = "|"
"""Between the values of a column that has several, as published catalogues have it."""

CHUNKS = 64
"""Parts of a frame beyond which it is made one again: each part more makes a row slower to find."""

SPENT = 1_000
"""Rows of items that were put in and replaced or taken out since, beyond which they are swept, once they are also half
of all that were put in: a catalogue that is told anew every night does not grow."""


class Unfit(Exception):
    """A filter or a property that this catalogue cannot have: which column, and why."""

    def __init__(self, column: str, detail: str) -> None:
        super().__init__(f"{column}: {detail}")
        self.column, self.detail = column, detail


@dataclass(frozen=True)
class Goods:
    """An item as it is put in."""

    item_id: str
    title: str
    text: str  # what the encoder reads
    columns: Mapping[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        return {"item_id": self.item_id, "title": self.title, "text": self.text, **self.columns}

    def told(self) -> str:
        return json.dumps(self.row())


@dataclass(frozen=True, eq=False)
class Shelf:
    """Rows are those of the index."""

    catalogue: Catalogue
    index: Index
    frame: pl.DataFrame  # the catalogue's rows, then a row for each item that was put in
    places: Mapping[str, int | None] = field(default_factory=dict)  # of what changed since; None: taken out

    @classmethod
    def of(cls, catalogue: Catalogue, index: Index) -> "Shelf":
        several = [
            name
            for name, kind in catalogue.frame.schema.items()
            if name not in TOLD
            and kind == pl.String
            and catalogue.frame[name].str.contains(SEPARATOR, literal=True).any()
        ]
        return cls(catalogue, index, catalogue.frame.with_columns(pl.col(several).str.split(SEPARATOR)))

    def __len__(self) -> int:
        return len(self.index)

    def row(self, item_id: str) -> int | None:
        """Where an item stands; None for one that is not on offer."""
        if item_id in self.places:
            return self.places[item_id]
        return self.catalogue.row(item_id)

    def id(self, row: int) -> str:
        ids = self.catalogue.ids
        return ids[row] if row < len(ids) else self.frame.item(row, "item_id")

    def title(self, row: int) -> str:
        titles = self.catalogue.titles
        return titles[row] if row < len(titles) else self.frame.item(row, "title")

    @cached_property
    def lower_titles(self) -> pl.Series:
        """All titles in lower case, by row."""
        return self.frame["title"].str.to_lowercase()

    def properties(self, row: int) -> dict[str, Any]:
        """All that is told of an item."""
        return self.frame.row(row, named=True)

    def told(self, row: int) -> dict[str, Any]:
        """An item's columns."""
        return {name: value for name, value in self.properties(row).items() if name not in TOLD}

    @property
    def columns(self) -> list[str]:
        """What can be filtered by."""
        return [name for name in self.frame.columns if name not in TOLD]

    def put(self, goods: Sequence[Goods], vectors: np.ndarray) -> "Shelf":
        """With these items, of different ids, each in place of one with its id; vectors: (n, E).

        Raises `Unfit` for a property that no column can hold.
        """
        new = [self.fitted(each) for each in goods]
        frame = pl.concat([self.frame, *new], rechunk=False)
        replaced = [row for each in goods if (row := self.row(each.item_id)) is not None]
        places = {each.item_id: len(self.frame) + number for number, each in enumerate(goods)}
        made = replace(
            self,
            index=self.index.removed(replaced).added(vectors),
            frame=frame if frame.n_chunks() < CHUNKS else frame.rechunk(),
            places={**self.places, **places},
        )
        return made._swept() if made.index.spent > max(SPENT, len(made.index.extra) // 2) else made

    def _swept(self) -> "Shelf":
        """The same on offer, in fewer rows."""
        index, rows = self.index.swept()
        now = {before: row for row, before in enumerate(rows.tolist())} | {None: None}
        left = {item_id: row for item_id, row in self.places.items() if row is not None or item_id in self.catalogue}
        places = {item_id: now[row] for item_id, row in left.items()}
        return replace(self, index=index, frame=self.frame[rows], places=places)

    def fitted(self, goods: Goods) -> pl.DataFrame:
        """An item as a row of the frame. Raises `Unfit`."""
        row = {name: goods.row().get(name) for name in self.frame.columns}
        if unknown := [name for name in goods.columns if name not in self.columns]:
            raise Unfit(unknown[0], self._known())
        for name, value in row.items():
            if isinstance(self.frame.schema[name], pl.List) and isinstance(value, str):
                row[name] = value.split(SEPARATOR)
        try:
            return pl.DataFrame([row], schema=self.frame.schema, strict=True)
        except (pl.exceptions.PolarsError, TypeError, OverflowError) as error:
            raise Unfit("columns", f"do not fit the catalogue's, which are {self._kinds()}") from error

    def drop(self, item_id: str) -> "Shelf":
        """Without this item; the same shelf where it is not on offer."""
        if (row := self.row(item_id)) is None:
            return self
        return replace(self, index=self.index.removed([row]), places={**self.places, item_id: None})

    def mask(self, filters: Mapping[str, Any]) -> np.ndarray:
        """Which rows have all these properties: a bool for each. A column with several values has each of them.

        A filter is a value, a list of values of which one is enough (so of an empty one none is), or
        `{"min": …, "max": …}`, both included. What is not told of an item fits no filter. Raises `Unfit`.
        """
        kept = np.ones(len(self.frame), dtype=bool)
        for column, wanted in filters.items():
            if column not in self.columns:
                raise Unfit(column, self._known())
            kept &= self._within(column, wanted) if isinstance(wanted, Mapping) else self._having(column, wanted)
        return kept

    def _within(self, column: str, wanted: Mapping[str, Any]) -> np.ndarray:
        """Which rows have a number from `min` to `max`; any row, if neither is given."""
        if not self.frame.schema[column].is_numeric():
            raise Unfit(column, "is not a number, and has no range; give a value or a list of values")
        rows, told = self._told[column]
        low, high = wanted.get("min"), wanted.get("max")
        if low is None and high is None:
            return np.ones(len(self.frame), dtype=bool)
        return self._where(rows[_between(told, low, high)])

    def _having(self, column: str, wanted: Any) -> np.ndarray:
        """Which rows have one of the values: each value is looked up once, however many they are."""
        rows, told = self._told[column]
        kind, values = told.dtype, list(wanted) if isinstance(wanted, list | tuple) else [wanted]
        if not (kind in (pl.String, pl.Boolean, pl.Null) or kind.is_numeric()):
            raise Unfit(column, f"is {str(kind).lower()}, and nothing is filtered by that")
        if strange := [value for value in values if not _is_of(kind, value)]:
            raise Unfit(column, f"is {str(kind).lower()}, and no {type(strange[0]).__name__} is among its values")
        return self._where(rows[told.is_in(_fitting(values, kind).implode()).to_numpy()])

    def _where(self, rows: np.ndarray) -> np.ndarray:
        """A mask of these rows."""
        kept = np.zeros(len(self.frame), dtype=bool)
        kept[rows] = True
        return kept

    @cached_property
    def _told(self) -> "Values":
        return Values(self.frame)

    @cached_property
    def popularity(self) -> np.ndarray | None:
        """How popular each row is: (N+M,); None if the catalogue does not tell. An item of which it is not told, as
        one that was put in without it, is no more popular than any other."""
        if POPULARITY not in self.columns or not self.frame.schema[POPULARITY].is_numeric():
            return None
        told = self.frame[POPULARITY].cast(pl.Float64).to_numpy()  # a null is not a number
        known = np.isfinite(told)
        return np.where(known, told, min(0.0, told[known].min(initial=0.0)))

    def _known(self) -> str:
        return f"this catalogue has no such column; its columns are {', '.join(self.columns) or 'none'}"

    def _kinds(self) -> str:
        return ", ".join(f"{name} ({str(self.frame.schema[name]).lower()})" for name in self.columns)


class Values(dict[str, tuple[np.ndarray, pl.Series]]):
    """By column of a frame: all values that are told, (n,), and the row of each; read when first asked for."""

    def __init__(self, frame: pl.DataFrame) -> None:
        super().__init__()
        self._frame = frame

    def __missing__(self, column: str) -> tuple[np.ndarray, pl.Series]:
        told, rows = self._frame[column], np.arange(len(self._frame))
        if isinstance(told.dtype, pl.List):
            lengths = told.list.len().fill_null(0)
            rows, told = np.repeat(rows, lengths.to_numpy()), told.filter(lengths > 0).explode()
        if told.dtype in (pl.Categorical, pl.Enum):
            told = told.cast(pl.String)
        if told.dtype.is_float():
            told = told.fill_nan(None)
        self[column] = rows[told.is_not_null().to_numpy()], told.drop_nulls()
        return self[column]


def _is_of(kind: pl.DataType, value: Any) -> bool:
    """Whether a value is of a column's kind; of one that has no values, any is."""
    if kind == pl.String or kind == pl.Boolean:
        return isinstance(value, str if kind == pl.String else bool)
    return kind == pl.Null or (isinstance(value, int | float) and not isinstance(value, bool))


def _between(told: pl.Series, low: float | None, high: float | None) -> np.ndarray:
    """Which of the numbers are not below or above the limits."""
    kept = (pl.lit(True) if low is None else pl.first() >= low) & (pl.lit(True) if high is None else pl.first() <= high)
    return told.to_frame().select(kept).to_series().to_numpy()


def _fitting(values: list[Any], kind: Any) -> pl.Series:
    """Those that a column of this kind can hold: no item has any other."""
    if kind.is_integer():
        values = [value for value in values if value == int(value)]
    return pl.Series(values, dtype=kind, strict=False).drop_nulls()
