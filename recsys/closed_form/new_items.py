"""Target vectors of items without any event, by their texts.

They are a ridge regression of the known items' target vectors on their half-whitened texts z, all of unit length:

    ψ(z) = ψ̄ + c Bᵀz        B = (ZᵀZ + νI)⁻¹ Zᵀ(Ψ - ψ̄)

As scores are linear in target vectors, a new item is scored by the same regression of the known items' scores. That
needs smooth directions of few dimensions: the random features of a closed form are made to tell known items apart, and
a new text lies mostly in directions that no known one has. With the large ν, B is nearly a sum of the known items'
vectors, each weighted by the likeness of its text.

A regression predicts vectors that are shorter than those that it was fitted to, so that no list would hold a new item.
c makes the known items' predicted vectors, on average, a share of the true ones' length.

For latent factors, such a map is that of Gantner et al. 2010, doi:10.1109/ICDM.2010.129.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 100.0
"""ν, in items."""

BLOCK = 4096
"""Items whose target vectors are multiplied at a time."""


@dataclass(frozen=True, eq=False)
class TargetRegression:
    """A linear map from whitened texts (n, E) to target vectors (n, M')."""

    mean: Tensor  # (M',) float64
    slope: Tensor  # (E, M') float64: c B

    @classmethod
    def fit(cls, texts: Tensor, targets: Tensor, length: float) -> "TargetRegression":
        """Fit to the whitened texts Z (n, E) and the target vectors Ψ (n, M') of known items.

        `length` is the predicted length of their vectors, from the mean, relative to the true one, on average. Without
        a text that differs from others, all predictions are the mean.
        """
        mean = targets.sum(0, dtype=torch.float64) / max(len(targets), 1)
        width = texts.shape[1]
        gram, cross = RIDGE * torch.eye(width).double(), torch.zeros(width, len(mean)).double()
        for z, deviations in _blocks(texts, targets, mean):
            gram += z.T @ z
            cross += z.T @ deviations
        slope = torch.cholesky_solve(cross, torch.linalg.cholesky(gram))
        lengths = torch.zeros(2, dtype=torch.float64)  # true, predicted
        for z, deviations in _blocks(texts, targets, mean):
            lengths += torch.stack([deviations.norm(dim=1).sum(), (z @ slope).norm(dim=1).sum()])
        true, predicted = lengths.tolist()
        return cls(mean, slope * (length * true / predicted if predicted else 0.0))

    def __call__(self, texts: Tensor) -> Tensor:
        """Predict the target vectors of whitened texts: (n, E) → (n, M') float64."""
        return texts.double() @ self.slope + self.mean

    def through(self, factor: Tensor) -> "TargetRegression":
        """Return the regression of target vectors that are multiplied by a factor (M', r)."""
        return TargetRegression(self.mean @ factor, self.slope @ factor)


def _blocks(texts: Tensor, targets: Tensor, mean: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over blocks of texts, and of target vectors less their mean, in float64."""
    for z, part in zip(texts.split(BLOCK), targets.split(BLOCK), strict=True):
        yield z.double(), part.double() - mean
