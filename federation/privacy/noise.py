"""Integer noise: discrete Gaussian draws, from secret random bytes.

The sampler is that of Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy"
(arXiv:2004.00010), for whole arrays. A Bernoulli draw with probability exp(-γ) compares 53 random bits with a
probability in float64; if the two are too close for float64 to tell, the comparison goes on with 192 further bits in
decimal arithmetic. So every draw is exact, but for an event of a probability below 2⁻²⁰⁰.
"""

import os
from collections.abc import Callable
from decimal import Decimal, localcontext
from itertools import count as count_from
from math import ceil, log2

import numpy as np

from fedrec.federation.key_stream import KEY_BYTES, open_stream

BITS = 53
"""Random bits of a comparison in float64."""
MARGIN = 2.0**-40
"""The largest error of exp(-γ) in float64, for exponents from numbers below 2⁵³: generous by a factor of 100."""
FURTHER_BYTES = 24
"""Random bytes that are drawn if float64 cannot tell."""
PRECISION = 120
"""Decimal digits in which such a comparison goes on."""
POWERS = np.exp(-np.arange(40.0, 0.0, -1.0))
"""The powers exp(-40), …, exp(-1), rising: the smallest are closer to each other, and to 0, than `MARGIN`."""
LARGEST = 2**42
"""The largest standard deviation: beyond it the squares of draws leave the range in which `MARGIN` holds."""

RandomBytes = Callable[[int], bytes]
"""A source of random bytes: a function of their number."""


def secret_bytes(count: int) -> bytes:
    """Draw bytes that nobody can foretell: the stream of a fresh key.

    The key is from the operating system's generator, whose own bytes would take most of the time of a draw of noise.
    """
    return open_stream(os.urandom(KEY_BYTES)).update(bytes(count))


def draw_below(count: int, limit: int, source: RandomBytes = secret_bytes) -> np.ndarray:
    """Draw whole numbers from 0 to `limit` - 1, uniformly: (count,) int64. `limit` is at most 2⁶²."""
    if limit & (limit - 1) == 0:  # a power of two divides the range: its lowest bits are uniform
        return (np.frombuffer(source(8 * count), dtype="<u8") & np.uint64(limit - 1)).astype(np.int64)
    largest = 2**64 - 2**64 % limit  # of a range of numbers that `limit` divides
    numbers = np.zeros(count, dtype=np.uint64)
    left = np.arange(count)
    while len(left):
        drawn = np.frombuffer(source(8 * len(left)), dtype="<u8")
        accepted = drawn <= np.uint64(largest - 1)
        numbers[left[accepted]] = drawn[accepted] % np.uint64(limit)
        left = left[~accepted]
    return numbers.astype(np.int64)


def draw_coins(
    exponents: np.ndarray, exact: Callable[[int], Decimal], source: RandomBytes = secret_bytes
) -> np.ndarray:
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
    with localcontext() as context:
        context.prec = PRECISION
        return _extend(drawn, source) < (-exponent).exp()


def _extend(drawn: float, source: RandomBytes) -> Decimal:
    """Draw further bits behind the first of a number in [0, 1): the middle of the cell that all bits leave."""
    further = int.from_bytes(source(FURTHER_BYTES))
    return Decimal(drawn) + (Decimal(further) + Decimal("0.5")) / Decimal(2) ** (BITS + 8 * FURTHER_BYTES)


def draw_laplace(count: int, scale: int, source: RandomBytes = secret_bytes) -> np.ndarray:
    """Draw from the discrete Laplace distribution, P(x) ∝ exp(-|x| / scale): (count,) int64."""
    numbers = np.zeros(count, dtype=np.int64)
    left = np.arange(count)
    while len(left):
        low = draw_below(len(left), scale, source)
        low = low[draw_coins(low / scale, lambda place, low=low: Decimal(int(low[place])) / scale, source)]
        size = low + scale * draw_geometric(len(low), source)
        negative = draw_below(len(size), 2, source) == 1
        kept = ~(negative & (size == 0))  # or zero would be drawn twice as often
        found = np.where(negative, -size, size)[kept]
        numbers[left[: len(found)]] = found
        left = left[len(found) :]
    return numbers


def draw_geometric(count: int, source: RandomBytes = secret_bytes) -> np.ndarray:
    """Draw from the geometric distribution, P(k) ∝ exp(-k): (count,) int64.

    A uniform number u in [0, 1) is below k of the powers exp(-1), exp(-2), … As with coins, a u that float64 cannot
    tell from a power is compared with further bits.
    """
    drawn = draw_below(count, 2**BITS, source) * 2.0**-BITS
    above = np.searchsorted(POWERS, drawn, side="right")  # the place of the smallest power above
    numbers = (len(POWERS) - above).astype(np.int64)
    gaps = np.abs(drawn - POWERS[np.clip([above - 1, above], 0, len(POWERS) - 1)])  # to the powers on both sides
    for place in np.flatnonzero(gaps.min(axis=0) < MARGIN):
        numbers[place] = _count_powers(drawn[place], source)
    return numbers


def _count_powers(drawn: float, source: RandomBytes) -> int:
    """Count the powers exp(-1), exp(-2), … above a number with further random bits behind `drawn`."""
    with localcontext() as context:
        context.prec = PRECISION
        number = _extend(drawn, source)
        return next(k for k in count_from(0) if number >= Decimal(-k - 1).exp())


def draw_gaussian(count: int, variance: int, source: RandomBytes = secret_bytes) -> np.ndarray:
    """Draw from the discrete Gaussian distribution, P(x) ∝ exp(-x² / (2 `variance`)): (count,) int64.

    Raises `ValueError` if the variance is not between 1 and the square of `LARGEST`.
    """
    if not 1 <= variance <= LARGEST**2:
        raise ValueError(f"variance = {variance:,}: draws are exact from 1 to {LARGEST**2:,}")
    # near σ, most draws are accepted; below a power of two, whole numbers are drawn fastest
    scale = 2 ** round(log2(variance) / 2)
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
            context.prec = PRECISION
            excess = abs(int(candidates[place])) * scale - variance
            return Decimal(excess * excess) / Decimal(2 * variance * scale * scale)

    sizes = np.abs(candidates).astype(np.float64)
    exponents = ((sizes - variance / scale) / variance**0.5) ** 2 / 2
    return draw_coins(exponents, exact, source)


def draw_share(count: int, variance: float, nodes: int, source: RandomBytes = secret_bytes) -> np.ndarray:
    """Draw one node's share of noise: whole numbers whose sum over `nodes` nodes has at least `variance`.

    `nodes` is the smallest number of nodes whose answers are ever added up, so that the sum of those that stay has
    enough noise. The sum of the shares is close to a discrete Gaussian of the whole variance: the two differ in any
    probability by a factor of at most e^τ per number, for τ = 10 Σ_k exp(-2π² s k/(k + 1)), k from 1 to nodes - 1, and
    a share of variance s (Kairouz, Liu and Steinke 2021, arXiv:2102.06387, Theorem 1); with s ≥ 16 this is below
    10⁻⁶⁰ for a million nodes. A node that leaves its share out weakens the noise by that share.
    """
    return draw_gaussian(count, ceil(variance / nodes), source)
