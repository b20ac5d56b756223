"""Whitened text: embeddings whose principal directions vary alike, so that no direction common to all texts decides.

Sentence embeddings lie in a narrow cone, and whitening opens it (Su et al. 2021, arXiv:2103.15316; for recommendation,
Zhang et al. 2024, arXiv:2402.10602).

Shapes: B histories, N items, E embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn import functional as F

from fedrec.recsys.baselines.linear import Decay, all_events
from fedrec.recsys.closed_form.features import whitening_root
from fedrec.recsys.model.scoring import Scorer


@dataclass(frozen=True)
class WhitenedTextConfig:
    """Whitened text neighbours: cosine to the decayed mean of the history's whitened texts."""

    power: Annotated[float, Ge(0), Le(1)] = 1.0  # 1: all directions vary alike; 0.5: half-whitened; 0: only centred
    decay: Decay = 0.8


def whitened_text_neighbours(embeddings: Tensor, config: WhitenedTextConfig) -> Scorer:
    """Return a scorer by the cosine between an item's whitened text and the decayed mean of the history's.

    Nothing is trained. An empty history scores zeros.
    """
    unit = whiten(embeddings, config.power)

    def score(histories: Sequence[np.ndarray]) -> Tensor:
        profiles = torch.from_numpy(all_events(histories, len(unit), config.decay) @ unit.numpy())  # (B, E)
        return (F.normalize(profiles) @ unit.T).float()

    return score


def whiten(embeddings: Tensor, power: float) -> Tensor:
    """Compute unit vectors from centred embeddings, each principal direction divided by its deviation to the `power`:
    (N, E) → (N, E), in float64.
    """
    centred = embeddings.double() - embeddings.double().mean(0)
    return F.normalize(centred @ whitening_root(centred.T @ centred / len(centred), power))
