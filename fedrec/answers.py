"""The vocabulary of questions, which the library, the client and the endpoint share, and answers as frames."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import polars as pl
from pydantic import ValidationError

from fedrec.data.errors import InputError
from fedrec.serving.schema import Item, Question

COLUMNS = {"item_id": pl.String, "title": pl.String, "score": pl.Float64}
"""The columns of every frame of recommendations."""


class QuestionFields(TypedDict, total=False):
    """The keywords of `Run.recommend` and `Client.recommend`: the fields of `Question`, which describes them."""

    history: Sequence[str]
    query: str
    vector: Sequence[float]
    user: str
    mix: float
    k: int
    offset: int
    exclude: Sequence[str]
    exclude_seen: bool
    include: Sequence[str]
    filters: Mapping[str, Any]
    diversity: float
    explain: bool
    details: bool


def question_of(fields: Mapping[str, Any]) -> Question:
    """Build a question from keywords. Raises `InputError` naming the keyword that is unknown or does not fit."""
    try:
        return Question.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            raise InputError(
                f"`{first['loc'][0]}` is no field of a question; the fields are {', '.join(Question.model_fields)}"
            ) from error
        if not first["loc"]:
            raise InputError(first["msg"].removeprefix("Value error, ")) from error
        raise InputError(f"`{first['loc'][0]}`: {first['msg'].lower()}; {_remedy(first['type'])}") from error


def as_frame(items: Sequence[Item]) -> pl.DataFrame:
    """Return items as a frame, best first: `item_id`, `title`, `score`, and what else was asked for."""
    rows = [item.model_dump(exclude_none=True) for item in items]
    more = [name for name in ("because", "columns") if any(name in row for row in rows)]
    frame = pl.DataFrame([{name: row[name] for name in COLUMNS} for row in rows], schema=COLUMNS)
    return frame.with_columns(pl.Series(name, [row.get(name) for row in rows]) for name in more)


def _remedy(kind: str) -> str:
    return "shorten it" if kind in ("string_too_long", "too_long") else "mend it"
