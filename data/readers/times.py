"""Times of events in any type → numbers in the same order. No digit that a file holds is lost on the way."""

from collections.abc import Iterator
from decimal import Decimal

import polars as pl

EXACT = pl.Decimal(38, 18)
"""Text with a point: twenty digits before it and eighteen behind."""

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?$"

ISO = (
    r"^(?<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?<hour>[01]\d|2[0-3]):(?<minute>[0-5]\d)(?::(?<second>[0-5]\d|60)(?:[.,](?<fraction>\d{1,18}))?)?)?"
    r"\s*(?:Z|z|UTC|(?<sign>[+-])(?<zone_hour>\d{2}):?(?<zone_minute>\d{2})?)?$"
)
"""A date, a time of day to any precision, and a time zone; only the date must be there."""


def can_be_times(kind: pl.DataType) -> bool:
    """Tell whether values of a type can stand in an order of time. A time of day cannot: it has no date."""
    textual = kind in (pl.String, pl.Categorical, pl.Enum, pl.Null)
    return textual or kind.is_numeric() or (kind.is_temporal() and kind != pl.Time)


def ordered_times(raw: pl.Series) -> pl.Series:
    """Numbers in the order of these times: (T,), null where a value is no time.

    Of several readings of text (whole numbers, decimals, ISO dates) the one that fits most values is taken.
    """
    best = None
    for reading in _readings(raw):
        if best is None or reading.null_count() < best.null_count():
            best = reading
        if not best.has_nulls():
            break
    assert best is not None
    return _in_64_bits(best)


def has_zone(raw: pl.Series) -> pl.Series:
    """Tell which texts name a time zone."""
    return raw.str.contains(r"\d{2}:\d{2}.*(?:Z|z|UTC|[+-]\d{2}:?(?:\d{2})?)\s*$").fill_null(False)


def _readings(raw: pl.Series) -> Iterator[pl.Series]:
    if raw.dtype.is_float():
        yield _finite(raw)
    elif raw.dtype.is_temporal():
        yield raw.to_physical()
    elif raw.dtype.is_numeric():
        yield raw
    else:
        text = raw.cast(pl.String).str.strip_chars()
        yield from (text.cast(kind, strict=False) for kind in (pl.Int64, pl.Int128, EXACT))
        yield _iso(text)
        yield _of_any_size(text)


def _finite(numbers: pl.Series) -> pl.Series:
    return numbers.set(~numbers.is_finite(), None)


def _of_any_size(text: pl.Series) -> pl.Series:
    """Ranks of numbers, however many digits they have: slowly, so this is the last reading."""
    numbers = {number: Decimal(number) for number in text.filter(text.str.contains(NUMBER).fill_null(False)).unique()}
    ranks = {value: rank for rank, value in enumerate(sorted(set(numbers.values())))}
    places = {number: ranks[value] for number, value in numbers.items()}
    return (
        text.replace_strict(places, default=None, return_dtype=pl.Int64)
        if places
        else text.cast(pl.Int64, strict=False)
    )


def _iso(text: pl.Series) -> pl.Series:
    """Times in seconds, or in 10⁻¹⁸ seconds if any has a fraction. A time without a zone is in UTC."""
    parts = text.str.extract_groups(ISO).struct.unnest()
    number = {name: pl.col(name).cast(pl.Int64).fill_null(0) for name in parts.columns if name not in ("date", "sign")}
    day = pl.col("date").str.to_date("%Y-%m-%d", strict=False).cast(pl.Int64)
    zone = pl.when(pl.col("sign") == "-").then(-60).otherwise(60) * (number["zone_hour"] * 60 + number["zone_minute"])
    seconds = day * 86_400 + number["hour"] * 3600 + number["minute"] * 60 + number["second"] - zone
    if not parts["fraction"].is_not_null().any():
        return parts.select(seconds=seconds)["seconds"]
    fraction = pl.col("fraction").fill_null("").str.pad_end(18, "0").cast(pl.Int128)
    return parts.select(time=seconds.cast(pl.Int128) * pl.lit(10**18, dtype=pl.Int128) + fraction)["time"]


def _in_64_bits(numbers: pl.Series) -> pl.Series:
    """Whole numbers that fit as they are, and fractions of a float; in place of any others their ranks."""
    if numbers.dtype.is_float():
        return numbers.cast(pl.Float64)
    if numbers.dtype.is_integer():
        whole = numbers.cast(pl.Int64, strict=False)
        if whole.null_count() == numbers.null_count():
            return whole
    return numbers.rank("dense").cast(pl.Int64)
