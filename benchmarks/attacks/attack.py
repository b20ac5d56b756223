"""The interface of an attack: what the attacker sees, what it guesses, and the score."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from benchmarks.attacks.defences import OFF, Defence
from benchmarks.attacks.scoring import Figures
from benchmarks.attacks.world import Size, World
from fedrec.federation.config import Scalar


@dataclass(frozen=True)
class Case:
    """One experiment of an attack: a row of its table."""

    about: str  # what is attacked, for the reader
    defence: Defence = OFF
    options: Mapping[str, Scalar] = field(default_factory=dict)
    control: bool = False  # True: the defence is off, and the attack must succeed

    @property
    def key(self) -> dict[str, Any]:
        """What decides the outcome, beside the data, the seed and the size of the experiment."""
        return {"about": self.about, "defence": asdict(self.defence), "options": dict(self.options)}

    @property
    def digest(self) -> str:
        """A short hash of the key, for names of folders."""
        return hashlib.blake2b(json.dumps(self.key, sort_keys=True).encode(), digest_size=6).hexdigest()


class Column(NamedTuple):
    """A figure of an attack: its name, its heading, and whether it is a share to show in per cent, or a count."""

    name: str
    heading: str
    percent: bool = False
    count: bool = False


class Bar(NamedTuple):
    """The least figure with which a control counts as a success."""

    figure: str
    least: float


@dataclass(frozen=True)
class Attack:
    """An attack: words for the reader, its cases, and the function that runs one of them."""

    name: str
    title: str
    attacker: str  # who it is, and what it knows
    does: str  # what it does, and how it guesses
    conclusion: str  # what a reader should take from the table
    columns: Sequence[Column]
    bar: Bar
    cases: Callable[[Size], Sequence[Case]]
    measure: Callable[[World, Case], Figures]

    def succeeds(self, figures: Figures) -> bool:
        """Tell whether a control's figures pass the bar."""
        return figures[self.bar.figure] >= self.bar.least


RECOVERY = (
    Column("auc", "AUC"),
    Column("precision", "precision"),
    Column("popularity_auc", "popularity: AUC"),
    Column("popularity_precision", "popularity: precision"),
)
"""The columns of attacks that guess items: against guesses by popularity alone."""
