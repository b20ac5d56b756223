"""Which items have a property: a value, one of many values, a number between two."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

TOLD = ("item_id", "title", "text")
"""Columns that every catalogue has, and nothing is filtered by."""


class ColumnError(Exception):
    """A filter or a property that this catalogue cannot have: which column, and why."""

    def __init__(self, column: str, detail: str) -> None:
        super().__init__(f"{column}: {detail}")
        self.column, self.detail = column, detail


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a frame that can be filtered by."""

    frame: pl.DataFrame
    _values: dict[str, tuple[np.ndarray, pl.Series]] = field(default_factory=dict, repr=False)

    @property
    def names(self) -> list[str]:
        return [name for name in self.frame.columns if name not in TOLD]

    def checked(self, name: str) -> str:
        """The name itself. Raises `ColumnError` if there is no such column."""
        if name not in self.names:
            known = ", ".join(self.names) or "none"
            raise ColumnError(name, f"this catalogue has no such column; its columns are {known}")
        return name

    def mask(self, filters: Mapping[str, Any]) -> np.ndarray:
        """Which rows have all these properties: a bool for each. A column with several values has each of them.

        A filter is a value, a list of values of which one is enough (so of an empty one none is), or
        `{"min": …, "max": …}`, both included. What is not told of an item fits no filter. Raises `ColumnError`.
        """
        kept = np.ones(len(self.frame), dtype=bool)
        for name, wanted in filters.items():
            look = self._between if isinstance(wanted, Mapping) else self._among
            kept &= look(self.checked(name), wanted)
        return kept

    def _between(self, name: str, wanted: Mapping[str, Any]) -> np.ndarray:
        """Which rows have a number from `min` to `max`; any row, if neither is given."""
        if not self.frame.schema[name].is_numeric():
            raise ColumnError(name, "is not a number, and has no range; give a value or a list of values")
        low, high = wanted.get("min"), wanted.get("max")
        if low is None and high is None:
            return np.ones(len(self.frame), dtype=bool)
        rows, values = self._told(name)
        number = pl.col(name)
        fits = [number >= low] if low is not None else []
        fits += [number <= high] if high is not None else []
        return self._where(rows, values.to_frame().select(pl.all_horizontal(fits)).to_series())

    def _among(self, name: str, wanted: Any) -> np.ndarray:
        """Which rows have one of the values: each value is looked up once, however many they are."""
        rows, values = self._told(name)
        kind, asked = values.dtype, list(wanted) if isinstance(wanted, list | tuple) else [wanted]
        if not (kind in (pl.String, pl.Boolean, pl.Null) or kind.is_numeric()):
            raise ColumnError(name, f"is {str(kind).lower()}, and nothing is filtered by that")
        if strange := [value for value in asked if not _is_of(kind, value)]:
            raise ColumnError(name, f"is {str(kind).lower()}, and no {type(strange[0]).__name__} is among its values")
        return self._where(rows, values.is_in(_fitting(asked, kind).implode()))

    def _where(self, rows: np.ndarray, fits: pl.Series) -> np.ndarray:
        """A mask of those of the rows that fit."""
        kept = np.zeros(len(self.frame), dtype=bool)
        kept[rows[fits.to_numpy()]] = True
        return kept

    def _told(self, name: str) -> tuple[np.ndarray, pl.Series]:
        """All values of a column that are told, and the row of each; found once."""
        if name not in self._values:
            values, rows = self.frame[name], np.arange(len(self.frame))
            if isinstance(values.dtype, pl.List):
                lengths = values.list.len().fill_null(0)
                rows, values = np.repeat(rows, lengths.to_numpy()), values.filter(lengths > 0).explode()
            values = _plain(values)
            self._values[name] = rows[values.is_not_null().to_numpy()], values.drop_nulls()
        return self._values[name]


def _plain(values: pl.Series) -> pl.Series:
    """Texts composed as Unicode recommends, whatever the table had; a number that is none is not told."""
    if values.dtype in (pl.Categorical, pl.Enum, pl.String):
        return values.cast(pl.String).str.normalize("NFC")
    return values.fill_nan(None) if values.dtype.is_float() else values


def _is_of(kind: pl.DataType, value: Any) -> bool:
    """Whether a value is of a column's kind; of one that has no values, any is."""
    if kind == pl.String or kind == pl.Boolean:
        return isinstance(value, str if kind == pl.String else bool)
    return kind == pl.Null or (isinstance(value, int | float) and not isinstance(value, bool))


def _fitting(values: list[Any], kind: Any) -> pl.Series:
    """Those that a column of this kind can hold: no item has any other."""
    if kind.is_integer():
        values = [value for value in values if value == int(value)]
    if kind == pl.String:
        values = [unicodedata.normalize("NFC", value) for value in values]
    return pl.Series(values, dtype=kind, strict=False).drop_nulls()
