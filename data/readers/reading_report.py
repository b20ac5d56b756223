"""The report of a preparation: each step between the rows of a file and the histories, with a count and an example."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypedDict

from fedrec.data.errors import InputError

MAX_SHOWN = 60
"""The maximum number of characters of a value in a message."""


def shorten(value: object) -> str:
    """Format a value from a file on one line, cut if it is long."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…") if value is not None else "None"


def join_names(names: list[str], most: int = 30) -> str:
    """Format names of columns on one line: a file that is no table may have anything as a name."""
    shown = [name if name.isprintable() and 0 < len(name) <= MAX_SHOWN else shorten(name) for name in names[:most]]
    return ", ".join(shown) + f" and {len(names) - most:,} more" * (len(names) > most)


@dataclass(frozen=True)
class BadRows:
    """The number of bad rows among all rows of a file, and the place and the fault of the first one."""

    count: int
    total: int
    first: str = ""


class State(TypedDict):
    """What is left after a step of a preparation."""

    step: str
    users: int
    items: int
    events: int


@dataclass
class ReadingReport:
    """Counts for the manifest, and lines for the terminal of the data's owner; only the lines hold examples."""

    emit: Callable[[str], None] = lambda line: None
    strict: bool = False  # refuse a step that leaves out or replaces anything without an option that requests it
    counts: dict[str, int] = field(default_factory=dict)
    states: list[State] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)
    objections: list[str] = field(default_factory=list)
    """The lines of the steps that no option requests."""

    def add_step(self, step: str, count: int, line: str, requested: bool = False) -> None:
        """Add a step. `line` begins with the thing counted; `requested` if an option requests the step."""
        self.counts[step] = self.counts.get(step, 0) + count
        if not count:
            return
        self._lines.append(line)
        if not requested:
            self.objections.append(line)

    def add_bad_rows(self, step: str, bad: "BadRows", allowed: float) -> None:
        """Add the bad rows of a file. Raises `InputError` if their share is larger than the allowed one."""
        if bad.count > allowed * bad.total:
            limit = f", and `bad_rows` allows a share of {allowed:g}" * (allowed > 0)
            raise InputError(
                f"{bad.first}; mend or remove the row ({bad.count:,} of {bad.total:,} rows are bad{limit})"
            )
        self.add_step(step, bad.count, f"bad rows, left out: {bad.count:,} of {bad.total:,}; the first is {bad.first}")

    def add_state(self, step: str, users: int, items: int, events: int) -> None:
        """Add what is left after a step."""
        self.states.append({"step": step, "users": users, "items": items, "events": events})

    def add_remark(self, line: str) -> None:
        """Add a line that counts nothing."""
        self._lines.append(line)

    def finish(self) -> None:
        """Emit the lines of all steps so far. Raises `InputError` if `strict` and a step was not requested."""
        lines, self._lines = self._lines, []
        if self.strict and self.objections:
            raise InputError(f"`strict`: nothing is written. {'. '.join(self.objections)}")
        for line in lines:
            self.emit(line)
