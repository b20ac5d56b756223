"""What the console script answers, and what a refusal looks like."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def answer(self) -> Any:
        """The answer that a program reads: all of stdout as one JSON value."""
        assert self.code == 0, self.err
        return json.loads(self.out)


Fedrec = Callable[..., Outcome]


def is_refused(outcome: Outcome, *words: str) -> None:
    """Check for status 2, nothing on stdout, and one line on stderr (beside notes) that holds all of `words`."""
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    (line,) = [line for line in outcome.err.splitlines() if not line.startswith("note ")]
    assert line.startswith("fedrec: ")
    for word in words:
        assert word in line
