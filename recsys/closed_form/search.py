"""The search for hyperparameters that need no other sums: the penalties and, in a hybrid, the blend's share.

First the lists: one after the other is searched, at the best values of those before and the middle values of those
after. Then neighbours of the best candidate, in one hyperparameter at a time: a value that was tried beside another
choice or, at the end of a list, one more step of the same size. So a best value at an end is followed beyond it, and
values that were chosen one after the other are tried together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Self

from fedrec.recsys.closed_form.config import LARGEST_DISCOUNT, LARGEST_PENALTY, ClosedFormConfig


@dataclass(frozen=True)
class Hyperparameters:
    """The choices that lead from sums to scores."""

    ridge: float  # λ; with features `pairs`, the weight of the texts
    decode: float  # μ; of effect with features `text` alone
    share: float  # of the closed form in a blend; 1 without towers
    prior: float = 0.0  # κ; earlier runs had none
    discount: float = 0.0  # δ; earlier runs had none

    def as_record(self) -> dict[str, float]:
        """Return the choices as data, for the log and the card."""
        return asdict(self)


@dataclass(frozen=True)
class Trial:
    """A candidate, and its score on validation."""

    chosen: Hyperparameters
    score: float

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """Undo `dataclasses.asdict`."""
        return cls(Hyperparameters(**record["chosen"]), float(record["score"]))


@dataclass(frozen=True)
class SearchSpace:
    """The values to choose from, in the order in which they are searched."""

    values: dict[str, tuple[float, ...]]
    refinements: int = 0  # candidates beyond the lists, at most

    @classmethod
    def of(cls, config: ClosedFormConfig, blended: bool) -> "SearchSpace":
        """Build the space of a closed form, alone or blended with towers."""
        decodes = config.decodes if config.features == "text" else (config.decodes[len(config.decodes) // 2],)
        ridges, priors, discounts = config.ridges, config.priors, config.discounts
        if config.features == "pairs":
            ridges, priors, discounts = config.pair_priors, (0.0,), config.pair_discounts
        shares = config.blend_shares if blended else (1.0,)
        penalties = {"ridge": ridges, "prior": priors, "discount": discounts, "decode": decodes}
        return cls(penalties | {"share": shares}, config.refinements)

    @property
    def middle(self) -> Hyperparameters:
        """The middle value of each list."""
        return Hyperparameters(**{name: values[len(values) // 2] for name, values in self.values.items()})

    @cached_property
    def _changes(self) -> list[dict[str, float]]:
        """Each value that is not in the middle, with its name."""
        middle = asdict(self.middle)
        return [{name: value} for name, values in self.values.items() for value in values if value != middle[name]]

    @property
    def most(self) -> int:
        """The largest number of candidates: the middle, every other value of each list, and the refinements."""
        return 1 + len(self._changes) + self.refinements * any(len(values) > 1 for values in self.values.values())

    def propose(self, trials: Sequence[Trial]) -> Hyperparameters | None:
        """Return the next candidate after some trials, which alone determine it; None at the end of the search."""
        if not trials:
            return self.middle
        best, done = max(trials, key=lambda trial: trial.score).chosen, len(trials) - 1
        if done < len(self._changes):
            return replace(best, **self._changes[done])
        tried = {trial.chosen for trial in trials}
        untried = (one for one in self._neighbours(best, tried) if one not in tried)
        return next(untried, None) if len(trials) < self.most else None

    def _neighbours(self, best: Hyperparameters, tried: set[Hyperparameters]) -> Iterator[Hyperparameters]:
        """Iterate over the neighbours of the best candidate: first those beyond the ends, then those between."""
        beyond, between = list[Hyperparameters](), list[Hyperparameters]()
        for name, listed in self.values.items():
            grid = sorted({*listed, *(getattr(one, name) for one in tried)})
            place = grid.index(getattr(best, name))
            for step, end in ((-1, 0), (1, len(grid) - 1)) if len(grid) > 1 else ():
                if place != end:
                    between.append(replace(best, **{name: grid[place + step]}))
                elif (value := STEPS[name](grid[end - step], grid[end])) is not None:
                    beyond.append(replace(best, **{name: value}))
        yield from (*beyond, *between)


def _next_penalty(before: float, last: float) -> float | None:
    """Go on from two penalties by the same factor; None from 0, or if that is too large."""
    value = last * last / before if before else 0.0
    return _rounded(value) if 0 < value <= LARGEST_PENALTY else None


def _next_discount(before: float, last: float) -> float | None:
    """Go on from two exponents by their difference; None beyond the bounds."""
    value = _rounded(2 * last - before)
    return value if 0 <= value <= LARGEST_DISCOUNT else None


def _next_share(before: float, last: float) -> float | None:
    """Go on from two shares by the same factor of their odds; None at 0 and 1, from where there is no further step."""
    if not 0 < last < 1 or not 0 < before < 1:
        return None
    odds = (last / (1 - last)) ** 2 * (1 - before) / before
    return _rounded(odds / (1 + odds))


def _rounded(value: float) -> float:
    """Round to three digits, so that a log can be read."""
    return float(f"{value:.3g}")


STEPS = {
    "ridge": _next_penalty,
    "prior": _next_penalty,
    "discount": _next_discount,
    "decode": _next_penalty,
    "share": _next_share,
}
"""The step beyond the end of a list: a function of the last two values."""
