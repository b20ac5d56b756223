"""The account of a preparation: each step between the rows of a file and the histories, with a count and an example."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fedrec.data.errors import InputError

SHOWN = 60
"""Characters of a value in a message."""


def shortened(value: object) -> str:
    """Show a value from a file on one line, cut if it is long."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…") if value is not None else "None"


def listed(names: list[str], most: int = 30) -> str:
    """Show names of columns on one line: those of a file that is no table may hold anything."""
    shown = [name if name.isprintable() and 0 < len(name) <= SHOWN else shortened(name) for name in names[:most]]
    return ", ".join(shown) + f" and {len(names) - most:,} more" * (len(names) > most)


@dataclass
class Account:
    """Counts for the manifest, and lines for the terminal of who owns the data: examples stand in the lines alone."""

    tell: Callable[[str], None] = lambda line: None
    strict: bool = False  # refuse if a step leaves out or replaces anything that nobody asked for
    counts: dict[str, int] = field(default_factory=dict)
    _lines: list[str] = field(default_factory=list)
    _objections: list[str] = field(default_factory=list)

    def note(self, step: str, count: int, line: str, asked: bool = False) -> None:
        """Add a step. `line` begins with what is counted; `asked` says that an option asked for it."""
        self.counts[step] = self.counts.get(step, 0) + count
        if not count:
            return
        self._lines.append(line)
        if not asked:
            self._objections.append(line)

    def remark(self, line: str) -> None:
        """Tell something that leaves nothing out."""
        self._lines.append(line)

    def settle(self) -> None:
        """Tell all steps so far. Raises `InputError` if `strict` and a step was not asked for."""
        lines, self._lines = self._lines, []
        if self.strict and self._objections:
            raise InputError(f"--strict: nothing is written. {'. '.join(self._objections)}")
        for line in lines:
            self.tell(line)
