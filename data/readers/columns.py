"""An items table's own columns → the text that the encoder reads, and typed columns of the catalogue to filter by."""

import polars as pl

WHOLE, DECIMAL = r"^-?(0|[1-9]\d*)$", r"^-?(0|[1-9]\d*)?(\.\d+)?([eE][+-]?\d+)?$"
"""Patterns of numbers in text. A text that begins with a zero or a plus is a code: 00123, +4912345."""


def as_text(values: pl.Series) -> pl.Series | None:
    """Convert a column to text, with commas between the values of a list; None for a type that has no text."""
    try:
        if isinstance(values.dtype, pl.List | pl.Array):
            return values.cast(pl.List(pl.String)).list.join(", ", ignore_nulls=True)
        if isinstance(values.dtype, pl.Struct):
            return values.struct.json_encode()
        if values.dtype.is_float():
            values = values.fill_nan(None)
        return values.dt.to_string("iso:strict") if values.dtype == pl.Duration else values.cast(pl.String)
    except pl.exceptions.PolarsError:
        return None


def infer_type(values: pl.Series) -> pl.Series | None:
    """Convert to integers, floats, booleans or text, or lists of one of them; dates become ISO text, empty text null.

    None for a type that is none of these.
    """
    kind = values.dtype
    if isinstance(kind, pl.List | pl.Array):
        return _infer_lists(values)
    if kind in (pl.Date, pl.Datetime):
        return values.dt.to_string("iso:strict")
    if kind.is_float() or kind.is_decimal():
        numbers = values.cast(pl.Float64)
        return numbers.set(~numbers.is_finite(), None)
    if kind.is_integer() and values.cast(pl.Int64, strict=False).null_count() == values.null_count():
        return values.cast(pl.Int64)
    if kind == pl.Boolean:
        return values
    text = as_text(values)
    return None if text is None else _parse_text(text)


def _infer_lists(values: pl.Series) -> pl.Series | None:
    try:
        texts = values.cast(pl.List(pl.String))
    except pl.exceptions.PolarsError:
        return None
    inner = infer_type(values.explode())
    kind = pl.String if inner is None or inner.dtype == pl.Boolean else inner.dtype
    return texts.cast(pl.List(kind))


def _parse_text(text: pl.Series) -> pl.Series:
    """Parse a column of text into the narrowest type that keeps every value as it is written."""
    bare = text.str.strip_chars()
    values = text.set((bare == "").fill_null(False), None)
    bare = bare.set((bare == "").fill_null(False), None)
    if bare.null_count() == len(bare):
        return values
    lower = bare.str.to_lowercase()
    if lower.is_in(["true", "false"]).all():
        return lower == "true"
    for pattern, kind in ((WHOLE, pl.Int64), (DECIMAL, pl.Float64)):
        if bare.str.contains(pattern).all():
            numbers = bare.cast(kind, strict=False)
            lost = numbers.null_count() > bare.null_count() or numbers.is_infinite().any()
            return values if lost else numbers
    return values
