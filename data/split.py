"""Splits: the events that are held out of the histories, and the items that are held out of training."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

import polars as pl

from fedrec.data.cut import cut_around_cold, cut_by_ratio, cut_by_time
from fedrec.data.errors import InputError
from fedrec.data.histories import Histories
from fedrec.data.moments import Moment, as_moment, as_number

Rule = Literal["leave-one-out", "ratio", "global-time", "cold-items"]
RULES: tuple[str, ...] = get_args(Rule)
PUBLISHED = "published"
"""The name of a dataset's own split: leave-one-out, unless its publisher cut it otherwise."""

COLD_SHARE = HELD_OUT_SHARE = 0.1
TRAINED, READ = 0.8, 0.9
"""The shares of all events, in the order of time, before the two cuts of a global time split that names none."""


@dataclass(frozen=True)
class TimeCuts:
    """The two moments of a global time split: the first ones that training, and that test histories, do not see."""

    validation_from: Moment | None = None  # None: after 80 % of the events
    test_from: Moment | None = None  # None: after 90 %


@dataclass(frozen=True)
class Split:
    """Leave-one-out by time, unless a field asks for another rule; at most one of them does.

    * `held_out_share`: the last share of each user's events is for test, an equal share before it for validation.
    * `time_cuts`: nobody trains on an event at or after the first moment, the histories of `test` end before the
      second. No other rule is free of leaks over time: Meng et al. 2020, arXiv:2007.13237; Ji et al. 2020,
      arXiv:2010.11060.
    * `cold_share`: cold items occur in no training event and are never sampled as negatives, but their texts are
      public. The two held-out items of a user are cold, and the user's events between them are left out.

    Every rule holds out one item of a user for validation and one for test: the first event that the history does
    not read. Raises `InputError` if two rules are asked for, or if a share is not possible.
    """

    cold_share: float = 0.0  # approximate share of the items
    repeats: bool = False  # keep a user's later events with an item, as some published splits do
    held_out_share: float = 0.0  # share of a user's events, at least one event
    time_cuts: TimeCuts | None = None

    def __post_init__(self) -> None:
        if (self.cold_share > 0) + (self.held_out_share > 0) + (self.time_cuts is not None) > 1:
            raise InputError("`cold_share`, `held_out_share` and time cuts are different splits; give one of them")
        if self.cold_share and self.repeats:
            raise InputError(f"`keep_repeats` has no meaning with `split={RULES[3]}`; leave one of them out")

    @property
    def rule(self) -> str:
        """The name of the rule, one of `RULES`."""
        asked = (self.held_out_share > 0, self.time_cuts is not None, self.cold_share > 0)
        return next((name for name, wanted in zip(RULES[1:], asked, strict=True) if wanted), RULES[0])

    @property
    def suffix(self) -> str:
        """The end of a dataset's name that distinguishes this split from its usual one."""
        return "" if self.rule == RULES[0] else f"-{self.rule}"

    @property
    def description(self) -> str:
        """The split in words, for the readers of a manifest or a card."""
        if self.cold_share:
            return (
                f"cold items: {self.cold_share:g} of the items, by a hash of their ids, are in no training event; a "
                "user's last event with one is the test item, the one with another before it the validation item, the "
                "events with other items before that are for training, and the rest is left out; who has no such "
                "events trains on all events with other items, and is not ranked; stable sort by timestamp, ties in "
                "file order"
            )
        repeated = "; repeats are kept, so that no published held-out item moves, and are ranked though seen before"
        return _IN_WORDS[self.rule].format(self) + repeated * self.repeats

    def as_record(self) -> dict[str, Any]:
        """Return the split as data, for the manifest and the card."""
        fields: dict[str, Any] = {"repeats": self.repeats}
        if self.cold_share:
            fields = {"cold_share": self.cold_share}
        elif self.held_out_share:
            fields |= {"held_out_share": self.held_out_share}
        elif self.time_cuts:
            fields |= {"validation_from": self.time_cuts.validation_from, "test_from": self.time_cuts.test_from}
        return {"rule": self.rule, **fields}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], place: str) -> Self:
        """Read the split in a manifest or in a card's `data`: from `split_rule`, or from the description alone.

        Version 0.1 recorded only the description. Raises `InputError`, which names `place`, if it is no known split.
        """
        fields = record.get("split_rule")
        split = cls._from_description(record["split"]) if fields is None else cls._from_fields(fields)
        if split is None:
            found = f"split = {record['split']!r}" if fields is None else f"split_rule = {fields!r}"
            raise InputError(f"{place}: {found[:200]} is no known split; restore the file, or prepare the data again")
        return split

    @classmethod
    def _from_fields(cls, fields: Any) -> Self | None:
        match fields:
            case {"rule": "leave-one-out", "repeats": bool(repeats), **rest} if not rest:
                return cls(repeats=repeats)
            case {"rule": "cold-items", "cold_share": float(share), **rest} if not rest and 0 < share < 1:
                return cls(cold_share=share)
            case {"rule": "ratio", "repeats": bool(repeats), "held_out_share": float(share), **rest}:
                return cls(repeats=repeats, held_out_share=share) if not rest and 0 < share < 0.5 else None
            case {
                "rule": "global-time",
                "repeats": bool(repeats),
                "validation_from": str() | int() | float() as first,
                "test_from": str() | int() | float() as second,
                **rest,
            } if not rest:
                return cls(repeats=repeats, time_cuts=TimeCuts(first, second))
        return None

    @classmethod
    def _from_description(cls, text: str) -> Self | None:
        share = re.match(r"cold items: (0\.\d+|\d+(?:\.\d+)?e-\d+) of the items", text)
        known = [cls(cold_share=float(share[1]))] if share else [cls(), cls(repeats=True)]
        return next((split for split in known if split.description == text), None)

    def with_repeats(self, repeats: bool) -> "Split":
        """Return the split with repeats kept, if wanted. Raises `InputError` if it is by cold items."""
        return replace(self, repeats=self.repeats or repeats)

    def mark_cold_items(self, items: pl.DataFrame) -> pl.DataFrame:
        """Add the public column `cold`, if the split is by cold items. It depends on an item's id alone."""
        if not self.cold_share:
            return items
        cold = [_hash_position(item_id) < self.cold_share for item_id in items["item_id"]]
        return items.with_columns(cold=pl.Series(cold, dtype=pl.Boolean))

    def at_moments_of(self, times: pl.Series) -> "Split":
        """Return the split with its two moments as a table with these times (T,) has them: dates, if it has dates.

        A moment that is not named is the one after 80 or 90 % of the events. Raises `InputError` if a moment is none,
        or if they are not in order.
        """
        if not self.time_cuts:
            return self
        return replace(self, time_cuts=_resolve(self.time_cuts, times))

    def cut_histories(self, histories: Histories, items: pl.DataFrame) -> Histories:
        """Cut the histories as a shard holds them; the users keep their order."""
        if self.cold_share:
            return cut_around_cold(histories, items["cold"].to_numpy())
        if self.held_out_share:
            return cut_by_ratio(histories, self.held_out_share)
        if self.time_cuts:
            assert histories.times is not None
            latest = histories.times.max(initial=0)
            first, second = (as_number(moment or 0, latest, name) for name, moment in vars(self.time_cuts).items())
            return cut_by_time(histories, first, second)
        return histories


