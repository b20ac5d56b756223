"""Target vectors of items without any event, by their texts.

They are a ridge regression of the known items' target vectors on their half-whitened texts z, all of unit length:

    ψ(z) = ψ̄ + c Bᵀz        B = (ZᵀZ + νI)⁻¹ Zᵀ(Ψ - ψ̄)

As scores are linear in target vectors, a new item is scored by the same regression of the known items' scores. That
needs smooth directions of few dimensions: the random features of a closed form are made to tell known items apart, and
a new text lies mostly in directions that no known one has. With the large ν, B is nearly a sum of the known items'
vectors, each weighted by the likeness of its text.

A regression predicts vectors that are shorter than those that it was fitted to, so that no list would hold a new item.
c makes up for it: known items, so predicted, have scores that spread over users' contexts as their true ones do.

For latent factors, such a map is that of Gantner et al. 2010, doi:10.1109/ICDM.2010.129.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from fedrec.recsys.closed_form.features import Whitening

RIDGE = 100.0
"""ν, in items."""

TEXT_LENGTH = 0.6
"""Length of predicted target vectors over texts, relative to the true ones, at which scores spread alike. Of one-hot
ones the scores themselves are measured, which over texts would need the solution."""

BLOCK = 4096
"""Items whose target vectors are fitted at a time."""


@dataclass(frozen=True, eq=False)
class TargetRegression:
    """A linear map from whitened texts (n, E) to target vectors (n, M')."""

    mean: Tensor  # (M',) float64: ψ̄
    slope: Tensor  # (E, M') float64: c B
    moments: Tensor  # (E, E) float64: ZᵀZ / n, of the known items

    @classmethod
    def fit(
        cls, embeddings: Tensor, whitening: Whitening, known: Tensor, features: Tensor | None
    ) -> "TargetRegression":
        """Fit, with c = 1, to the items `known` (n,) of a catalogue, by embeddings (N, E) and features (N, M').

        Without features, target vectors are one-hot, and M' is N. Without a text that differs from others, all
        predictions are the mean.
        """
        items, width = embeddings.shape
        targets = items if features is None else features.shape[1]
        gram, cross = torch.zeros(width, width).double(), torch.zeros(width, targets).double()
        texts, total = torch.zeros(width).double(), torch.zeros(targets).double()
        for rows in known.split(BLOCK):
            z = whitening(embeddings[rows]).double()
            vectors = F.one_hot(rows, items).double() if features is None else features[rows].double()
            gram += z.T @ z
            cross += z.T @ vectors
            texts += z.sum(0)
            total += vectors.sum(0)
        mean = total / max(len(known), 1)
        factor = torch.linalg.cholesky(gram + RIDGE * torch.eye(width).double())
        return cls(mean, torch.cholesky_solve(cross - texts.outer(mean), factor), gram / max(len(known), 1))

    def __call__(self, texts: Tensor) -> Tensor:
        """Predict the target vectors of whitened texts: (n, E) → (n, M') float64."""
        return texts.double() @ self.slope + self.mean

    def through(self, factor: Tensor) -> "TargetRegression":
        """Return the regression of target vectors that are multiplied by a factor (M', r)."""
        return replace(self, mean=self.mean @ factor, slope=self.slope @ factor)

    @property
    def spread(self) -> float:
        """The root mean square of the known items' predicted vectors, less their mean."""
        return ((self.moments @ self.slope) * self.slope).sum().clamp(min=0).sqrt().item()

    def scaled(self, factor: float) -> "TargetRegression":
        """Return the regression with c as many times as large."""
        return replace(self, slope=self.slope * factor)


def spread(vectors: Tensor) -> float:
    """Compute the root mean square of the lengths of vectors (n, k), less their mean; 0 for none."""
    return ((vectors - vectors.mean(0)).square().sum() / len(vectors)).sqrt().item() if len(vectors) else 0.0


def scale_vectors(regression: TargetRegression, gram: Tensor, known: int, scale: float) -> TargetRegression:
    """Set c for target vectors over texts, by their ΨᵀΨ (M', M') over the known items, so many as `known`.

    Their scores then spread about `scale` times as widely as those of the known items.
    """
    true = max(gram.trace().item() / max(known, 1) - regression.mean.square().sum().item(), 0.0) ** 0.5
    return _scale_to(regression, scale * TEXT_LENGTH * true, regression.spread)


def scale_scores(regression: TargetRegression, roots: Tensor, known: Tensor, scale: float) -> TargetRegression:
    """Set c so that the predicted scores of the items `known` (n,) spread `scale` times as widely as their true ones.

    `roots` (M', k) maps target vectors to vectors as long as their scores of all contexts.
    """
    return _scale_to(regression, scale * spread(roots[known]), regression.through(roots).spread)


def _scale_to(regression: TargetRegression, true: float, predicted: float) -> TargetRegression:
    return regression.scaled(true / predicted if predicted else 0.0)
