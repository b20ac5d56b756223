"""The items on offer: the model's catalogue, plus items added and minus items removed since.

A live catalogue is immutable: one with an item more or less is another one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl

from fedrec.data.catalogue import Catalogue
from fedrec.serving.index.filters import FIXED_COLUMNS, ColumnError, Columns
from fedrec.serving.index.vector_index import Index
from fedrec.serving.titles import Titles

POPULARITY: Literal["popularity"] = "popularity"
"""A numeric column of the catalogue; ranks the items for users without a history."""

SEPARATOR = "|"
"""Separates the values of a text column, as in published catalogues."""

MAX_CHUNKS = 64
"""Chunks of a frame at which it is merged into one: with each chunk a row takes longer to find."""

MAX_DEAD_ROWS = 1_000
"""Dead rows (of added items that were replaced or removed since) beyond which they are dropped, once they are also half
of all added rows: a catalogue that is sent again every night does not grow."""


@dataclass(frozen=True)
class ItemRecord:
    """An item as it is added."""

    item_id: str
    title: str
    text: str  # input of the text encoder
    columns: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"item_id": self.item_id, "title": self.title, "text": self.text, **self.columns}

    def to_json(self) -> str:
        return json.dumps(self.as_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ItemRecord":
        columns = {name: value for name, value in values.items() if name not in FIXED_COLUMNS}
        return cls(values["item_id"], values["title"], values["text"], columns)

    @classmethod
    def from_json(cls, encoded: str) -> "ItemRecord":
        return cls.from_dict(json.loads(encoded))


@dataclass(frozen=True, eq=False)
class LiveCatalogue:
    """Items by id, row, title and column; its rows are the index's."""

    base: Catalogue
    index: Index
    frame: pl.DataFrame  # the base's rows, then a row for each added item
    _titles: Titles
    changed_rows: Mapping[str, int | None] = field(default_factory=dict)  # by id, of changed items; None: removed

    @classmethod
    def build(cls, catalogue: Catalogue, index: Index) -> "LiveCatalogue":
        """Start from a model's catalogue; text columns that contain `SEPARATOR` become lists."""
        lists = [
            name
            for name, kind in catalogue.frame.schema.items()
            if name not in FIXED_COLUMNS
            and kind == pl.String
            and catalogue.frame[name].str.contains(SEPARATOR, literal=True).any()
        ]
        frame = catalogue.frame.with_columns(pl.col(lists).str.split(SEPARATOR))
        return cls(catalogue, index, frame, Titles(catalogue))

    def __len__(self) -> int:
        return len(self.index)

    def find_row(self, item_id: str) -> int | None:
        """Return an item's row; None if it is not on offer."""
        if item_id in self.changed_rows:
            return self.changed_rows[item_id]
        return self.base.row(item_id)

    def item_id(self, row: int) -> str:
        ids = self.base.ids
        return ids[row] if row < len(ids) else self.frame.item(row, "item_id")

    def title(self, row: int) -> str:
        titles = self.base.titles
        return titles[row] if row < len(titles) else self.frame.item(row, "title")

    def find_titles(self, text: str) -> list[int]:
        """Return the rows whose title contains the text, however it is written; titles that begin with it first."""
        rows = self._titles.find(text, self.frame["title"][len(self.base) :])["row"].to_numpy()
        return rows[self.index.living[rows]].tolist()

    def record(self, row: int) -> ItemRecord:
        """Return all that is known of an item."""
        return ItemRecord.from_dict(self.frame.row(row, named=True))

    @property
    def column_names(self) -> list[str]:
        """The columns that filters can take."""
        return self._columns.names

    def with_items(
        self, items: Sequence[ItemRecord], searched: np.ndarray, read: np.ndarray | None = None
    ) -> "LiveCatalogue":
        """Add items with different ids and their vectors (n, W), as `Index.with_vectors` takes them.

        Each replaces an item with the same id. Raises `ColumnError` for a value that no column can hold.
        """
        added = [self.as_frame(item) for item in items]
        frame = pl.concat([self.frame, *added], rechunk=False)
        replaced = [row for item in items if (row := self.find_row(item.item_id)) is not None]
        new_rows = {item.item_id: len(self.frame) + number for number, item in enumerate(items)}
        catalogue = replace(
            self,
            index=self.index.without_rows(replaced).with_vectors(searched, read),
            frame=frame if frame.n_chunks() < MAX_CHUNKS else frame.rechunk(),
            changed_rows={**self.changed_rows, **new_rows},
        )
        is_sparse = catalogue.index.dead_rows > max(MAX_DEAD_ROWS, len(catalogue.index.extra) // 2)
        return catalogue._compacted() if is_sparse else catalogue

    def without_item(self, item_id: str) -> "LiveCatalogue":
        """Remove an item; the same catalogue if it is not on offer."""
        if (row := self.find_row(item_id)) is None:
            return self
        changed_rows = {**self.changed_rows, item_id: None}
        return replace(self, index=self.index.without_rows([row]), changed_rows=changed_rows)

    def _compacted(self) -> "LiveCatalogue":
        """Drop the dead rows; the items on offer stay the same."""
        index, rows = self.index.compacted()
        row_now = {before: row for row, before in enumerate(rows.tolist())} | {None: None}
        changed_rows = {
            item_id: row_now[row]
            for item_id, row in self.changed_rows.items()
            if row is not None or item_id in self.base
        }
        return replace(self, index=index, frame=self.frame[rows], changed_rows=changed_rows)

    def as_frame(self, item: ItemRecord) -> pl.DataFrame:
        """Convert an item to a row of the frame. Raises `ColumnError` if it does not fit the columns."""
        values = {name: item.as_dict().get(name) for name in self.frame.columns}
        for name in item.columns:
            self._columns.require_column(name)
        for name, value in values.items():
            if isinstance(self.frame.schema[name], pl.List) and isinstance(value, str):
                values[name] = value.split(SEPARATOR)
        try:
            return pl.DataFrame([values], schema=self.frame.schema, strict=True)
        except (pl.exceptions.PolarsError, TypeError, OverflowError) as error:
            raise ColumnError("columns", f"do not fit the catalogue's, which are {self._column_types()}") from error

    def filter_rows(self, filters: Mapping[str, Any]) -> np.ndarray:
        """Return a mask (N+M,) of the rows that match every filter: see `Columns`. Raises `ColumnError`."""
        return self._columns.filter_rows(filters)

    @cached_property
    def _columns(self) -> Columns:
        return Columns(self.frame)

    @cached_property
    def popularity(self) -> np.ndarray | None:
        """The popularity of each row (N+M,); None if the catalogue has no such column.

        An item without a value, such as one added without it, is no more popular than any other.
        """
        if POPULARITY not in self.column_names or not self.frame.schema[POPULARITY].is_numeric():
            return None
        values = self.frame[POPULARITY].cast(pl.Float64).to_numpy()  # null becomes NaN
        is_known = np.isfinite(values)
        return np.where(is_known, values, min(0.0, values[is_known].min(initial=0.0)))

    def _column_types(self) -> str:
        return ", ".join(f"{name} ({str(self.frame.schema[name]).lower()})" for name in self.column_names)
