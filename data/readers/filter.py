"""The filters of events, users and items by the rules, and the report of what is left out."""

from dataclasses import replace

import numpy as np
import polars as pl

from fedrec.data.core import find_core
from fedrec.data.errors import InputError
from fedrec.data.histories import Histories
from fedrec.data.ids import count_distinct
from fedrec.data.moments import as_number
from fedrec.data.readers.reading_report import ReadingReport, shorten
from fedrec.data.readers.rules import Rules

LONG = 1_000
"""The number of events from which the longest history is reported: it may be a bot's."""


def report_undescribed(unknown: pl.Series, occurring: int, described: pl.Series, report: ReadingReport) -> None:
    """Report the items that occur without a description, beside one with: their ids may be meant to be equal."""
    line = f"items without description, known by their id alone: {len(unknown):,} of {occurring:,} that occur"
    bare = unknown.str.strip_chars().str.strip_suffix(".0")
    alike = bare.is_in(described.implode())
    row = int(alike.arg_max() or 0)
    if len(unknown):
        line += f"; one is {shorten(unknown[row])}"
    if len(described):
        line += f", a described one is {shorten(bare[row] if alike.any() else described[0])}"
    if alike.any():
        line += f"; {int(alike.sum()):,} would be described without a blank or '.0' at an end"
    report.add_step("items_without_description", len(unknown), line)


def report_repeats(interactions: pl.DataFrame, histories: Histories, report: ReadingReport) -> None:
    """Report the later events of a user with an item that the user already had."""
    count = len(interactions) - len(histories.items)
    line = f"repeats, left out: {count:,} of {len(interactions):,} events"
    if histories.repeat is not None:
        user, item = interactions.row(histories.repeat)[:2]
        line += f"; one is user {shorten(user)} with item {shorten(item)} again"
    report.add_step("repeats_dropped", count, line)
    if count:
        report.add_state("without repeats", *histories.counts)


def filter_events(events: pl.DataFrame, rules: Rules, report: ReadingReport) -> pl.DataFrame:
    """Return the events that are rated high enough, then those within the dates.

    Raises `InputError` if there are no ratings, or if a date cannot be compared with the times.
    """
    report.add_state("usable rows", *_counts(events))
    if rules.min_rating is not None:
        if "rating" not in events.columns:
            raise InputError(f"`min_rating={rules.min_rating:g}`: these events have no ratings; leave it out")
        kept = events.filter(pl.col("rating") >= rules.min_rating)
        rated = events["rating"]
        _report_filter("rating_dropped", f"rating {rules.min_rating:g} or more", events, kept, report)
        if kept.is_empty() and len(rated):
            raise InputError(
                f"`min_rating={rules.min_rating:g}`: the highest rating is {rated.max()}; give a lower one"
            )
        events = kept
    if not (rules.since is None and rules.until is None):
        kept = events.filter(_within(events["timestamp"], rules))
        _report_filter("dates_dropped", _date_label(rules), events, kept, report)
        events = kept
    return events.select("user_id", "item_id", "timestamp")


def _within(times: pl.Series, rules: Rules) -> pl.Series:
    """Mark the times (T,) from `since` to before `until`."""
    latest = times.max()
    kept = pl.Series([True]).new_from_index(0, len(times))
    if not isinstance(latest, int | float):
        return kept
    if rules.since is not None:
        kept &= times >= as_number(rules.since, latest, "since")
    if rules.until is not None:
        kept &= times < as_number(rules.until, latest, "until")
    return kept


def _date_label(rules: Rules) -> str:
    bounds = [("from", rules.since), ("before", rules.until)]
    return " and ".join(f"{word} {moment}" for word, moment in bounds if moment is not None)


def _report_filter(step: str, kept_label: str, events: pl.DataFrame, kept: pl.DataFrame, report: ReadingReport) -> None:
    dropped = len(events) - len(kept)
    line = f"events other than {kept_label}, left out: {dropped:,} of {len(events):,}"
    report.add_step(step, dropped, line, requested=True)
    report.add_state(kept_label, *_counts(kept))


