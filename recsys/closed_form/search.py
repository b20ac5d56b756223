"""The search for hyperparameters that need no other sums: the ridges and, in a hybrid, the blend's share.

One list after the other is searched, at the best values of the lists before and the middle values of those after.
"""

from dataclasses import asdict, dataclass, replace
from functools import cached_property

from fedrec.recsys.closed_form.config import ClosedFormConfig


@dataclass(frozen=True)
class Hyperparameters:
    """The choices that lead from sums to scores."""

    ridge: float  # λ; with features `pairs`, the weight of the texts
    decode: float  # μ; of effect with features `text` alone
    share: float  # of the closed form in a blend; 1 without towers

    def as_record(self) -> dict[str, float]:
        """Return the choices as data, for the log and the card."""
        return asdict(self)


@dataclass(frozen=True)
class SearchSpace:
    """The values to choose from, in the order in which they are searched."""

    values: dict[str, tuple[float, ...]]

    @classmethod
    def of(cls, config: ClosedFormConfig, blended: bool) -> "SearchSpace":
        """Build the space of a closed form, alone or blended with towers."""
        decodes = config.decodes if config.features == "text" else (config.decodes[len(config.decodes) // 2],)
        ridges = config.pair_priors if config.features == "pairs" else config.ridges
        return cls({"ridge": ridges, "decode": decodes, "share": config.blend_shares if blended else (1.0,)})

    @property
    def middle(self) -> Hyperparameters:
        """The middle value of each list."""
        return Hyperparameters(**{name: values[len(values) // 2] for name, values in self.values.items()})

    @cached_property
    def _changes(self) -> list[dict[str, float]]:
        """Each value that is not in the middle, with its name."""
        middle = asdict(self.middle)
        return [{name: value} for name, values in self.values.items() for value in values if value != middle[name]]

    def __len__(self) -> int:
        """Count the candidates: the middle, and every other value of each list."""
        return 1 + len(self._changes)

    def propose(self, number: int, best: Hyperparameters | None) -> Hyperparameters:
        """Return candidate `number`, from 0, given the best of those before it; the middle is the first."""
        return replace(best or self.middle, **self._changes[number - 1]) if number else self.middle
