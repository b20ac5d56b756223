"""Linear algebra of the attacks: which of many known vectors a sum, or a matrix, was made of."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

RIDGE = 0.003
"""The ridge of a whitening, as a share of the largest variance."""


def standardise(scores: Tensor) -> Tensor:
    """Shift and scale scores of items to mean 0 and variance 1: (N,)."""
    return (scores - scores.mean()) / scores.std().clamp(min=1e-12)


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Vectors of all items, centred and whitened, by which one item is told from those like it."""

    root: Tensor  # (d, d) float64: (C + ridge)^(-1/2), for the covariance C of the vectors
    whitened: Tensor  # (N, d) float64

    @classmethod
    def of(cls, vectors: Tensor) -> "Dictionary":
        """Build the dictionary of vectors (N, d)."""
        centred = vectors.double() - vectors.double().mean(0)
        variances, components = torch.linalg.eigh(centred.T @ centred / len(centred))
        root = (components / (variances + RIDGE * variances[-1]).clamp(min=1e-30).sqrt()) @ components.T
        return cls(root, centred @ root)

    def signed(self, direction: Tensor) -> Tensor:
        """Correlate each item with a sum of vectors: (d,) → (N,)."""
        return self.whitened @ (self.root @ direction.double())

    def subspace(self, matrix: Tensor) -> Tensor:
        """Measure how much of each item lies in the space of a matrix's columns: (d, n) → (N,).

        The columns are weighted sums of items' vectors, each with other weights. All directions of the space count
        alike, however much of the matrix is in them: else what all items share would drown what tells them apart.
        """
        directions, values, _ = torch.linalg.svd(self.root @ matrix.double(), full_matrices=False)
        return (self.whitened @ directions[:, values > 1e-9 * values[0]]).norm(dim=1)

    def energy(self, matrix: Tensor) -> Tensor:
        """Measure how much of each item is in a matrix's columns, beside their leading direction: (d, n) → (N,)."""
        directions, values, _ = torch.linalg.svd(self.root @ matrix.double(), full_matrices=False)
        return (self.whitened @ (directions[:, 1:] * values[1:])).norm(dim=1)


def leading_direction(matrix: Tensor, towards: Tensor) -> Tensor:
    """Return the direction that most of a matrix's columns share, on the side of a vector: (d, n), (d,) → (d,)."""
    direction = torch.linalg.svd(matrix.double(), full_matrices=False)[0][:, 0]
    return direction * (1 if direction @ towards.double() >= 0 else -1)


def soft_span_share(vectors: Tensor, matrix: Tensor) -> Tensor:
    """Compute the share of each vector that lies in the row space of a matrix: (N, d), (n, d) → (N,) in [0, 1].

    This is the test of the MUSIC algorithm (Schmidt 1986, doi:10.1109/TAP.1986.1143830): the share is 1 for the vectors
    that the rows are sums of, as long as they are fewer than d. A direction counts by its power over the sum of it and
    the median power, which is that of the noise if more than half of the directions hold nothing else.
    """
    values, basis = torch.linalg.eigh(matrix.double().T @ matrix.double())
    floor = values.median().clamp(min=1e-12 * values[-1])
    weights = values.clamp(min=0) / (values.clamp(min=0) + floor)
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    return (unit @ basis).square() @ weights


def pursue(vectors: Tensor, target: Tensor, steps: int) -> list[int]:
    """Find the vectors that a positively weighted sum was made of, the heaviest first: (N, d), (d,) → indices.

    Orthogonal matching pursuit: Pati et al. 1993, doi:10.1109/ACSSC.1993.342465.
    """
    vectors, residual, found = vectors.double(), target.double(), list[int]()
    scales = vectors.norm(dim=1).clamp(min=1e-12)
    for _ in range(min(steps, len(vectors))):
        fit = (vectors @ residual) / scales
        fit[found] = -torch.inf
        found.append(int(fit.argmax()))
        chosen = vectors[found].T
        residual = target.double() - chosen @ torch.linalg.lstsq(chosen, target.double().unsqueeze(1)).solution[:, 0]
    return found


def fisher_discriminant(features: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the weights that tell true rows from others best: (n, f), (n,) of bool → (f,).

    Fisher 1936, doi:10.1111/j.1469-1809.1936.tb02137.x.
    """
    true, others = features[truth], features[~truth]
    within = np.cov(true.T) * len(true) + np.cov(others.T) * len(others)
    ridge = 1e-6 * np.trace(within) * np.eye(len(within))
    return np.linalg.solve(within + ridge, true.mean(0) - others.mean(0))
