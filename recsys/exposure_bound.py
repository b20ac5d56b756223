"""A bound on the users whom an item is shown to, by the users who have it.

An item that few users have, and that many are shown, is there by its text, by chance, or by users who lie about what
they learned. So an item may be shown to as many users as have had it, and any item to a few more. What is beyond that
is taken off by a *bias*: a number, at most 0, that is added to every score of the item.

Liars can forge histories. So the share of users who are taken for liars is subtracted from those who have an item.
They can also be silent about their lists: of a share λ of liars, an item may then be shown to 1 / (1 - λ) times as many
honest users as it should. Shapes: N items, K rows that are watched.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, Self

import torch
from annotated_types import Interval
from pydantic import ConfigDict
from torch import Tensor
from torch.nn import functional as F

from fedrec.recsys.model.lora import Adapter

LISTED = 10
"""The length of the lists in which items are counted."""
EXPOSED = "test"
"""The split whose histories are counted: all events of a user but the test item."""
BIAS, WATCHED = "exposure.bias", "exposure.watched"
"""The tensors beside an adapter: (N,) float32, and (K,) int64 of rows, with -1 in places that are free."""
MOST_WATCHED = 1024
"""The most rows that are watched at once: no more items can be in the lists of one user of a hundred."""
EDGES = (2.0 ** (torch.arange(-47, 17, dtype=torch.float64) / 4)).float()
"""The upper edges of the histogram of margins: quarters of an octave, from 2⁻¹² to 16. The last bin has larger ones,
too."""


AUTO_BASE = 0.015
"""The base of a run that bounds exposure by default."""
AVERAGES = 2.5
"""How many times the average any item may be shown: in a small catalogue the average is near the base."""


@dataclass(frozen=True)
class ExposureConfig:
    """How widely an item may be shown."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    exposure_base: Annotated[float, Interval(ge=0, le=1)] | Literal["auto"] = "auto"
    """Share of the users to whom an item may be shown in a list of ten, however few have had it. An item that more
    users have had may be shown to as many. In a small catalogue it is at least 2.5 times the average. 0: no bound;
    auto: 0.015 if towers are trained without epsilon and the nodes tell what they would show, and else no bound."""
    exposure_liars: Annotated[float, Interval(ge=0, lt=0.5)] = 0.05
    """Share of the users whose histories may be forged, if exposure is bounded."""

    @property
    def is_auto(self) -> bool:
        """Whether the bound is the default, which a run can do without."""
        return self.exposure_base == "auto"

    @property
    def limit(self) -> "ExposureLimit":
        """The limit that these settings ask for."""
        return ExposureLimit(AUTO_BASE if self.exposure_base == "auto" else self.exposure_base, self.exposure_liars)


@dataclass(frozen=True)
class ExposureLimit:
    """The limit of a run: shares of the users to whom any item may be shown, and whose histories may be forged."""

    base: float
    liars: float

    def allowed(self, had: Tensor, users: int) -> Tensor:
        """Compute in how many users' lists each item may be, of so many users: (N,), from the users who have it (N,).

        An item that was not asked about has had = 0.
        """
        least = max(self.base, AVERAGES * LISTED / len(had))
        return (had - self.liars * users).clamp(min=least * users)


@dataclass(frozen=True, eq=False)
class Exposure:
    """What some users are shown, in sums over them: it adds, and every number is whole."""

    users: int
    shown: Tensor  # (N,) lists that an item is in
    had: Tensor  # (K,) users with a watched item in their history
    margins: Tensor  # (K, bins) lists that a watched item is in, by its score less that of the best item left out

    @property
    def tensors(self) -> Adapter:
        """The counts as they travel, beside the number of users."""
        return {"shown": self.shown, "had": self.had, "margins": self.margins}

    @classmethod
    def template(cls, items: int) -> Adapter:
        """Return tensors of the shapes that an answer has."""
        watched = count_watched(items)
        shapes = {"shown": (items,), "had": (watched,), "margins": (watched, len(EDGES))}
        return {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}


def count_watched(items: int) -> int:
    """Return K, the number of places for watched rows in a catalogue of N = `items` items."""
    return min(items, MOST_WATCHED)


