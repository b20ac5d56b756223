"""Filters on catalogue columns: a value, a list of values, a range of numbers or dates."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

ISO_DATE = r"^\d{4}-\d{2}-\d{2}(T[\d:.]+)?$"
"""The pattern of a date, with or without a time of day; one with a time zone is not ordered by its text."""

FIXED_COLUMNS = ("item_id", "title", "text")
"""The columns of every catalogue, which no filter takes."""


class ColumnError(Exception):
    """A filter or a value that a column of this catalogue cannot take: which column, and why."""

    def __init__(self, column: str, detail: str) -> None:
        super().__init__(f"{column}: {detail}")
        self.column, self.detail = column, detail


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a frame that filters can take."""

    frame: pl.DataFrame
    _values: dict[str, tuple[np.ndarray, pl.Series]] = field(default_factory=dict, repr=False)

    @property
    def names(self) -> list[str]:
        return [name for name in self.frame.columns if name not in FIXED_COLUMNS]

    def require_column(self, name: str) -> None:
        """Raise `ColumnError` if there is no such column."""
        if name not in self.names:
            known = ", ".join(self.names) or "none"
            raise ColumnError(name, f"this catalogue has no such column; its columns are {known}")

    def filter_rows(self, filters: Mapping[str, Any]) -> np.ndarray:
        """Return a mask (N,) of the rows that match every filter; a list column matches if one of its values does.

        A filter is a value, a list of accepted values (an empty list matches nothing), or `{"min": …, "max": …}`,
        both inclusive: numbers or, of a column of ISO dates, dates to any precision. A missing value matches no filter.
        Raises `ColumnError`.
        """
        mask = np.ones(len(self.frame), dtype=bool)
        for name, wanted in filters.items():
            self.require_column(name)
            mask &= self._match_range(name, wanted) if isinstance(wanted, Mapping) else self._match_values(name, wanted)
        return mask

    def _match_range(self, name: str, wanted: Mapping[str, Any]) -> np.ndarray:
        """Return a mask of the rows from `min` to `max`, numbers or dates; of all rows if neither is given."""
        rows, values = self._present_values(name)
        if not (values.dtype.is_numeric() or _are_dates(values)):
            raise ColumnError(name, "has neither numbers nor dates, and has no range; give a value or a list of values")
        low, high = wanted.get("min"), wanted.get("max")
        for bound in (low, high):
            if bound is not None and isinstance(bound, str) != (values.dtype == pl.String):
                kind = "dates" if values.dtype == pl.String else "numbers"
                raise ColumnError(name, f"has {kind}, and {bound!r} is none; change it")
        if low is None and high is None:
            return np.ones(len(self.frame), dtype=bool)
        conditions = [pl.col(name) >= low] if low is not None else []
        conditions += [_up_to(name, high)] if high is not None else []
        return self._as_mask(rows, values.to_frame().select(pl.all_horizontal(conditions)).to_series())

    def _match_values(self, name: str, wanted: Any) -> np.ndarray:
        """Return a mask of the rows with one of the values; each value is looked up once."""
        rows, values = self._present_values(name)
        kind, accepted = values.dtype, list(wanted) if isinstance(wanted, list | tuple) else [wanted]
        if not (kind in (pl.String, pl.Boolean, pl.Null) or kind.is_numeric()):
            raise ColumnError(name, f"is {str(kind).lower()}, and columns of that type cannot be filtered")
        if unlike := [value for value in accepted if not _is_of_type(kind, value)]:
            unlike_type = type(unlike[0]).__name__
            raise ColumnError(
                name, f"is {str(kind).lower()}, and a value of type {unlike_type} matches none; change it"
            )
        return self._as_mask(rows, values.is_in(_as_series(accepted, kind).implode()))

    def _as_mask(self, rows: np.ndarray, matches: pl.Series) -> np.ndarray:
        mask = np.zeros(len(self.frame), dtype=bool)
        mask[rows[matches.to_numpy()]] = True
        return mask

    def _present_values(self, name: str) -> tuple[np.ndarray, pl.Series]:
        """Return the row of each present value of a column, and the values; computed once, lists flattened."""
        if name not in self._values:
            values, rows = self.frame[name], np.arange(len(self.frame))
            if isinstance(values.dtype, pl.List):
                lengths = values.list.len().fill_null(0)
                rows, values = np.repeat(rows, lengths.to_numpy()), values.filter(lengths > 0).explode()
            values = _normalised(values)
            self._values[name] = rows[values.is_not_null().to_numpy()], values.drop_nulls()
        return self._values[name]


def _are_dates(values: pl.Series) -> bool:
    """Check that a column has ISO dates alone, whose order is that of their text."""
    return values.dtype == pl.String and bool(values.str.contains(ISO_DATE).all())


def _up_to(name: str, high: float | str) -> pl.Expr:
    """Return the condition of an inclusive upper bound: 2024-12 includes its last second."""
    if isinstance(high, str):
        return pl.col(name).str.head(len(high)) <= high
    return pl.col(name) <= high


def _normalised(values: pl.Series) -> pl.Series:
    """Convert texts to Unicode's composed form, and NaN to null."""
    if values.dtype in (pl.Categorical, pl.Enum, pl.String):
        return values.cast(pl.String).str.normalize("NFC")
    return values.fill_nan(None) if values.dtype.is_float() else values


def _is_of_type(kind: pl.DataType, value: Any) -> bool:
    """Check that a column's type takes a value; a column without values takes any."""
    if kind == pl.String or kind == pl.Boolean:
        return isinstance(value, str if kind == pl.String else bool)
    return kind == pl.Null or (isinstance(value, int | float) and not isinstance(value, bool))


def _as_series(values: list[Any], kind: Any) -> pl.Series:
    """Convert values to a column's type; drop values that it cannot hold, which no item has."""
    if kind.is_integer():
        values = [value for value in values if value == int(value)]
    if kind == pl.String:
        values = [unicodedata.normalize("NFC", value) for value in values]
    return pl.Series(values, dtype=kind, strict=False).drop_nulls()
