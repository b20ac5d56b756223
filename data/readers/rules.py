"""The rules by which events become histories. A manifest records them, so that a node reads its own table alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedrec.data.errors import InputError
from fedrec.data.moments import Moment
from fedrec.data.user_salts import SaltRule

FEWEST = 3
"""The minimum number of events per user: one each for training, validation and test."""


FILTERS = ("min_rating", "rating_column", "since", "until", "user_core", "item_core")
"""The fields that version 0.1 did not record."""


@dataclass(frozen=True)
class Rules:
    """Which events, users and items count. Whether repeats count is a matter of the split.

    The filters apply in this order: kinds of events, rating, dates, repeats, bots, k-core, and at last the fewest
    events that a user needs.
    """

    min_events: int = FEWEST
    max_events: int | None = None  # users with more are left out: bots
    event_column: str | None = None
    keep_events: tuple[str, ...] = ()  # values of `event_column` that count; empty: all
    times: bool = True  # False: the file is in the order of time
    min_rating: float | None = None  # events with a lower rating, or with none, are left out
    rating_column: str = "rating"
    since: Moment | None = None  # events before it are left out
    until: Moment | None = None  # events at or after it are left out
    user_core: int = 0  # users with fewer events are left out, again and again with the items
    item_core: int = 0  # items with fewer events are left out, also of the catalogue
    popularity: bool = True  # count in the catalogue the users who had each item
    strict: bool = False  # refuse to leave out anything that no option asks to leave out; not recorded
    salts: SaltRule = "random"  # of a dataset that is not published

    def __post_init__(self) -> None:
        """Raise `InputError` for rules that select no user."""
        if self.min_events < FEWEST:
            raise InputError(
                f"`min_events={self.min_events}`: training, validation and test need one each; give {FEWEST} or more"
            )
        if self.max_events is not None and self.max_events < self.min_events:
            raise InputError(
                f"`max_events={self.max_events}` is less than `min_events={self.min_events}`; give a larger one"
            )
        if (self.event_column is None) != (not self.keep_events):
            raise InputError(
                "`event_column` names the column of kinds, `keep_events` the kinds that count; give both or none"
            )
        for name in ("user_core", "item_core"):
            if (least := getattr(self, name)) < 0:
                raise InputError(f"`{name}={least}`: give a number of events, or 0 for any")
        if not self.times and not (self.since is None and self.until is None):
            raise InputError("`since` and `until` need times; leave them out, or leave `no_times` out")

    def as_record(self) -> dict[str, Any]:
        """Return the rules that a manifest holds beside `min_events`."""
        kinds = {"event_column": self.event_column, "keep_events": list(self.keep_events)}
        filters = {name: getattr(self, name) for name in FILTERS}
        return {"max_events": self.max_events, "times": self.times, **kinds, **filters}

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "Rules":
        """Return the rules by which a dataset was prepared. Manifests of early versions have `min_events` alone."""
        rules = manifest.get("rules", {})
        return cls(
            min_events=manifest["min_events"],
            max_events=rules.get("max_events"),
            event_column=rules.get("event_column"),
            keep_events=tuple(rules.get("keep_events", ())),
            times=rules.get("times", True),
            **{name: rules[name] for name in FILTERS if name in rules},
        )


DEFAULT_RULES = Rules()
