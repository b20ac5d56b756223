"""Shares of noise: each node adds one to its sum before it masks it, so that nobody sees a sum without noise.

The shares of as few honest nodes as can be in a sum that is unmasked have the whole variance together. In a sum with
more nodes there is more noise than the guarantee needs: a node cannot know who will be lost after it. A node is honest
here if it adds its share, and tells it nobody; what another does weakens nothing, as long as there are as many honest
nodes in a group as `honest_nodes` says (Kairouz, Liu and Steinke 2021, arXiv:2102.06387).
"""

import math
from dataclasses import dataclass

import numpy as np

from fedrec.federation.privacy.noise import RandomBytes, draw_share, secret_bytes
from fedrec.recsys.closed_form.norm_bounds import Bounds, NormBounds
from fedrec.recsys.exact_sum import GRID

SLACK = 2.0**-16
"""Rounding of a clipped change in float32: it can be longer than the clip by this share."""
TAIL = 12.0
"""The standard deviations by which the length of n numbers of noise exceeds √n, but for a probability below 10⁻³¹
(e^(-x²/2): Gaussian concentration)."""


@dataclass(frozen=True)
class Sensitivity:
    """The most that a user adds to a release of some numbers, and the unit of which they are whole multiples."""

    longest: float  # L2 norm
    unit: float
    numbers: int

    @classmethod
    def of_change(cls, clip: float, numbers: int) -> "Sensitivity":
        """Return that of a sum of changes with a clip: the clip, with the rounding of float32 and of the grid."""
        return cls(clip * (1 + SLACK) + math.sqrt(numbers) / (2 * GRID), 1 / GRID, numbers)

    @classmethod
    def of_statistics(cls, bounds: Bounds | None) -> "Sensitivity":
        """Return that of the closed form's sums. Raises `TypeError` if they are not clipped."""
        if not isinstance(bounds, NormBounds):
            raise TypeError("sums that are not clipped cannot be released with noise")
        return cls(bounds.longest, bounds.unit, sum(shape.numel() for shape in bounds.shapes.values()))

    def variance(self, noise: float) -> float:
        """Compute the variance, in squared units, of noise with a multiplier."""
        return (noise * self.longest / self.unit) ** 2

    def length_of_noise(self, noise: float, excess: float) -> float:
        """Compute the largest length of noise with `excess` times its variance."""
        return noise * self.longest * math.sqrt(excess) * (math.sqrt(self.numbers) + TAIL)


def count_honest(nodes: int, left: int, honest: float) -> int:
    """Count the honest nodes in an unmasked sum, at least: of `nodes` in the group, of which a share `honest` is so,
    and `left` stay at least."""
    return left - (nodes - math.ceil(honest * nodes - 1e-9))


def add_share(numbers: np.ndarray, variance: float, honest: int, source: RandomBytes = secret_bytes) -> None:
    """Add a node's share of noise to integers modulo 2⁶⁴, (n,) uint64, in place: `honest` shares have the variance.

    Raises `ValueError` if there is no honest node, or if the variance is out of range.
    """
    if honest < 1:
        raise ValueError("the fewest nodes of a sum may all be dishonest: no share of noise is enough")
    numbers += draw_share(len(numbers), variance, honest, source).view(np.uint64)
