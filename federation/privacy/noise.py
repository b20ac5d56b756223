"""Integer noise: discrete Gaussian draws, from the operating system's generator.

The sampler is that of Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy"
(arXiv:2004.00010), for whole arrays. A Bernoulli draw with probability exp(-γ) compares 53 random bits with a
probability in float64; if the two are too close for float64 to tell, the comparison goes on with 192 further bits in
decimal arithmetic. So every draw is exact, but for an event of a probability below 2⁻²⁰⁰.
"""

import os
from collections.abc import Callable
from decimal import Decimal, localcontext
from math import ceil, isqrt

import numpy as np

BITS = 53
"""Random bits of a comparison in float64."""
MARGIN = 2.0**-40
"""The largest error of exp(-γ) in float64, for exponents from numbers below 2⁵³: generous by a factor of 100."""
FURTHER_BYTES = 24
"""Random bytes that are drawn if float64 cannot tell."""
LARGEST = 2**42
"""The largest standard deviation: beyond it the squares of draws leave the range in which `MARGIN` holds."""

RandomBytes = Callable[[int], bytes]
"""A source of random bytes: a function of their number."""


def draw_below(count: int, limit: int, source: RandomBytes = os.urandom) -> np.ndarray:
    """Draw whole numbers from 0 to `limit` - 1, uniformly: (count,) int64. `limit` is at most 2⁶²."""
    largest = 2**64 - 2**64 % limit  # of a range of numbers that `limit` divides
    numbers = np.zeros(count, dtype=np.uint64)
    left = np.arange(count)
    while len(left):
        drawn = np.frombuffer(source(8 * len(left)), dtype="<u8")
        accepted = drawn <= np.uint64(largest - 1)
        numbers[left[accepted]] = drawn[accepted] % np.uint64(limit)
        left = left[~accepted]
    return numbers.astype(np.int64)


def draw_coins(exponents: np.ndarray, exact: Callable[[int], Decimal], source: RandomBytes = os.urandom) -> np.ndarray:
    """Draw coins that show true with probability exp(-γ), for γ ≥ 0 in float64: (n,) → (n,) bool.

    `exact` returns the γ of a place without rounding.
    """
    drawn = draw_below(len(exponents), 2**BITS, source) * 2.0**-BITS
    difference = np.exp(-exponents) - drawn
    coins = difference > 0
    for place in np.flatnonzero(np.abs(difference) < MARGIN):
        coins[place] = _compare(drawn[place], exact(int(place)), source)
    return coins


def _compare(drawn: float, exponent: Decimal, source: RandomBytes) -> bool:
    """Whether a number with further random bits behind `drawn` is below exp(-exponent)."""
    further = int.from_bytes(source(FURTHER_BYTES))
    with localcontext() as context:
        context.prec = 120
        number = Decimal(drawn) + Decimal(further) / Decimal(2) ** (BITS + 8 * FURTHER_BYTES)
        return number < (-exponent).exp()


def draw_laplace(count: int, scale: int, source: RandomBytes = os.urandom) -> np.ndarray:
    """Draw from the discrete Laplace distribution, P(x) ∝ exp(-|x| / scale): (count,) int64."""
    numbers = np.zeros(count, dtype=np.int64)
    left = np.arange(count)
    while len(left):
        low = draw_below(len(left), scale, source)
        low = low[draw_coins(low / scale, lambda place, low=low: Decimal(int(low[place])) / scale, source)]
        size = low + scale * _draw_geometric(len(low), source)
        negative = draw_below(len(size), 2, source) == 1
        kept = ~(negative & (size == 0))  # or zero would be drawn twice as often
        found = np.where(negative, -size, size)[kept]
        numbers[left[: len(found)]] = found
        left = left[len(found) :]
    return numbers


def _draw_geometric(count: int, source: RandomBytes) -> np.ndarray:
    """Count the coins of probability exp(-1) that show true before the first that does not: (count,) int64."""
    successes, going = np.zeros(count, dtype=np.int64), np.arange(count)
    while len(going):
        going = going[draw_coins(np.ones(len(going)), lambda place: Decimal(1), source)]
        successes[going] += 1
    return successes


def draw_gaussian(count: int, variance: int, source: RandomBytes = os.urandom) -> np.ndarray:
    """Draw from the discrete Gaussian distribution, P(x) ∝ exp(-x² / (2 `variance`)): (count,) int64.

    Raises `ValueError` if the variance is not between 1 and the square of `LARGEST`.
    """
    if not 1 <= variance <= LARGEST**2:
        raise ValueError(f"variance = {variance:,}: draws are exact from 1 to {LARGEST**2:,}")
    scale = isqrt(variance) + 1
    numbers, left = np.zeros(count, dtype=np.int64), np.arange(count)
    while len(left):
        candidates = draw_laplace(len(left), scale, source)
        found = candidates[_accept(candidates, variance, scale, source)]
        numbers[left[: len(found)]] = found
        left = left[len(found) :]
    return numbers


def _accept(candidates: np.ndarray, variance: int, scale: int, source: RandomBytes) -> np.ndarray:
    """Draw whether Laplace draws become Gaussian ones: with probability exp(-(|x| - σ²/t)² / (2σ²)) each."""

    def exact(place: int) -> Decimal:
        with localcontext() as context:
            context.prec = 120
            excess = abs(int(candidates[place])) * scale - variance
            return Decimal(excess * excess) / Decimal(2 * variance * scale * scale)

    sizes = np.abs(candidates).astype(np.float64)
    exponents = ((sizes - variance / scale) / variance**0.5) ** 2 / 2
    return draw_coins(exponents, exact, source)


def draw_share(count: int, variance: float, nodes: int, source: RandomBytes = os.urandom) -> np.ndarray:
    """Draw one node's share of noise: whole numbers whose sum over `nodes` nodes has at least `variance`.

    `nodes` is the smallest number of nodes whose answers are ever added up, so that the sum of those that stay has
    enough noise. The sum of the shares is close to a discrete Gaussian of the whole variance: the two differ in any
    probability by a factor of at most e^τ per number, for τ = 10 Σ_k exp(-2π² s k/(k + 1)), k from 1 to nodes - 1, and
    a share of variance s (Kairouz, Liu and Steinke 2021, arXiv:2102.06387, Theorem 1); with s ≥ 16 this is below
    10⁻⁶⁰ for a million nodes. A node that leaves its share out weakens the noise by that share.
    """
    return draw_gaussian(count, ceil(variance / nodes), source)
