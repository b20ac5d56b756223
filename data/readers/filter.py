"""The selection of users by the rules, and the report of what is left out."""

import numpy as np
import polars as pl

from fedrec.data.histories import Histories
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


def select_users(histories: Histories, cut: Histories, rules: Rules, report: ReadingReport) -> np.ndarray:
    """Select the users with as many events as the rules require, and some to train on: (U,) of bool.

    `cut` are the same histories, cut by the split.
    """
    long = histories.lengths > (rules.max_events or np.inf)
    trainable = cut.lengths > 2
    short = ~long & ((histories.lengths < rules.min_events) | ~trainable)
    few = f"users with fewer than {rules.min_events} events"
    few += ", or none to train on" if (~trainable & (histories.lengths >= rules.min_events)).any() else ""
    report.add_step("short_users_dropped", int(short.sum()), _exclusion_line(few, histories, short))
    many = f"users with more than {rules.max_events} events"
    report.add_step("long_users_dropped", int(long.sum()), _exclusion_line(many, histories, long), requested=True)
    selected = ~short & ~long
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
