"""Integer noise: the exact sampler against the distribution that it is defined by, and shares of noise."""

from collections.abc import Iterator
from decimal import Decimal
from math import exp, pi, sqrt

import numpy as np
import pytest
from scipy.stats import chisquare, norm

from fedrec.federation.privacy import noise
from fedrec.federation.privacy.noise import (
    draw_below,
    draw_coins,
    draw_gaussian,
    draw_geometric,
    draw_laplace,
    draw_share,
)
from fedrec.federation.sampling import sample_secretly


def fixed_bytes(seed: int) -> noise.RandomBytes:
    """A source that gives the same bytes each time, so that a test of a distribution always has the same outcome."""
    return np.random.default_rng(seed).bytes


def check_fit(draws: np.ndarray, values: np.ndarray, masses: np.ndarray) -> None:
    """Compare counts of draws with a distribution over some values, all others in one bin, by Pearson's χ²."""
    counts = np.array([(draws == value).sum() for value in values])
    observed, expected = np.append(counts, len(draws) - counts.sum()), np.append(masses, 1 - masses.sum())
    assert chisquare(observed, expected * len(draws)).pvalue > 1e-3


@pytest.mark.parametrize("variance", [1, 2, 9, 30])
def test_gaussian_draws_fit_their_definition(variance: int) -> None:
    draws = draw_gaussian(20_000, variance, fixed_bytes(variance))
    values = np.arange(-200, 201)
    masses = np.exp(-(values**2) / (2 * variance))
    masses /= masses.sum()
    near = np.abs(values) <= 2 * sqrt(variance)
    check_fit(draws, values[near], masses[near])


def test_laplace_draws_fit_their_definition() -> None:
    draws = draw_laplace(20_000, 3, fixed_bytes(1))
    values = np.arange(-6, 7)
    check_fit(draws, values, (1 - exp(-1 / 3)) / (1 + exp(-1 / 3)) * np.exp(-np.abs(values) / 3))


def test_geometric_draws_fit_their_definition() -> None:
    draws = draw_geometric(20_000, fixed_bytes(2))
    values = np.arange(6)
    check_fit(draws, values, (1 - exp(-1)) * np.exp(-values))


@pytest.mark.parametrize("power", [1, 2, 30])
def test_close_geometric_draws_go_on_in_decimals(power: int) -> None:
    """The first 53 bits are those of exp(-power): the further ones tell on which side of it a number is."""
    first = int(Decimal(-power).exp() * 2**53)
    counts = []
    for further in (b"\x00", b"\xff"):
        answers: Iterator[bytes] = iter([first.to_bytes(8, "little"), further * noise.FURTHER_BYTES])
        counts.append(draw_geometric(1, lambda count, answers=answers: next(answers))[0])
    assert counts == [power, power - 1]


def test_no_bit_set_is_a_draw_too() -> None:
    """A number of which all bits are zero is above exp(-k) from some k on, so that the draw ends."""
    assert draw_geometric(1, bytes)[0] > 160


def test_secret_bytes_are_uniform_and_new_each_time() -> None:
    first, second = (np.frombuffer(noise.secret_bytes(2**16), dtype=np.uint8) for _ in range(2))
    assert abs(first.mean() - 127.5) < 5 * 74 / 2**8
    assert (first != second).mean() > 0.9


def test_wide_draws_are_those_of_a_normal_distribution() -> None:
    deviation = 2**33
    draws = draw_gaussian(20_000, deviation**2, fixed_bytes(2)) / deviation
    assert abs(draws.mean()) < 4 / sqrt(20_000)
    assert abs(draws.var() - 1) < 4 * sqrt(2 / 20_000)
    counts, _ = np.histogram(norm.cdf(draws), np.linspace(0, 1, 21))
    assert chisquare(counts).pvalue > 1e-3


def test_shares_of_noise_add_up_to_the_whole() -> None:
    nodes, variance = 5, 500.0
    total = sum(draw_share(20_000, variance, nodes, fixed_bytes(node)) for node in range(nodes))
    assert isinstance(total, np.ndarray)
    values = np.arange(-40, 41)
    check_fit(total, values, np.exp(-(values**2) / (2 * variance)) / sqrt(2 * pi * variance))


def test_a_share_is_never_too_small() -> None:
    assert draw_share(4000, 10.0, 3, fixed_bytes(0)).var() == pytest.approx(4, rel=0.1), "a third of 10, rounded up"


def test_close_comparisons_go_on_in_decimals() -> None:
    """The 53 bits that exp(-γ) itself has cannot tell; the further bits do, one way and the other."""
    exponent = Decimal(1) / 3
    first = int(exp(-1 / 3) * 2**53)

    def source(further: bytes) -> noise.RandomBytes:
        answers: Iterator[bytes] = iter([first.to_bytes(8, "little"), further])
        return lambda count: next(answers)

    below = (-exponent).exp() > Decimal(first) / 2**53
    low, high = (
        draw_coins(np.array([1 / 3]), lambda place: exponent, source(byte * noise.FURTHER_BYTES))[0]
        for byte in (b"\x00", b"\xff")
    )
    assert (low, high) == (below, False)


def test_uniform_draws_are_uniform_below_a_limit() -> None:
    draws = draw_below(30_000, 6, fixed_bytes(3))
    assert set(draws.tolist()) == set(range(6))
    assert chisquare(np.bincount(draws)).pvalue > 1e-3


@pytest.mark.parametrize("variance", [0, noise.LARGEST**2 + 1])
def test_a_variance_beyond_the_range_is_refused(variance: int) -> None:
    with pytest.raises(ValueError, match="draws are exact from 1"):
        draw_gaussian(1, variance)


def test_no_draw_comes_twice() -> None:
    """Without a source, draws come from the operating system: no seed gives them again."""
    first, second = (draw_gaussian(50, 2**60) for _ in range(2))
    assert (first != second).all()


def test_secret_sampling_draws_each_user_by_an_own_coin() -> None:
    sizes = np.array([len(sample_secretly(1000, 0.1)) for _ in range(200)])
    assert abs(sizes.mean() - 100) < 5 * sqrt(90 / 200)
    assert sizes.std() > 4, "the size is chance, unlike that of a sample of 100"
    assert sample_secretly(7, 1.0).tolist() == list(range(7))
