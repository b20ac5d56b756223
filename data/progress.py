"""How long work reports its progress."""

from collections.abc import Callable

Progress = Callable[[int, int | None], None]
"""Called with the amount that is done and the total, which is None if it is unknown."""
