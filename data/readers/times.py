"""Times of events in any type → numbers in the same order. No digit of the file is lost."""

from collections.abc import Iterator
from decimal import Decimal

import polars as pl

EXACT = pl.Decimal(38, 18)
"""The type of text with a point: twenty digits before it and eighteen behind."""

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?$"

ISO = (
    r"^(?<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?<hour>[01]\d|2[0-3]):(?<minute>[0-5]\d)(?::(?<second>[0-5]\d|60)(?:[.,](?<fraction>\d{1,18}))?)?)?"
    r"\s*(?:Z|z|UTC|(?<sign>[+-])(?<zone_hour>\d{2}):?(?<zone_minute>\d{2})?)?$"
)
"""The pattern of a date, a time of day to any precision, and a time zone; only the date is required."""


def can_be_times(kind: pl.DataType) -> bool:
    """Check whether values of a type can be ordered in time. A time of day cannot: it has no date."""
    textual = kind in (pl.String, pl.Categorical, pl.Enum, pl.Null)
    return textual or kind.is_numeric() or (kind.is_temporal() and kind != pl.Time)


def parse_times(raw: pl.Series) -> pl.Series:
    """Parse times into numbers in the same order: (T,), null for a value that is no time.

    Text is parsed as integers, decimals or ISO dates, whichever fits the most values.
    """
    best = None
    for parsed in _parse_as_each_kind(raw):
        if best is None or parsed.null_count() < best.null_count():
            best = parsed
        if not best.has_nulls():
            break
    assert best is not None
    return _fit_64_bits(best)


def has_zone(raw: pl.Series) -> pl.Series:
    """Mark the texts that name a time zone."""
    return raw.str.contains(r"\d{2}:\d{2}.*(?:Z|z|UTC|[+-]\d{2}:?(?:\d{2})?)\s*$").fill_null(False)


def _parse_as_each_kind(raw: pl.Series) -> Iterator[pl.Series]:
    if raw.dtype.is_float():
        yield _without_infinities(raw)
    elif raw.dtype == pl.Date:
        yield raw.cast(pl.Datetime("us")).to_physical()  # days would be no dates among other numbers
    elif raw.dtype.is_temporal():
        yield raw.to_physical()
    elif raw.dtype.is_numeric():
        yield raw
    else:
        text = raw.cast(pl.String).str.strip_chars()
        yield from (text.cast(kind, strict=False) for kind in (pl.Int64, pl.Int128, EXACT))
        yield _parse_iso(text)
        yield _rank_decimals(text)


def _without_infinities(numbers: pl.Series) -> pl.Series:
    return numbers.set(~numbers.is_finite(), None)


def _rank_decimals(text: pl.Series) -> pl.Series:
    """Rank numbers of any number of digits: it is slow, so it is tried last."""
    numbers = {number: Decimal(number) for number in text.filter(text.str.contains(NUMBER).fill_null(False)).unique()}
    ranks = {value: rank for rank, value in enumerate(sorted(set(numbers.values())))}
    places = {number: ranks[value] for number, value in numbers.items()}
    return (
        text.replace_strict(places, default=None, return_dtype=pl.Int64)
        if places
        else text.cast(pl.Int64, strict=False)
    )


def _parse_iso(text: pl.Series) -> pl.Series:
    """Parse ISO dates into seconds or, if any has a fraction, into parts of 10⁻⁹ or 10⁻¹⁸ seconds since 1970.

    A time without a zone is in UTC.
    """
    parts = text.str.extract_groups(ISO).struct.unnest()
    number = {name: pl.col(name).cast(pl.Int64).fill_null(0) for name in parts.columns if name not in ("date", "sign")}
    day = pl.col("date").str.to_date("%Y-%m-%d", strict=False).cast(pl.Int64)
    zone = pl.when(pl.col("sign") == "-").then(-60).otherwise(60) * (number["zone_hour"] * 60 + number["zone_minute"])
    seconds = day * 86_400 + number["hour"] * 3600 + number["minute"] * 60 + number["second"] - zone
    if not parts["fraction"].is_not_null().any():
        return parts.select(seconds=seconds)["seconds"]
    digits = 9 if (parts["fraction"].str.len_chars() <= 9).all() else 18
    fraction = pl.col("fraction").fill_null("").str.pad_end(digits, "0").cast(pl.Int128)
    return parts.select(time=seconds.cast(pl.Int128) * pl.lit(10**digits, dtype=pl.Int128) + fraction)["time"]


def _fit_64_bits(numbers: pl.Series) -> pl.Series:
    """Return numbers as int64 or float64 if they fit, otherwise their ranks."""
    if numbers.dtype.is_float():
        return numbers.cast(pl.Float64)
    if numbers.dtype.is_integer():
        whole = numbers.cast(pl.Int64, strict=False)
        if whole.null_count() == numbers.null_count():
            return whole
    return numbers.rank("dense").cast(pl.Int64)
