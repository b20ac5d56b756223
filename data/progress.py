"""The progress of long work."""

from collections.abc import Callable

Progress = Callable[[int, int | None], None]
"""A function that is called with the amount done and the total, which is None if it is unknown."""