LEAVE_ONE_OUT = Split()

_IN_WORDS = {
    "leave-one-out": (
        "leave-one-out by time: stable sort by timestamp, ties in file order; "
        "the last event is the test item, the one before it the validation item"
    ),
    "ratio": (
        "ratio per user: the last {0.held_out_share:g} of a user's events, at least one, are for test, as many before "
        "them for validation; the first of each part is the item to rank, and the history of test ends before the "
        "test part; stable sort by timestamp, ties in file order"
    ),
    "global-time": (
        "global time: nobody trains on an event at or after {0.time_cuts.validation_from}; a user's first event from "
        "then on is the validation item, the first one at or after {0.time_cuts.test_from} the test item, and the "
        "history of test has all events before that moment; who has no such event is not ranked; stable sort by "
        "timestamp, ties in file order"
    ),
}
"""The rules in words; a manifest of version 0.1 is read by the words of the first."""


@dataclass(frozen=True)
class SplitOptions:
    """A split as a caller asks for it: the name of a rule, and the options that it has."""

    rule: str = PUBLISHED
    cold_share: float | None = None
    held_out_share: float | None = None
    validation_from: Moment | None = None
    test_from: Moment | None = None

    def __post_init__(self) -> None:
        """Raise `InputError` for a rule that is not known, an option without use, or an impossible share."""
        if self.rule not in (PUBLISHED, *RULES):
            raise InputError(f"`split` = {self.rule!r} is not known; choose {' or '.join(RULES)}")
        for name, (rule, most) in _OPTIONS.items():
            if (value := getattr(self, name)) is None:
                continue
            if self.rule != rule:
                raise InputError(f"`{name}={value}` has no effect without `split={rule}`; give both or none")
            if most and not 0 < value < most:
                raise InputError(f"`{name}={value:g}`: some are held out, not all; give a share between 0 and {most:g}")

    def choose(self, published: Split) -> Split:
        """Return the split; `published` is the dataset's own."""
        if self.rule == PUBLISHED or self.rule == published.rule == RULES[0]:
            return published
        if self.rule == RULES[3]:
            return Split(cold_share=self.cold_share or COLD_SHARE)
        if self.rule == RULES[1]:
            return Split(repeats=published.repeats, held_out_share=self.held_out_share or HELD_OUT_SHARE)
        cuts = TimeCuts(self.validation_from, self.test_from) if self.rule == RULES[2] else None
        return Split(repeats=published.repeats, time_cuts=cuts)


_OPTIONS = {
    "cold_share": ("cold-items", 1),
    "held_out_share": ("ratio", 0.5),
    "validation_from": ("global-time", 0),
    "test_from": ("global-time", 0),
}
"""The options, the rule that has each, and the share that it may not reach; 0: it is no share."""


def _resolve(cuts: TimeCuts, times: pl.Series) -> TimeCuts:
    """Convert the moments as `Split.at_moments_of` does."""
    ordered, latest = times.sort(), times.max()
    if not isinstance(latest, int | float):
        return cuts
    found = []
    for name, share in (("validation_from", TRAINED), ("test_from", READ)):
        moment = getattr(cuts, name)
        at = ordered[min(int(share * len(times)), len(times) - 1)]
        found.append(at if moment is None else as_number(moment, latest, name))
    if not found[0] < found[1]:
        raise InputError(f"`test_from` = {found[1]} is not after `validation_from` = {found[0]}; give a later one")
    return TimeCuts(*(as_moment(number, latest) for number in found))


def _hash_position(item_id: str) -> float:
    """Hash an item's id to a number in [0, 1): the cold items of a larger share include those of a smaller one."""
    return int.from_bytes(hashlib.blake2b(item_id.encode(), digest_size=8, person=b"cold").digest()) / 2**64
