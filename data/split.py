"""What is held out of the histories. A shard says it by place: the last event is the test item, the one before it
the validation item."""

from dataclasses import dataclass

ONCE = "a user's later events with an item are dropped"
REPEATED = "repeats are kept, so that no published held-out item moves; a held-out item is ranked though it was seen"


@dataclass(frozen=True)
class Split:
    """Leave-one-out by time."""

    repeats: bool = False  # keep a user's later events with an item, where a published split counts them

    @property
    def rule(self) -> str:
        """The rule in words, for the manifest and the card."""
        return (
            "leave-one-out by time: stable sort by timestamp, ties in file order; the last event is the test item, "
            f"the one before it the validation item; {REPEATED if self.repeats else ONCE}"
        )


LEAVE_ONE_OUT = Split()
