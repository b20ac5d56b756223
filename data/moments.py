"""Moments in time, as people write them: ISO dates, or numbers as in the table of events."""

from datetime import UTC, datetime, timedelta

import polars as pl

from fedrec.data.errors import InputError

Moment = str | float
"""An ISO date, in UTC if it names no zone, or a number as in the table of events."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
UNITS = ((10**8, 1), (10**11, 10**3), (10**14, 10**6), (10**17, 10**9))
"""The latest time of a table from which its numbers are seconds, or parts of one: these many a second, since 1970."""


def units_per_second(latest: float) -> int | None:
    """Return in what parts of a second the times of a table count, by its latest one; None if they are no dates."""
    return next((unit for least, unit in reversed(UNITS) if latest >= least), None)


def as_number(moment: Moment, latest: float, parameter: str) -> float:
    """Convert a moment to a number of the table whose latest time is `latest`.

    Raises `InputError`, which names `parameter`, if it is neither a number nor an ISO date, or if the table's times
    are no dates.
    """
    unit, number = units_per_second(latest), _parse_number(moment)
    if number is not None:
        if unit and 0 < number < UNITS[0][0]:
            raise InputError(f"`{parameter}` = {moment}: the times of these events are dates; give one, as 2024-12-31")
        return number
    try:
        date = datetime.fromisoformat(str(moment))
    except ValueError as error:
        raise InputError(f"`{parameter}` = {moment!r} is no number and no ISO date; give one, as 2024-12-31") from error
    if unit is None:
        raise InputError(
            f"`{parameter}` = {moment!r}: these events have numbers for times, the latest is {latest:,}; give a number"
        )
    parts, rest = divmod(((date if date.tzinfo else date.replace(tzinfo=UTC)) - EPOCH) // MICROSECOND * unit, 10**6)
    return parts + rest / 10**6 if rest else parts


def _parse_number(moment: Moment) -> float | None:
    """Return a moment that is a number, without loss of a digit if it is a whole one; None for any other text."""
    for parse in (int, float):
        try:
            return parse(moment) if isinstance(moment, str) else moment
        except ValueError:
            continue
    return None


def as_moment(number: float, latest: float) -> Moment:
    """Convert a number of a table to an ISO date, if it is exactly one; otherwise return it."""
    unit = units_per_second(latest)
    micros, rest = divmod(int(number) * 10**6, unit or 1)
    if unit is None or rest or number != int(number):
        return number
    try:
        return (EPOCH + micros * MICROSECOND).isoformat()
    except OverflowError:  # before year 1 or after year 9999
        return number


def find_range(times: pl.Series) -> list[Moment] | None:
    """Return the first and the last time of a table as moments; None for a table without rows."""
    first, last = times.min(), times.max()
    if not isinstance(first, int | float) or not isinstance(last, int | float):
        return None
    return [as_moment(first, last), as_moment(last, last)]
