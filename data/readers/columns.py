"""An items table's own columns → what the encoder reads of them, and typed columns of the catalogue to filter by."""

import polars as pl

WHOLE, DECIMAL = r"^-?(0|[1-9]\d*)$", r"^-?(0|[1-9]\d*)?(\.\d+)?([eE][+-]?\d+)?$"
"""Numbers in text. What begins with a zero or a plus is a code that keeps its digits: 00123, +4912345."""


def as_text(values: pl.Series) -> pl.Series | None:
    """Read a column as text; the values of a list have commas between them. None for a type that has no text."""
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


def typed(values: pl.Series) -> pl.Series | None:
    """Whole numbers, numbers, booleans or text, or lists of one of them; dates are ISO text. Empty text is null.

    None for a type that is neither of these.
    """
    kind = values.dtype
    if isinstance(kind, pl.List | pl.Array):
        return _typed_lists(values)
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
    return None if text is None else _parsed(text)


def _typed_lists(values: pl.Series) -> pl.Series | None:
    try:
        texts = values.cast(pl.List(pl.String))
    except pl.exceptions.PolarsError:
        return None
    inner = typed(values.explode())
    kind = pl.String if inner is None or inner.dtype == pl.Boolean else inner.dtype
    return texts.cast(pl.List(kind))


def _parsed(text: pl.Series) -> pl.Series:
    """A column of text under the narrowest type that holds every value as it is written."""
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
