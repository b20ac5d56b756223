"""Federated dropout: in each round only some of the adapter's low-rank units travel and learn.

Caldas et al. 2018, arXiv:1812.07210; the units are drawn anew for each round and are the same for all its clients. It
keeps units from leaning on each other (Srivastava et al. 2014), and what crosses in both directions shrinks. A unit is
a row of a pair's first factor and the column of its second one; nodes see an adapter of lower ranks and need not know
that there is more.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from data.shard import UNITS
from federation.update import Update
from recsys.lora import Adapter

PAIRS = {"down": "up", "lora_A": "lora_B"}
"""Last names of a pair's factors: (R, in) and (out, R)."""


@dataclass(frozen=True, eq=False)
class Dropout:
    """Which units a round keeps, of each pair by the name of its first factor."""

    kept: dict[str, Tensor]  # (r,) numbers of units, rising
    share: float  # of the units that are kept

    @classmethod
    def drawn(cls, adapter: Adapter, dropout: float, seed: int, round: int) -> "Dropout":
        """Keep a share of 1 − dropout of each pair's units, and at least one."""
        rng = np.random.default_rng([UNITS, seed, round])
        kept = {}
        for first, _ in sorted(_pairs(adapter)) if dropout else ():
            units = len(adapter[first])
            drawn = rng.choice(units, size=max(1, int(units * (1 - dropout) + 0.5)), replace=False)
            kept[first] = torch.from_numpy(np.sort(drawn))
        return cls(kept, 1 - dropout)

    def narrowed(self, adapter: Adapter) -> Adapter:
        """The adapter of kept units; the second factor grows by what the others would have added on average."""
        narrow = dict(adapter)
        for first, second in _pairs(adapter) if self.kept else ():
            units = self.kept[first]
            narrow[first] = adapter[first][units]
            narrow[second] = adapter[second][:, units] / self.share
        return narrow

    def widened(self, update: Update, like: Adapter) -> Update:
        """A sum of changes of the kept units, in the places of all; those of the others are zero."""
        wide = dict(update.deltas)
        for first, second in _pairs(like) if self.kept else ():
            for name, axis, factor in ((first, 0, 1.0), (second, 1, self.share)):
                zeros = torch.zeros(like[name].shape, dtype=wide[name].dtype)
                wide[name] = zeros.index_copy_(axis, self.kept[first], wide[name] * factor)
        return replace(update, deltas=wide)


def _pairs(adapter: Adapter) -> Iterator[tuple[str, str]]:
    """Names of the factors of each low-rank pair."""
    for name in adapter:
        parent, _, last = name.rpartition(".")
        if last in PAIRS:
            yield name, f"{parent}.{PAIRS[last]}"
