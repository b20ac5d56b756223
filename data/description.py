"""The figures that describe a prepared dataset: its size, and how histories, popularity and texts are spread.

Shapes: T training events, U users, N items.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from fedrec.data.catalogue import Catalogue
from fedrec.data.shard import HELD_OUT, Shard

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
HEADS = (0.01, 0.1)
"""The shares of the items, the most popular ones, of whose events the share is told."""


@dataclass(frozen=True, eq=False)
class Spread:
    """The distribution of a number."""

    values: np.ndarray  # sorted

    @classmethod
    def of(cls, values: np.ndarray) -> Self:
        """Sort values, of which there is at least one."""
        return cls(np.sort(values))

    @property
    def quantiles(self) -> tuple[int, ...]:
        """The values at `QUANTILES`, each one that occurs."""
        return tuple(int(value) for value in np.quantile(self.values, QUANTILES, method="lower"))

    @property
    def mean(self) -> float:
        """The mean value."""
        return float(self.values.mean())

    def as_record(self) -> dict[str, Any]:
        """Return the quantiles and the mean as plain values, for JSON."""
        named = {f"{share:.0%}": value for share, value in zip(QUANTILES, self.quantiles, strict=True)}
        return named | {"mean": self.mean}


@dataclass(frozen=True)
class Part:
    """A split's part of a dataset: what it trains on, or whom it ranks."""

    users: int  # who train, or who are ranked
    events: int  # training events, or held-out items
    items: int  # different ones among them
    history: float  # mean number of events that it reads of such a user


@dataclass(frozen=True, eq=False)
class Description:
    """The figures of a dataset. Private, as its histories are: single users are the ends of the spreads."""

    name: str
    users: int
    items: int
    events: int
    parts: dict[str, Part]  # by split
    histories: Spread  # training events of each user
    popularity: Spread  # training events of each item
    texts: Spread  # characters of each item's text
    bare_items: int  # items known by their id alone
    time_range: tuple[Any, Any] | None  # of the first and the last event; None for folders of version 0.1

    @property
    def sparsity(self) -> float:
        """The share of pairs of a user and an item without an event."""
        return 1 - self.events / (self.users * self.items)

    def head_share(self, share: float) -> float:
        """Compute the share of the training events that the most popular `share` of the items has."""
        count = max(1, round(share * self.items))
        return float(self.popularity.values[-count:].sum() / self.popularity.values.sum())

    def as_record(self) -> dict[str, Any]:
        """Return the figures as plain values, for JSON."""
        plain = {name: getattr(self, name) for name in ("name", "users", "items", "events", "sparsity")}
        spreads = {name: getattr(self, name).as_record() for name in ("histories", "popularity", "texts")}
        return {
            **plain,
            "splits": {name: asdict(part) for name, part in self.parts.items()},
            **spreads,
            "head_shares": {f"{share:.0%}": self.head_share(share) for share in HEADS},
            "untrained_items": int((self.popularity.values == 0).sum()),
            "bare_items": self.bare_items,
            "time_range": self.time_range,
        }


def describe(catalogue: Catalogue, shard: Shard, manifest: Mapping[str, Any]) -> Description:
    """Describe a dataset by its three parts."""
    trained = shard.events("train")[1]  # (T,)
    times = manifest.get("time_range")
    return Description(
        name=manifest["name"],
        users=len(shard),
        items=len(catalogue),
        events=int((shard.items >= 0).sum()) if shard.held is None else int(shard.lengths().sum()),
        parts={split: _describe_part(shard, split) for split in HELD_OUT},
        histories=Spread.of(shard.lengths(HELD_OUT["train"])),
        popularity=Spread.of(np.bincount(trained, minlength=len(catalogue))),
        texts=Spread.of(catalogue.frame["text"].str.len_chars().to_numpy()),
        bare_items=int((catalogue.frame["text"] == catalogue.frame["item_id"]).sum()),
        time_range=tuple(times) if times else None,
    )


def _describe_part(shard: Shard, split: str) -> Part:
    everyone = np.arange(len(shard))
    lengths = shard.lengths(HELD_OUT[split])  # (U,)
    if split == "train":
        items = shard.events("train")[1]
        return Part(len(shard), len(items), len(np.unique(items)), float(lengths.mean()))
    ranked = shard.ranked(everyone, split)
    mean = float(lengths[ranked].mean()) if len(ranked) else 0.0
    return Part(len(ranked), len(ranked), len(np.unique(shard.held_out(ranked, split))), mean)
