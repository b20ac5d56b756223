"""The closed form as a recommender: two vectors of each item, one as an event and one as a candidate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedrec.data.shard import check_rows
from fedrec.recsys.closed_form.contexts import DecayKernel


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A user vector is the decayed sum of the event vectors of a history; its dot product with a candidate vector is
    the candidate's score."""

    kernel: DecayKernel
    events: Tensor  # (N, r)
    candidates: Tensor  # (N, r)

    def user_vectors(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Compute the user vectors of histories of rows, oldest first: (B, r); zeros for an empty history."""
        vectors = torch.zeros(len(histories), self.events.shape[1])
        for vector, history in zip(vectors, histories, strict=True):
            check_rows(history, len(self.events))
            weights = self.kernel.weigh_history(len(history))[-self.kernel.reach :]
            rows = self.events[torch.from_numpy(np.asarray(history[-self.kernel.reach :], dtype=np.int64))]
            vector += torch.from_numpy(weights).float() @ rows
        return vectors

    def score(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Score all items for each history: (B, N)."""
        return self.user_vectors(histories) @ self.candidates.T
