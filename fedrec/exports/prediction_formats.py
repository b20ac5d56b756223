"""Formats of predictions: those of TREC, and the tables of RecTools, LensKit and RecBole.

TREC: a run has lines `user Q0 item rank score tag`, the qrels lines `user 0 item relevance`; trec_eval, pytrec_eval,
ir-measures and ranx read both. RecTools reads frames with `user_id`, `item_id`, `score`, `rank` and `weight`; LensKit
makes collections of item lists from frames with the same names; RecBole's atomic files name and type each field.
"""

from collections.abc import Callable
from pathlib import Path

import polars as pl

from fedrec.data.errors import InputError

Writer = Callable[[pl.DataFrame, pl.DataFrame, Path, str], None]
"""A function that writes lists and held-out items to a folder, under the name of a model."""

RELEVANCE = 1
"""The relevance of a held-out item."""


def write_trec(lists: pl.DataFrame, held_out: pl.DataFrame, folder: Path, model: str) -> None:
    """Write `run.trec` and `qrels.trec`. Raises `InputError` for an id with blanks, which separate TREC's fields."""
    for table in (lists, held_out):
        _refuse_blanks(table, "TREC")
    tag = model.replace(" ", "-")
    run = lists.select(pl.format("{} Q0 {} {} {} {}", "user_id", "item_id", "rank", _exact("score"), pl.lit(tag)))
    qrels = held_out.select(pl.format("{} 0 {} {}", "user_id", "item_id", pl.lit(RELEVANCE)))
    for name, table in (("run.trec", run), ("qrels.trec", qrels)):
        (folder / name).write_text("".join(f"{line}\n" for line in table.to_series()), "utf-8")


def write_rectools(lists: pl.DataFrame, held_out: pl.DataFrame, folder: Path, model: str) -> None:
    """Write `recommendations.csv` and `interactions.csv`, the held-out ones, with RecTools' names of columns."""
    lists.select("user_id", "item_id", "score", "rank").write_csv(folder / "recommendations.csv")
    held_out.with_columns(weight=pl.lit(float(RELEVANCE))).write_csv(folder / "interactions.csv")


def write_lenskit(lists: pl.DataFrame, held_out: pl.DataFrame, folder: Path, model: str) -> None:
    """Write `recommendations.parquet` and `test.parquet`, for `ItemListCollection.from_df(…, key="user_id")`."""
    lists.select("user_id", "item_id", "score", "rank").write_parquet(folder / "recommendations.parquet")
    held_out.write_parquet(folder / "test.parquet")


def write_recbole(lists: pl.DataFrame, held_out: pl.DataFrame, folder: Path, model: str) -> None:
    """Write `recommendations.inter` and `test.inter`. Raises `InputError` for an id with a tab, which separates."""
    for name, table in (("recommendations.inter", lists), ("test.inter", held_out)):
        for column in ("user_id", "item_id"):
            _refuse(table[column], r"[\t\r\n]", "RecBole's files cannot hold a tab or a line's end")
        typed = {c: f"{c}:{'token' if kind == pl.String else 'float'}" for c, kind in table.schema.items()}
        table.rename(typed).write_csv(folder / name, separator="\t", quote_style="never")


FORMATS: dict[str, Writer] = {
    "trec": write_trec,
    "rectools": write_rectools,
    "lenskit": write_lenskit,
    "recbole": write_recbole,
}
SPLIT_FILES = (
    *("run.trec", "qrels.trec", "recommendations.csv", "interactions.csv"),
    *("recommendations.parquet", "test.parquet", "recommendations.inter", "test.inter"),
)
"""The files of all formats."""


def _exact(column: str) -> pl.Expr:
    """Format float32 numbers so that each is read back as itself."""
    return pl.col(column).map_elements(lambda number: f"{number:.9g}", return_dtype=pl.String)


def _refuse_blanks(table: pl.DataFrame, format: str) -> None:
    for column in ("user_id", "item_id"):
        _refuse(table[column], r"\s", f"{format}'s fields are separated by blanks; choose another `format`")


def _refuse(ids: pl.Series, pattern: str, reason: str) -> None:
    """Raise `InputError` if an id has what separates fields in a format."""
    if (bad := ids.str.contains(pattern)).any():
        raise InputError(f"{ids.name} {ids[int(bad.arg_max() or 0)][:60]!r}: {reason}")
