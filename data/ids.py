"""The rule for ids of items and users. It is the same in tables, at the endpoint and on the command line.

An id that is accepted anywhere can be queried, answered, exported and erased everywhere.
"""

import re

import polars as pl

LONGEST_ID = 512
"""The maximum number of characters: percent-encoded, such an id still fits into a proxy's request line of 8 kB."""

_CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"
"""A pattern of control characters and line separators, for Python and for polars."""

_PATHS = (".", "..")
"""The segments that browsers and proxies remove from a URL's path, however it is encoded."""

_LONG, _BROKEN, _PATH = (
    f"is longer than {LONGEST_ID} characters",
    "holds a control character or a line break",
    "is '.' or '..', which no URL can carry",
)


def id_fault(text: str) -> str | None:
    """Describe why a text is not an id, as the end of a sentence about it; None if it is one."""
    if not text:
        return "is empty"
    if len(text) > LONGEST_ID:
        return _LONG
    if re.search(_CONTROL, text):
        return _BROKEN
    return _PATH if text in _PATHS else None


def distinct_ids(ids: pl.Series) -> pl.Series:
    """Return the distinct ids of a column of text or categories, in the order of their appearance, as text."""
    if isinstance(ids.dtype, pl.Categorical):
        return ids.unique(maintain_order=True).cast(pl.String)
    return ids[ids.hash().arg_unique()]


def count_distinct(ids: pl.Series) -> int:
    """Count the distinct ids of a column of text or categories."""
    return (ids.to_physical() if isinstance(ids.dtype, pl.Categorical) else ids.hash()).n_unique()


def id_faults(ids: pl.Series) -> pl.Series:
    """Apply `id_fault` to a column of ids: null for a valid id; a null id is an empty one."""
    text = pl.col("id").fill_null("")
    fault = (
        pl.when(text == "")
        .then(pl.lit("is empty"))
        .when(text.str.len_chars() > LONGEST_ID)
        .then(pl.lit(_LONG))
        .when(text.str.contains(_CONTROL))
        .then(pl.lit(_BROKEN))
        .when(text.is_in(_PATHS))
        .then(pl.lit(_PATH))
    )
    return ids.alias("id").to_frame().select(fault=fault)["fault"]
