"""Whose histories count, by the rules; what is left out goes into the account."""

import numpy as np
import polars as pl

from fedrec.data.histories import Histories
from fedrec.data.readers.reading_report import Account, shortened
from fedrec.data.readers.rules import Rules

LONG = 1_000
"""Events beyond which the longest history is told: few people have so many, and many a bot."""


def note_undescribed(unknown: pl.Series, occurring: int, described: pl.Series, account: Account) -> None:
    """Tell the items that occur and are not described, beside one that is: its id may be meant to be the same."""
    line = f"items without description, known by their id alone: {len(unknown):,} of {occurring:,} that occur"
    bare = unknown.str.strip_chars().str.strip_suffix(".0")
    alike = bare.is_in(described.implode())
    row = int(alike.arg_max() or 0)
    if len(unknown):
        line += f"; one is {shortened(unknown[row])}"
    if len(described):
        line += f", a described one is {shortened(bare[row] if alike.any() else described[0])}"
    if alike.any():
        line += f"; {int(alike.sum()):,} would be described without a blank or '.0' at an end"
    account.note("items_without_description", len(unknown), line)


def note_repeats(interactions: pl.DataFrame, found: Histories, account: Account) -> None:
    """Tell the later events of a user with an item that the user already had."""
    count = len(interactions) - len(found.items)
    line = f"repeats, left out: {count:,} of {len(interactions):,} events"
    if found.repeat is not None:
        user, item = interactions.row(found.repeat)[:2]
        line += f"; one is user {shortened(user)} with item {shortened(item)} again"
    account.note("repeats_dropped", count, line)


def kept_users(found: Histories, divided: Histories, rules: Rules, account: Account) -> np.ndarray:
    """Who has as many events as the rules want, and some to train on: (U,) of bool. `divided` are the histories as
    the split cuts them."""
    long = found.lengths > (rules.max_events or np.inf)
    trainable = divided.lengths > 2
    short = ~long & ((found.lengths < rules.min_events) | ~trainable)
    few = f"users with fewer than {rules.min_events} events"
    few += ", or none to train on" if (~trainable & (found.lengths >= rules.min_events)).any() else ""
    account.note("short_users_dropped", int(short.sum()), _left_out(few, found, short))
    many = f"users with more than {rules.max_events} events"
    account.note("long_users_dropped", int(long.sum()), _left_out(many, found, long), asked=True)
    kept = ~short & ~long
    if kept.any() and (most := int(found.lengths[kept].max())) > LONG:
        user = found.users[int(np.flatnonzero(kept & (found.lengths == most))[0])]
        account.remark(
            f"longest history: {most:,} events, of user {shortened(user)}; `fedrec data import --max-events N` leaves "
            "longer ones out"
        )
    return kept


def _left_out(whose: str, found: Histories, dropped: np.ndarray) -> str:
    if not dropped.any():
        return ""
    first = int(np.flatnonzero(dropped)[0])
    count, events = int(dropped.sum()), int(found.lengths[dropped].sum())
    example = f"one is {shortened(found.users[first])} with {found.lengths[first]:,}"
    return f"{whose}, left out: {count:,} of {len(found.users):,}, with {events:,} events; {example}"
