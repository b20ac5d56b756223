"""Files of vectors with ids: parquet, CSV and npz."""

from pathlib import Path

import numpy as np
import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.storage.reading import regular

IDS = ("item_id", "ids", "id")
"""The names under which a file may have the ids."""


def read_vectors(file: Path) -> tuple[list[str], np.ndarray]:
    """Read the ids and the vectors of a file: n ids, (n, E) in float64.

    A table has a column `item_id`, and either one column of lists or one column for each number; an npz file has an
    array of ids and one of vectors. Raises `InputError`, which names the file and the first fault, if an id is there
    twice, vectors have several widths, a number is not finite, or a vector is all zeros.
    """
    try:
        regular(file, "name a file", "`vectors` ")
        ids, vectors = _read_npz(file) if file.suffix == ".npz" else _read_table(file)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"`vectors` {file} does not exist; name a parquet, CSV or npz file") from error
    except (OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"`vectors` {file} cannot be read ({reason}); give parquet, CSV or npz") from error
    _check(file, ids, vectors)
    return ids, vectors


def _read_table(file: Path) -> tuple[list[str], np.ndarray]:
    frame = pl.read_parquet(file) if file.suffix == ".parquet" else pl.read_csv(file, infer_schema=False)
    name = next((name for name in IDS if name in frame.columns), None)
    if name is None:
        raise InputError(f"`vectors` {file} has the columns {', '.join(frame.columns[:5])}; name the ids item_id")
    ids, numbers = frame[name].cast(pl.String), _parse_numbers(frame.drop(name))
    if ids.null_count():
        raise InputError(f"`vectors` {file}: row {int(ids.is_null().arg_max() or 0) + 1} has no id; remove it")
    if text := [column for column in numbers.columns if not _is_numeric(numbers[column].dtype)]:
        raise InputError(f"`vectors` {file}: the column {text[0]!r} is no number and no list of numbers; remove it")
    lists = [column for column in numbers.columns if numbers[column].dtype.is_nested()]
    if lists and numbers.width > 1:
        raise InputError(f"`vectors` {file} has {numbers.width} columns beside the ids; keep one column of lists")
    return ids.to_list(), _from_lists(file, ids, numbers[lists[0]]) if lists else numbers.cast(pl.Float64).to_numpy()


def _parse_numbers(frame: pl.DataFrame) -> pl.DataFrame:
    """Parse the columns of text that hold numbers alone, as all of a CSV file are; ids stay as they are written."""
    parsed = frame.with_columns(pl.col(pl.String).cast(pl.Float64, strict=False))
    kept = (
        frame[name] if frame[name].dtype == pl.String and _lost(frame, parsed, name) else parsed[name]
        for name in frame.columns
    )
    return pl.DataFrame(list(kept))


def _lost(before: pl.DataFrame, after: pl.DataFrame, name: str) -> bool:
    return after[name].null_count() > before[name].null_count()


def _is_numeric(kind: pl.DataType) -> bool:
    inner = kind.inner if isinstance(kind, pl.List | pl.Array) else kind
    return bool(inner.is_numeric())  # type: ignore[union-attr] - polars types an array's inner loosely


def _from_lists(file: Path, ids: pl.Series, column: pl.Series) -> np.ndarray:
    """Stack a column of lists: (n, E). Raises `InputError` if they are not equally long."""
    lists = column.cast(pl.List(pl.Float64))
    lengths = lists.list.len().fill_null(0)
    if lengths.n_unique() > 1:
        usual = int(lengths.mode()[0])
        row = int((lengths != usual).arg_max() or 0)
        raise InputError(
            f"`vectors` {file}: the vector of {ids[row]!r} has {lengths[row]} numbers, and others have {usual}; all "
            "must be equally wide"
        )
    return lists.explode().to_numpy().reshape(len(ids), -1)


def _read_npz(file: Path) -> tuple[list[str], np.ndarray]:
    with np.load(file, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    ids = next((found[name] for name in IDS if name in found), None)
    vectors = found.get("vectors")
    if ids is None or ids.ndim != 1 or vectors is None or vectors.ndim != 2 or len(ids) != len(vectors):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in found.items())
        raise InputError(f"`vectors` {file} holds {shapes}; give the arrays ids (n,) and vectors (n, E)")
    return [str(item) for item in ids], vectors.astype(np.float64)


def _check(file: Path, ids: list[str], vectors: np.ndarray) -> None:
    """Raise `InputError` for the first fault of ids or vectors."""
    if not vectors.size:
        raise InputError(f"`vectors` {file} holds no vectors; give an id and numbers in each row")
    repeated = pl.Series(ids).is_duplicated()
    if repeated.any():
        raise InputError(f"`vectors` {file} has the id {ids[int(repeated.arg_max() or 0)]!r} twice; keep one of them")
    endless = ~np.isfinite(vectors).all(-1)
    if endless.any():
        raise InputError(
            f"`vectors` {file}: {endless.sum():,} vectors hold a number that is missing or not finite, such as that of "
            f"{ids[endless.argmax()]!r}; mend or remove them"
        )
    zeros = ~vectors.any(-1)
    if zeros.any():
        raise InputError(
            f"`vectors` {file}: {zeros.sum():,} vectors are all zeros, such as that of {ids[zeros.argmax()]!r}; remove "
            "them"
        )