def _counts(events: pl.DataFrame) -> tuple[int, int, int]:
    users, items = (count_distinct(events[column]) for column in ("user_id", "item_id"))
    return users, items, len(events)


def drop_long_users(histories: Histories, rules: Rules, report: ReadingReport) -> Histories:
    """Return the histories without those of more events than the rules allow: bots."""
    if rules.max_events is None:
        report.counts["long_users_dropped"] = 0
        return histories
    long = histories.lengths > rules.max_events
    many = f"users with more than {rules.max_events} events"
    report.add_step("long_users_dropped", int(long.sum()), _exclusion_line(many, histories, long), requested=True)
    histories = histories.keep_users(~long)
    report.add_state(f"users of at most {rules.max_events} events", *histories.counts)
    return histories


def keep_core(
    histories: Histories, items: pl.DataFrame, rules: Rules, report: ReadingReport
) -> tuple[Histories, pl.DataFrame]:
    """Return the k-core of the histories, and the items; those outside the core only if it asks nothing of items.

    Raises `InputError` if nothing is left.
    """
    if not rules.user_core and not rules.item_core:
        report.counts["core_dropped"] = 0
        return histories, items
    kept, passes = find_core(histories, rules.user_core, rules.item_core)
    label = f"core: {rules.user_core} events of a user, {rules.item_core} of an item"
    if not kept.any():
        raise InputError(
            f"`user_core={rules.user_core}`, `item_core={rules.item_core}`: no event is left after {passes} passes; "
            "give smaller ones"
        )
    dropped = len(kept) - int(kept.sum())
    line = f"events outside the core, left out in {passes} passes: {dropped:,} of {len(kept):,}"
    report.add_step("core_dropped", dropped, line, requested=True)
    histories = histories.keep(kept) if dropped else histories
    report.add_state(label, *histories.counts)
    return _without_bare_items(histories, items) if rules.item_core else (histories, items)


def _without_bare_items(histories: Histories, items: pl.DataFrame) -> tuple[Histories, pl.DataFrame]:
    """Leave the items without any event out of the catalogue, and renumber the others."""
    there = np.bincount(histories.items, minlength=len(items)) > 0
    rows = (np.cumsum(there) - 1).astype(histories.items.dtype)
    return replace(histories, items=rows[histories.items]), items.filter(pl.Series(there))


def select_users(histories: Histories, cut: Histories, rules: Rules, report: ReadingReport) -> np.ndarray:
    """Select the users with as many events as the rules require, and some to train on: (U,) of bool.

    `cut` are the same histories, cut by the split.
    """
    trainable = cut.lengths > (2 if cut.held is None else cut.held[:, 0])
    short = (histories.lengths < rules.min_events) | ~trainable
    few = f"users with fewer than {rules.min_events} events"
    few += ", or none to train on" if (~trainable & (histories.lengths >= rules.min_events)).any() else ""
    report.add_step("short_users_dropped", int(short.sum()), _exclusion_line(few, histories, short))
    selected = ~short
    if selected.any() and (most := int(histories.lengths[selected].max())) > LONG:
        user = histories.users[int(np.flatnonzero(selected & (histories.lengths == most))[0])]
        report.add_remark(
            f"longest history: {most:,} events, of user {shorten(user)}; `fedrec data import --max-events N` leaves "
            "longer ones out"
        )
    return selected


def _exclusion_line(subject: str, histories: Histories, dropped: np.ndarray) -> str:
    if not dropped.any():
        return ""
    first = int(np.flatnonzero(dropped)[0])
    count, events = int(dropped.sum()), int(histories.lengths[dropped].sum())
    example = f"one is {shorten(histories.users[first])} with {histories.lengths[first]:,}"
    return f"{subject}, left out: {count:,} of {len(histories.users):,}, with {events:,} events; {example}"
