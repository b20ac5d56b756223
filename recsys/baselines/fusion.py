"""The sum of three closed forms' z-scores: they err on different users, so together they rank better.

Shapes: B histories, N items.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le
from torch import Tensor

from fedrec.recsys.baselines.tuning import Baseline, TrainingData, tune
from fedrec.recsys.model.scoring import Scorer

Share = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True)
class FusionConfig:
    """Closed forms together: next-item ridge, EASE with recency and EASE with text prior."""

    next_item: Share = 0.5  # weight of next-item ridge; the rest is EASE's
    text: Share = 0.5  # share of EASE's weight that EASE with text prior has

    @property
    def weights(self) -> tuple[float, float, float]:
        """The weights of next-item ridge, EASE with recency and EASE with text prior; they add up to 1."""
        rest = 1 - self.next_item
        return self.next_item, rest * (1 - self.text), rest * self.text


def fuse(parts: Sequence[Baseline], data: TrainingData, split: str, config: FusionConfig) -> Scorer:
    """Fit the parts, each with the settings that validation chose for it alone, and return the scorer of their sum."""
    tuned = data.keep("tuned parts", parts, lambda: [tune(part, data, refit=False) for part in parts])

    def fit() -> list[Scorer]:
        return [
            part.fit(data, split, part.config(**chosen.settings), lambda epoch: None)
            for part, chosen in zip(parts, tuned, strict=True)
        ]

    validated = split == "validation"
    scorers = [part.score for part in tuned] if validated else data.keep("fitted parts", (parts, split), fit)
    return sum_scorer(scorers, config.weights)


def sum_scorer(scorers: Sequence[Scorer], weights: Sequence[float]) -> Scorer:
    """Return a scorer by the weighted sum of the scorers' z-scores; a scorer of weight 0 is not asked."""
    weighted = [(weight, score) for weight, score in zip(weights, scorers, strict=True) if weight]

    def score(histories: Sequence[np.ndarray]) -> Tensor:
        first, *others = (weight * z_scores(part(histories)) for weight, part in weighted)
        return sum(others, start=first)

    return score


def z_scores(scores: Tensor) -> Tensor:
    """Compute the z-scores over the items of each history's scores: (B, N) → (B, N). Equal scores become zeros."""
    mean, deviation = scores.mean(1, keepdim=True), scores.std(1, correction=0, keepdim=True)
    return ((scores - mean) / deviation).masked_fill(deviation == 0, 0)
