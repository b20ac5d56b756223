"""What is held out of the histories, and of the catalogue."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.histories import Histories
from fedrec.data.shard import NOTHING

RULES = ("leave-one-out", "cold-items")
COLD_SHARE = 0.1


@dataclass(frozen=True)
class Split:
    """Leave-one-out by time; with a share of cold items, a test of ranking items that nobody has touched.

    Cold items occur in no training event, and training draws none as a negative, yet their texts are public. The two
    held-out items of a user are cold, and what the user had between them is left out. What `test` may read ends with
    the validation item: by then the user has had it, and a tower that reads texts can make use of a cold item too.
    """

    cold_share: float = 0.0  # about this share of the items is cold
    repeats: bool = False  # keep a user's later events with an item, where a published split counts them

    @property
    def suffix(self) -> str:
        """What tells a dataset in this split from the same one as it is usually split."""
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
        """The same split, with repeats kept if they are wanted. Raises `InputError` for one without a use for them."""
        if repeats and self.cold_share:
            raise InputError(f"--keep-repeats goes with --split {RULES[0]} alone; leave one of them out")
        return replace(self, repeats=self.repeats or repeats)

    def marked(self, items: pl.DataFrame) -> pl.DataFrame:
        """Items with the public column `cold`, where some are. It depends on an item's id alone."""
        if not self.cold_share:
            return items
        places = [_place(item_id) < self.cold_share for item_id in items["item_id"]]
        return items.with_columns(cold=pl.Series(places, dtype=pl.Boolean))

    def divided(self, found: Histories, items: pl.DataFrame) -> Histories:
        """The histories as a shard holds them, of users in the same order."""
        return _around_cold(found, items["cold"].to_numpy()) if self.cold_share else found


LEAVE_ONE_OUT = Split()


def split_of(rule: str, cold_share: float | None, published: Split) -> Split:
    """The split asked for by name. Raises `InputError`."""
    if rule != RULES[1]:
        if cold_share is not None:
            raise InputError(f"--cold-share {cold_share:g} means nothing without --split {RULES[1]}; give both or none")
        return published
    share = COLD_SHARE if cold_share is None else cold_share
    if not 0 < share < 1:
        raise InputError(f"--cold-share {share:g}: some items are cold, not all; give a share between 0 and 1")
    return Split(cold_share=share)


def _place(item_id: str) -> float:
    """Where an item's hash falls between 0 and 1: a larger share of cold items holds every smaller one."""
    return int.from_bytes(hashlib.blake2b(item_id.encode(), digest_size=8, person=b"cold").digest()) / 2**64


def _around_cold(found: Histories, cold: np.ndarray) -> Histories:
    """Each user's warm events before the last cold event but one, then these two.

    Where there are no such events, all warm events, and `NOTHING` twice in the places of the held-out items.
    """
    users = np.repeat(np.arange(len(found.lengths)), found.lengths)  # (t,)
    is_cold = cold[found.items]  # (t,)
    so_far = np.cumsum(is_cold)
    later = so_far[np.cumsum(found.lengths) - 1][users] - so_far  # (t,) the user's cold events after this one
    before = ~is_cold & (later > 1)
    ranked = np.bincount(users[before], minlength=len(found.lengths)) > 0  # (U,)
    kept = np.where(ranked[users], before | (is_cold & (later < 2)), ~is_cold)
    lengths = np.bincount(users[kept], minlength=len(found.lengths))
    ends = np.repeat(np.cumsum(lengths)[~ranked], 2)
    items = np.insert(found.items[kept].astype(np.int32), ends, NOTHING)
    return Histories(found.users, lengths + 2 * ~ranked, items)
