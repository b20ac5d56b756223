"""A service that keeps and searches vectors outside of the process: what is asked of one, of whatever make."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from fedrec.data.errors import InputError

KEPT = 3
"""The newest versions of a dataset's index that stay: two that answer side by side, and one that is about to."""


class IndexAwayError(Exception):
    """A service that cannot be used now: it is away, or somebody has removed what it kept."""


@dataclass(frozen=True)
class IndexKey:
    """Which vectors an index holds. Another version is another index, so none is changed while it is searched."""

    series: str  # of a dataset: its versions follow one another
    digest: str  # of the model's version and of the vectors
    items: int  # N
    width: int  # W

    @property
    def name(self) -> str:
        """The name of the collection or table."""
        return f"{self.series}_{self.digest}"

    def check(self, place: str, items: int, width: int) -> None:
        """Raise `InputError` if what a service holds under the name has other sizes."""
        if (items, width) != (self.items, self.width):
            raise InputError(
                f"{place}: {self.name} holds {items:,} vectors of width {width}, and the model has {self.items:,} of "
                f"{self.width}; remove it there, and it will be rebuilt"
            )


class Tuning(NamedTuple):
    """How thoroughly an index is searched, and the share of the nearest rows that this finds."""

    effort: int  # candidates that the graph is searched with (`ef`); 0: every vector is compared
    recall: float


class Rows(NamedTuple):
    """Which rows a search may return: `only` these, `never` these, or all."""

    only: np.ndarray | None = None
    never: np.ndarray | None = None


Hits = tuple[np.ndarray, np.ndarray]
"""Rows (n,) and their inner products (n,), best first."""

Ask = Callable[[np.ndarray, int, int], Hits]
"""A function from a vector (W,), a number of rows and an effort to the nearest rows of an index."""

Tune = Callable[[Ask], Tuning]


class VectorService(Protocol):
    """A service. All methods raise `IndexAwayError` if it cannot be used."""

    def find(self, key: IndexKey) -> Tuning | None:
        """Return how the index of a key is searched; None if there is none. Raises `InputError` for other sizes."""
        ...

    def publish(self, key: IndexKey, matrix: np.ndarray, tune: Tune) -> Tuning:
        """Build an index of vectors (N, W), which is found once it is whole; remove all but the newest `KEPT`."""
        ...

    def search(self, key: IndexKey, vector: np.ndarray, count: int, rows: Rows, effort: int) -> Hits:
        """Return the `count` rows with the highest inner product, or fewer if there are fewer."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
