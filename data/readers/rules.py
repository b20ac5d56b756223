"""The rules by which events become histories. A manifest records them, so that a node reads its own table alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedrec.data.errors import InputError
from fedrec.data.user_salts import SaltRule

FEWEST = 3
"""The minimum number of events per user: one each for training, validation and test."""


@dataclass(frozen=True)
class Rules:
    """Which events and users count. Whether repeats count is a matter of the split."""

    min_events: int = FEWEST
    max_events: int | None = None  # users with more are left out: bots
    event_column: str | None = None
    keep_events: tuple[str, ...] = ()  # values of `event_column` that count; empty: all
    times: bool = True  # False: the file is in the order of time
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

    def as_record(self) -> dict[str, Any]:
        """Return the rules that a manifest holds beside `min_events`."""
        kinds = {"event_column": self.event_column, "keep_events": list(self.keep_events)}
        return {"max_events": self.max_events, "times": self.times, **kinds}

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
        )


DEFAULT_RULES = Rules()
