"""EASE with a text prior: EASE's weights between items, pulled towards weights that the items' texts give.

The prior C is EASE on the texts (closed_form/text_prior.py). The weights B with a zero diagonal minimise
‖X − XB‖² + λ‖B‖² + κ‖B − C‖², for the interactions X (U, N). L3AE (Moon et al. 2025, arXiv:2508.13500).

Shapes: U users, N items, E embedding.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt

from fedrec.recsys.baselines.linear import Decay, check_memory, cholesky, latest_events, linear_scorer
from fedrec.recsys.baselines.neighbours import training_gram
from fedrec.recsys.baselines.tuning import TrainingData
from fedrec.recsys.closed_form.text_prior import text_weights
from fedrec.recsys.model.scoring import Scorer

MATRICES = 7
"""Matrices (N, N) of float64 that are held at once: XᵀX, C, their sum, the factor, P, M and B."""


@dataclass(frozen=True)
class TextPriorConfig:
    """EASE with a text prior."""

    ridge: Annotated[float, Gt(0)] = 100.0  # λ, in users
    prior: Annotated[float, Ge(0)] = 30.0  # κ, in users; 0: EASE, without the texts
    text_ridge: Annotated[float, Gt(0)] = 1.0  # λ of the prior itself; a text's squared length is 1
    decay: Decay = 0.8  # of the history, when a user is scored


def ease_with_text_prior(data: TrainingData, split: str, config: TextPriorConfig) -> Scorer:
    """Fit the weights, and score a history by their sum, decayed. Raises `InputError` if memory cannot hold them."""
    check_memory("EASE with text prior", data.items, MATRICES * data.items**2)
    texts = data.keep(
        "text weights", config.text_ridge, lambda: text_weights(data.embeddings, config.text_ridge).numpy()
    )
    weights = data.keep(
        "EASE with text prior",
        (split, config.ridge, config.prior, config.text_ridge),
        lambda: weights_near(texts, training_gram(data, split), config.ridge, config.prior).astype(np.float32),
    )
    return linear_scorer(weights, data.items, latest_events, config.decay)


def weights_near(prior: np.ndarray, gram: np.ndarray, ridge: float, pull: float) -> np.ndarray:
    """Compute the weights B from the prior C, XᵀX, λ and κ: (N, N).

    With P = (XᵀX + (λ + κ)I)⁻¹ and M = P (XᵀX + κC), B = M − P diag(M) / diag(P): the multiplier of each column's
    constraint moves it along P's column until its entry on the diagonal is zero.
    """
    inverse = torch.cholesky_inverse(cholesky(gram, ridge + pull))
    free = inverse @ torch.from_numpy(gram + pull * prior)
    weights = free - inverse * (free.diagonal() / inverse.diagonal())
    return weights.fill_diagonal_(0).numpy()