@dataclass(frozen=True, eq=False)
class Bounding:
    """A bound under way: the biases so far, the rows that are watched next, and what is known of the items."""

    limit: ExposureLimit
    bias: Tensor  # (N,) float32
    watched: Tensor  # (K,) int64, -1 in free places
    had: Tensor  # (N,) users who have an item; 0 of items that were not watched
    excess: int = 0  # items that are shown too widely, by the last sums

    @classmethod
    def start(cls, limit: ExposureLimit, items: int) -> Self:
        """Begin with no bias, and nothing watched."""
        free = torch.full((count_watched(items),), -1, dtype=torch.int64)
        return cls(limit, torch.zeros(items), free, torch.zeros(items, dtype=torch.float64))

    @property
    def lowered(self) -> int:
        """The number of items with a bias."""
        return int((self.bias < 0).sum())

    @property
    def order(self) -> Adapter:
        """The tensors that the next order brings."""
        return {BIAS: self.bias, WATCHED: self.watched}

    def step(self, found: Exposure) -> "Bounding":
        """Lower the watched items that are shown too widely, and watch all that are.

        A bias is lowered by the margin that as many lists have as are too many, rounded up to an edge. That lifts other
        items, so that it takes some steps.
        """
        places = (self.watched >= 0).nonzero().squeeze(1)
        rows = self.watched[places]
        had = self.had.index_copy(0, rows, found.had[places])
        allowed = self.limit.allowed(had, found.users)
        bias = self.bias.index_add(0, rows, -_lowered_by(found.margins[places], allowed[rows]))
        wide = found.shown > allowed
        excess = found.shown - allowed
        order = torch.argsort(-excess, stable=True)[: min(int(wide.sum()), len(self.watched))]
        watched = torch.full_like(self.watched, -1)
        watched[: len(order)] = order.sort().values
        return Bounding(self.limit, bias, watched, had, int(wide.sum()))


def _lowered_by(margins: Tensor, allowed: Tensor) -> Tensor:
    """Compute by what each item's score must fall, to be in no more lists than are allowed: (k, bins), (k,) → (k,)."""
    above = margins.flip(1).cumsum(1).flip(1)  # lists with a margin in this bin or a higher one
    too_many = (above > allowed.unsqueeze(1)).sum(1)  # the bins up to the one that must fall
    return torch.cat([torch.zeros(1), EDGES])[too_many]


@dataclass(frozen=True, eq=False)
class ExposureBound:
    """The biases of a finished model, as one more number of each vector.

    An item's number is its bias over the largest one, so that its vector grows little; a user's is the largest bias.
    """

    bias: Tensor  # (N,) float32, at most 0, and below 0 for an item at least

    @classmethod
    def of(cls, bias: Tensor | None) -> Self | None:
        """Build the bound of biases; None if all are 0, or there are none."""
        return None if bias is None or not bias.any() else cls(bias)

    @cached_property
    def largest(self) -> float:
        """The size of the largest bias."""
        return float(-self.bias.min())

    @property
    def column(self) -> Tensor:
        """The numbers of the items: (N, 1), from -1 to 0."""
        return (self.bias / self.largest).unsqueeze(1)

    def extend_users(self, users: Tensor) -> Tensor:
        """Append the users' number to user vectors whose scores the biases are for, and scale them to unit length: (B,
        W) → (B, W + 1). Zeros stay zeros."""
        constant = self.largest * users.any(-1, keepdim=True)
        return F.normalize(torch.cat([users, constant.to(users)], dim=-1), dim=-1)


def tensors_of(vectors: Tensor, bound: ExposureBound | None) -> dict[str, Tensor]:
    """Return the tensors of the file of item vectors: the towers' (N, E), and biases (N,) if there are some."""
    return {"vectors": vectors} | ({"bias": bound.bias} if bound else {})


def split_bias(adapter: Adapter) -> tuple[Adapter, Tensor | None]:
    """Split the biases (N,) from an adapter that they travel beside."""
    return {name: t for name, t in adapter.items() if name not in (BIAS, WATCHED)}, adapter.get(BIAS)
