"""What is on offer: the catalogue's items and those put in since, less those taken out; by id, by row, by property.

A shelf does not change: one with an item more or less is another one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl

from fedrec.data.catalogue import Catalogue
from fedrec.serving.index.filters import TOLD, ColumnError, Columns
from fedrec.serving.index.vector_index import Index
from fedrec.serving.titles import Titles

POPULARITY: Literal["popularity"] = "popularity"
"""A number column of the catalogue, by which to answer who has no history."""

SEPARATOR = "|"
"""Between the values of a column that has several, as published catalogues have it."""

CHUNKS = 64
"""Parts of a frame beyond which it is made one again: each part more makes a row slower to find."""

SPENT = 1_000
"""Rows of items that were put in and replaced or taken out since, beyond which they are swept, once they are also half
of all that were put in: a catalogue that is told anew every night does not grow."""


@dataclass(frozen=True)
class ItemRecord:
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
class LiveCatalogue:
    """Rows are those of the index."""

    catalogue: Catalogue
    index: Index
    frame: pl.DataFrame  # the catalogue's rows, then a row for each item that was put in
    _titles: Titles
    places: Mapping[str, int | None] = field(default_factory=dict)  # of what changed since; None: taken out

    @classmethod
    def of(cls, catalogue: Catalogue, index: Index) -> "LiveCatalogue":
        several = [
            name
            for name, kind in catalogue.frame.schema.items()
            if name not in TOLD
            and kind == pl.String
            and catalogue.frame[name].str.contains(SEPARATOR, literal=True).any()
        ]
        frame = catalogue.frame.with_columns(pl.col(several).str.split(SEPARATOR))
        return cls(catalogue, index, frame, Titles(catalogue))

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

    def titled(self, text: str) -> list[int]:
        """Rows on offer whose title holds the text, however it is written: those that begin with it first."""
        rows = self._titles.holding(text, self.frame["title"][len(self.catalogue) :])["row"].to_numpy()
        return rows[self.index.living[rows]].tolist()

    def properties(self, row: int) -> dict[str, Any]:
        """All that is told of an item."""
        return self.frame.row(row, named=True)

    def told(self, row: int) -> dict[str, Any]:
        """An item's columns."""
        return {name: value for name, value in self.properties(row).items() if name not in TOLD}

    @property
    def columns(self) -> list[str]:
        """What can be filtered by."""
        return self._columns.names

    def put(self, goods: Sequence[ItemRecord], vectors: np.ndarray) -> "LiveCatalogue":
        """With these items, of different ids, each in place of one with its id; vectors: (n, E).

        Raises `ColumnError` for a property that no column can hold.
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

    def _swept(self) -> "LiveCatalogue":
        """The same on offer, in fewer rows."""
        index, rows = self.index.swept()
        now = {before: row for row, before in enumerate(rows.tolist())} | {None: None}
        left = {item_id: row for item_id, row in self.places.items() if row is not None or item_id in self.catalogue}
        places = {item_id: now[row] for item_id, row in left.items()}
        return replace(self, index=index, frame=self.frame[rows], places=places)

    def fitted(self, goods: ItemRecord) -> pl.DataFrame:
        """An item as a row of the frame. Raises `ColumnError`."""
        row = {name: goods.row().get(name) for name in self.frame.columns}
        for name in goods.columns:
            self._columns.checked(name)
        for name, value in row.items():
            if isinstance(self.frame.schema[name], pl.List) and isinstance(value, str):
                row[name] = value.split(SEPARATOR)
        try:
            return pl.DataFrame([row], schema=self.frame.schema, strict=True)
        except (pl.exceptions.PolarsError, TypeError, OverflowError) as error:
            raise ColumnError("columns", f"do not fit the catalogue's, which are {self._kinds()}") from error

    def drop(self, item_id: str) -> "LiveCatalogue":
        """Without this item; the same shelf where it is not on offer."""
        if (row := self.row(item_id)) is None:
            return self
        return replace(self, index=self.index.removed([row]), places={**self.places, item_id: None})

    def mask(self, filters: Mapping[str, Any]) -> np.ndarray:
        """Which rows have all these properties: see `Columns`. Raises `ColumnError`."""
        return self._columns.mask(filters)

    @cached_property
    def _columns(self) -> Columns:
        return Columns(self.frame)

    @cached_property
    def popularity(self) -> np.ndarray | None:
        """How popular each row is: (N+M,); None if the catalogue does not tell. An item of which it is not told, as
        one that was put in without it, is no more popular than any other."""
        if POPULARITY not in self.columns or not self.frame.schema[POPULARITY].is_numeric():
            return None
        told = self.frame[POPULARITY].cast(pl.Float64).to_numpy()  # a null is not a number
        known = np.isfinite(told)
        return np.where(known, told, min(0.0, told[known].min(initial=0.0)))

    def _kinds(self) -> str:
        return ", ".join(f"{name} ({str(self.frame.schema[name]).lower()})" for name in self.columns)
