"""The public part of a dataset: its items, their titles and texts."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import psutil

from fedrec.data.errors import InputError
from fedrec.data.storage.atomic_files import replaced_file

FILE = "catalogue.parquet"
SMALLEST = 16
"""The minimum size of a text in memory, in bytes."""


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The public items. An `id` is a string from outside; a `row` is the item's index in the catalogue.

    `frame` holds `item_id`, `title` and `text` (which the encoder reads), then any public columns.
    """

    frame: pl.DataFrame

    def __len__(self) -> int:
        return self.frame.height

    @cached_property
    def ids(self) -> list[str]:
        return self.frame["item_id"].to_list()

    @cached_property
    def titles(self) -> list[str]:
        return self.frame["title"].to_list()

    @cached_property
    def texts(self) -> list[str]:
        return self.frame["text"].to_list()

    @cached_property
    def trainable_rows(self) -> np.ndarray:
        """The rows that training may use: all items except those flagged by a public column `cold`."""
        cold = self.frame["cold"].to_numpy() if "cold" in self.frame.columns else np.zeros(len(self), dtype=bool)
        return np.flatnonzero(~cold)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.ids)}

    def row(self, item_id: str) -> int | None:
        """Return an item's row; None if it is not in the catalogue."""
        return self._row_of.get(item_id)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._row_of

    def rows(self, ids: Iterable[str]) -> np.ndarray:
        """Return the rows of some ids, in their order. Raises `InputError` if one is not in the catalogue."""
        ids = list(ids)
        if unknown := [item_id for item_id in ids if item_id not in self._row_of]:
            shown = ", ".join(repr(item_id) for item_id in unknown[:5])
            raise InputError(
                f"item {shown} is not in the catalogue of {len(self):,} items; "
                f"its ids look like {self.ids[0]!r} (see {FILE})"
            )
        return np.array([self._row_of[item_id] for item_id in ids], dtype=np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """The hash of ids and texts in row order: if it is equal on two machines, so are their rows."""
        digest = hashlib.sha256()
        for item_id, text in zip(self.ids, self.texts, strict=True):
            digest.update(f"{item_id}\x1f{text}\x1e".encode())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the catalogue into a folder."""
        with replaced_file(folder / FILE) as path:
            self.frame.write_parquet(path)

    @classmethod
    def load(cls, folder: Path) -> "Catalogue":
        """Read the catalogue of a prepared folder or a run. Raises `InputError` if it is missing or damaged."""
        path = folder / FILE
        if not path.is_file():
            raise InputError(f"{path} is missing; copy it back, or make its folder again")
        try:
            _check_rows(path)
            frame = pl.read_parquet(path)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise InputError(f"{path} cannot be read ({error}); it is damaged, make it again") from error
        if absent := {"item_id", "title", "text"} - set(frame.columns):
            raise InputError(f"{path} lacks the column {sorted(absent)[0]!r}; it is not a catalogue of fedrec")
        _check_columns(path, frame)
        return cls(frame)


def _check_rows(path: Path) -> None:
    """Raise `InputError` if a file has more rows than memory can hold: equal rows take no space in the file."""
    lazy = pl.scan_parquet(path)
    rows, columns = lazy.select(pl.len()).collect().item(), len(lazy.collect_schema())
    if rows * columns * SMALLEST > psutil.virtual_memory().available:
        raise InputError(f"{path} has {rows:,} rows, more than memory can hold; it is damaged, make it again")


def _check_columns(path: Path, frame: pl.DataFrame) -> None:
    """Raise `InputError` if an id, title or text is missing, or if two items have one id."""
    wanted = {"item_id": pl.String, "title": pl.String, "text": pl.String, "cold": pl.Boolean}
    for name, dtype in wanted.items():
        column = frame.get_column(name, default=pl.Series(name, [], dtype))
        if column.dtype != dtype:
            raise InputError(f"{path}: {name} is of type {column.dtype}, not {dtype}; it is damaged, make it again")
        if column.has_nulls():
            row = int(column.is_null().arg_max() or 0)
            raise InputError(f"{path} row {row + 1} has no {name}; it is damaged, make it again")
    if (repeated := frame["item_id"].is_duplicated()).any():
        item_id = frame["item_id"][int(repeated.arg_max() or 0)]
        raise InputError(f"{path} holds the item {item_id[:60]!r} twice; it is damaged, make it again")
