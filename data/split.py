"""Splits: the events that are held out of the histories, and the items that are held out of training."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.histories import Histories
from fedrec.data.shard import NO_ITEM

RULES = ("leave-one-out", "cold-items")
COLD_SHARE = 0.1


@dataclass(frozen=True)
class Split:
    """Leave-one-out by time, or, with a share of cold items, a test of ranking items without training events.

    Cold items occur in no training event and are never sampled as negatives, but their texts are public. The two
    held-out items of a user are cold, and the user's events between them are left out. The history that `test` reads
    ends with the validation item: an item tower that reads texts can make use of a cold item, too.
    """

    cold_share: float = 0.0  # approximate share of the items
    repeats: bool = False  # keep a user's later events with an item, as some published splits do

    @property
    def suffix(self) -> str:
        """The end of a dataset's name that distinguishes this split from its usual one."""
        return f"-{RULES[1]}" if self.cold_share else ""

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
        return (
            "leave-one-out by time: stable sort by timestamp, ties in file order; "
            "the last event is the test item, the one before it the validation item"
        ) + repeated * self.repeats

    def as_record(self) -> dict[str, Any]:
        """Return the split as data, for the manifest and the card."""
        if self.cold_share:
            return {"rule": RULES[1], "cold_share": self.cold_share}
        return {"rule": RULES[0], "repeats": self.repeats}

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
        return None

    @classmethod
    def _from_description(cls, text: str) -> Self | None:
        share = re.match(r"cold items: (0\.\d+|\d+(?:\.\d+)?e-\d+) of the items", text)
        known = [cls(cold_share=float(share[1]))] if share else [cls(), cls(repeats=True)]
        return next((split for split in known if split.description == text), None)

    def with_repeats(self, repeats: bool) -> "Split":
        """Return the split with repeats kept, if wanted. Raises `InputError` if it is by cold items."""
        if repeats and self.cold_share:
            raise InputError(f"`keep_repeats` needs `split={RULES[0]}`; leave one of them out")
        return replace(self, repeats=self.repeats or repeats)

    def mark_cold_items(self, items: pl.DataFrame) -> pl.DataFrame:
        """Add the public column `cold`, if the split is by cold items. It depends on an item's id alone."""
        if not self.cold_share:
            return items
        cold = [_hash_position(item_id) < self.cold_share for item_id in items["item_id"]]
        return items.with_columns(cold=pl.Series(cold, dtype=pl.Boolean))

    def cut_histories(self, histories: Histories, items: pl.DataFrame) -> Histories:
        """Cut the histories as a shard holds them; the users keep their order."""
        return _cut_around_cold(histories, items["cold"].to_numpy()) if self.cold_share else histories


LEAVE_ONE_OUT = Split()


def named_split(rule: str, cold_share: float | None, published: Split) -> Split:
    """Return the split of a rule's name; `published` is the dataset's own leave-one-out.

    Raises `InputError` if `cold_share` is not between 0 and 1, or has no use.
    """
    if rule != RULES[1]:
        if cold_share is not None:
            raise InputError(f"`cold_share={cold_share:g}` has no effect without `split={RULES[1]}`; give both or none")
        return published
    share = COLD_SHARE if cold_share is None else cold_share
    if not 0 < share < 1:
        raise InputError(f"`cold_share={share:g}`: some items are cold, not all; give a share between 0 and 1")
    return Split(cold_share=share)


def _hash_position(item_id: str) -> float:
    """Hash an item's id to a number in [0, 1): the cold items of a larger share include those of a smaller one."""
    return int.from_bytes(hashlib.blake2b(item_id.encode(), digest_size=8, person=b"cold").digest()) / 2**64


def _cut_around_cold(histories: Histories, cold: np.ndarray) -> Histories:
    """Keep each user's warm events before the last two cold events, then these two.

    A user without such events keeps all warm events, and has `NO_ITEM` in both held-out places.
    """
    users = np.repeat(np.arange(len(histories.lengths)), histories.lengths)  # (t,)
    is_cold = cold[histories.items]  # (t,)
    so_far = np.cumsum(is_cold)
    later = so_far[np.cumsum(histories.lengths) - 1][users] - so_far  # (t,) the user's cold events after this one
    before = ~is_cold & (later > 1)
    ranked = np.bincount(users[before], minlength=len(histories.lengths)) > 0  # (U,)
    kept = np.where(ranked[users], before | (is_cold & (later < 2)), ~is_cold)
    lengths = np.bincount(users[kept], minlength=len(histories.lengths))
    ends = np.repeat(np.cumsum(lengths)[~ranked], 2)
    items = np.insert(histories.items[kept].astype(np.int32), ends, NO_ITEM)
    return Histories(histories.users, lengths + 2 * ~ranked, items)
