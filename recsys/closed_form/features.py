"""Feature maps of items for the closed form, from the public side of a dataset alone.

Random Fourier features: Rahimi and Recht 2007, "Random Features for Large-Scale Kernel Machines". Their width does not
grow with the catalogue, and nothing in a sum of them names an item.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from fedrec.recsys.closed_form.fusion import exact_covariance
from fedrec.recsys.closed_form.statistics import round_to_units, unit_of

BLOCK = 8192
"""Items whose features are computed at a time."""


FITTED_BLOCK = 2**17
"""Items whose covariance is summed at a time: another number rounds otherwise in larger catalogues."""


def whitening_root(covariance: Tensor, power: float) -> Tensor:
    """Compute C^(-power/2) for a covariance C (E, E) in float64, without its components of no variance: (E, E)."""
    variances, components = torch.linalg.eigh(covariance)
    kept = variances > variances[-1] * 1e-9
    scales = torch.where(kept, variances.clamp(min=1e-300) ** (-power / 2), 0.0)
    return (components * scales) @ components.T


@dataclass(frozen=True, eq=False)
class Whitening:
    """A linear map of embeddings: centred, multiplied by C^(-power/2) for their covariance C, to unit vectors.

    A `power` of 0 keeps the variances of the principal components, 1 makes them equal (WhitenRec: Zhang et al. 2024,
    arXiv:2402.10602). The symmetric root of C is unique, unlike its eigenvectors, so that all nodes compute the same.
    """

    mean: Tensor  # (E,)
    root: Tensor  # (E, E): C^(-power/2)

    @classmethod
    def fit(cls, embeddings: Tensor, power: float) -> "Whitening":
        """Fit to the embeddings of a catalogue (N, E). Components without variance are left out."""
        root = whitening_root(exact_covariance(embeddings, FITTED_BLOCK), power)
        return cls(embeddings.mean(0, dtype=torch.float64).float(), root.float())

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Whiten embeddings to unit vectors: (n, E) → (n, E)."""
        return F.normalize((embeddings - self.mean) @ self.root, dim=-1)


@dataclass(frozen=True, eq=False)
class FourierFeatures:
    """Random Fourier features of whitened embeddings: (cos(w · z + b) - m) / (1 + |m|), for random frequencies w and
    phases b, and the mean m of the cosine over the catalogue.

    The dot product of two items' cosines approximates M/2 times the mean of exp(-bandwidth² |z - z'|² / 2) over the
    bandwidths. A narrow one (large) tells each item from all others; by a wide one, an item is like those with texts
    of the same kind, so that an item with few events is scored as they are.

    What all items have in common would be most of a user's sums, and say nothing of the user. Without it they are
    shorter, so that few bits, and noise, cost less.
    """

    whitening: Whitening
    frequencies: Tensor  # (E, M)
    phases: Tensor  # (M,)
    mean: Tensor  # (M,) of the cosines of the catalogue

    @classmethod
    def fit(
        cls, embeddings: Tensor, whitening: Whitening, width: int, bandwidths: Sequence[float], seed: int
    ) -> "FourierFeatures":
        """Draw M = `width` features with a seed, and centre them for a catalogue (N, E); the bandwidths take turns."""
        generator = torch.Generator().manual_seed(seed)
        scales = torch.tensor(bandwidths)[torch.arange(width) % len(bandwidths)]  # (M,)
        frequencies = scales * torch.randn(len(whitening.mean), width, generator=generator)
        phases = 2 * math.pi * torch.rand(width, generator=generator)
        drawn = cls(whitening, frequencies, phases, torch.zeros(width))
        total = torch.zeros(width, dtype=torch.float64)
        for part in embeddings.split(BLOCK):
            total += drawn(part).sum(0, dtype=torch.float64)  # of whole multiples: exact in any order
        return replace(drawn, mean=(total / len(embeddings)).float())

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Compute the features of items: (n, E) → (n, M) in [-1, 1], multiples of a power of two."""
        unit = unit_of(1.0)
        features = torch.empty(len(embeddings), self.frequencies.shape[1])
        for part, out in zip(embeddings.split(BLOCK), features.split(BLOCK), strict=True):
            cosines = torch.cos(self.whitening(part) @ self.frequencies + self.phases)
            out.copy_(round_to_units((cosines - self.mean) / (1 + self.mean.abs()), unit)).mul_(unit)
        return features
