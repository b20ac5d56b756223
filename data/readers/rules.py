"""The rules by which events become histories. A manifest records them: a node reads its own table by the same."""

from dataclasses import dataclass
from typing import Any

from fedrec.data.errors import InputError

FEWEST = 3
"""Events that a user needs: one to train on, one to validate and one to test."""


@dataclass(frozen=True)
class Rules:
    """Which events and users count. Whether repeats do is the split's affair."""

    min_events: int = FEWEST
    max_events: int | None = None  # users with more are left out: bots
    event_column: str | None = None
    keep_events: tuple[str, ...] = ()  # the values of `event_column` that count; none: all events do
    times: bool = True  # False: the order of the file is the order in time
    popularity: bool = True  # count in the catalogue how many users had each item
    strict: bool = False  # refuse where anything would be left out that no option asks for; not recorded

    def __post_init__(self) -> None:
        """Raises `InputError` for rules that leave nobody."""
        if self.min_events < FEWEST:
            raise InputError(
                f"--min-events {self.min_events}: a user needs {FEWEST}, to train, to validate and to test; give more"
            )
        if self.max_events is not None and self.max_events < self.min_events:
            raise InputError(
                f"--max-events {self.max_events} is less than --min-events {self.min_events}; nobody would be left"
            )
        if (self.event_column is None) != (not self.keep_events):
            raise InputError(
                "--event-column names the column of kinds, --keep-events the kinds that count; give both or none"
            )

    def recorded(self) -> dict[str, Any]:
        """What a manifest holds beside `min_events`."""
        kinds = {"event_column": self.event_column, "keep_events": list(self.keep_events)}
        return {"max_events": self.max_events, "times": self.times, **kinds}

    @classmethod
    def of_manifest(cls, manifest: dict[str, Any]) -> "Rules":
        """Those by which a dataset was prepared. Manifests of earlier versions know `min_events` alone."""
        told = manifest.get("rules", {})
        return cls(
            min_events=manifest["min_events"],
            max_events=told.get("max_events"),
            event_column=told.get("event_column"),
            keep_events=tuple(told.get("keep_events", ())),
            times=told.get("times", True),
        )


DEFAULT_RULES = Rules()
