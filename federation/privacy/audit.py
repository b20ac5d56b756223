"""An audit: what a release tells of canaries that were put into it, as a lower bound for its ε.

Andrew et al. 2023, "One-shot Empirical Privacy Estimation for Federated Learning" (arXiv:2302.03098): canaries are
random directions of the clip's length, each in the place of one user. Among d numbers, the cosine of an unused
direction with a release is close to N(0, 1/d); that of a used one is larger by an amount that noise hides.
"""

import math

import numpy as np
from scipy.optimize import root_scalar
from scipy.stats import norm

LARGEST_EPSILON = 200.0
"""The largest ε that an audit tells from a larger one."""


def draw_canaries(count: int, numbers: int, length: float, generator: np.random.Generator) -> np.ndarray:
    """Draw random directions of a length: (k, d)."""
    directions = generator.normal(size=(count, numbers))
    return length * directions / np.linalg.norm(directions, axis=1, keepdims=True)


def audit_release(release: np.ndarray, canaries: np.ndarray, delta: float, confidence: float = 0.95) -> float:
    """Estimate a lower bound, at a confidence, for the ε of a release (d,) that has canaries (k, d) in it.

    The cosines with the canaries are fitted by a normal distribution; its mean is taken at the lower end of its
    confidence interval, and its distance from N(0, 1/d) is that of a Gaussian mechanism.
    """
    lengths = np.linalg.norm(canaries, axis=1) * np.linalg.norm(release)
    cosines = canaries @ release / lengths
    margin = norm.ppf(confidence) * cosines.std(ddof=1) / math.sqrt(len(cosines))
    return gaussian_epsilon(float(cosines.mean() - margin) * math.sqrt(len(release)), delta)


def gaussian_epsilon(shift: float, delta: float) -> float:
    """Compute the ε at which N(0, 1) and N(shift, 1) are (ε, δ)-indistinguishable (Balle and Wang 2018,
    arXiv:1805.06530), at most `LARGEST_EPSILON`."""

    def excess(epsilon: float) -> float:
        first = norm.cdf(shift / 2 - epsilon / shift)
        return float(first - math.exp(epsilon + norm.logcdf(-shift / 2 - epsilon / shift)) - delta)

    if shift <= 0 or excess(0.0) <= 0:
        return 0.0
    if excess(LARGEST_EPSILON) > 0:
        return LARGEST_EPSILON
    return root_scalar(excess, bracket=(0.0, LARGEST_EPSILON)).root
