"""The vectors of items, by the towers alone or with a closed form beside them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """The vectors of some items. Without a closed form both are the towers' item vectors; with one they are wider, and
    with a closed form of K decays each event has K vectors."""

    searched: Tensor  # (n, E) or (n, E + r), and one more with biases: what a user vector is compared with
    read: Tensor  # (n, E) or (n, E + Kr): what a user vector is computed from

    @classmethod
    def join(cls, towers: Tensor, closed_form: tuple[Tensor, Tensor] | None) -> "ItemVectors":
        """Join the towers' vectors (n, E) with the event (n, Kr) and candidate vectors (n, r) of a closed form."""
        if closed_form is None:
            return cls(towers, towers)
        events, candidates = closed_form
        return cls(torch.cat([towers, candidates], dim=-1), torch.cat([towers, events], dim=-1))

    def with_biases(self, column: Tensor | None) -> "ItemVectors":
        """Append the number of a bias (n, 1), if there is one, to what is searched."""
        return self if column is None else ItemVectors(torch.cat([self.searched, column], dim=-1), self.read)

    @property
    def are_apart(self) -> bool:
        """Whether a history is read by other vectors than are searched."""
        return self.searched is not self.read
