"""The accounting: dp-accounting's own answers, published figures, and the formula of the Gaussian mechanism."""

import math

import dp_accounting as dp
import pytest
from dp_accounting import pld, rdp
from scipy.stats import norm

from fedrec.data.errors import InputError
from fedrec.federation.privacy.accounting import TOLERANCE, Releases, default_delta
from fedrec.federation.privacy.audit import gaussian_epsilon
from fedrec.federation.privatise import split_noise

ONE_RELEASE = Releases(0, 0.0, 0.0, 1, 0.0)


def gaussian_delta(noise: float, epsilon: float) -> float:
    """The exact δ of one release with Gaussian noise (Balle and Wang 2018, arXiv:1805.06530, Theorem 8)."""
    first, second = (norm.cdf(sign * 0.5 / noise - epsilon * noise) for sign in (1, -1))
    return float(first - math.exp(epsilon) * second)


def test_a_bound_is_found_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The accountant's own orders are left out of some bounds, and each is told on the terminal: the control."""
    releases = Releases(60, 0.2, 1.6, 1, 0.9)
    bound = releases.bound(1e-5)
    assert not caplog.records
    own = rdp.RdpAccountant().compose(releases._event()).get_epsilon(1e-5)
    assert "failed to converge" in caplog.text
    assert releases.spent(1e-5) <= bound == pytest.approx(own, rel=0.01)


@pytest.mark.parametrize("epsilon", [1.0, 2.0, 8.0])
def test_noise_of_one_release_is_that_of_the_formula(epsilon: float) -> None:
    delta = default_delta(8442)
    noise = ONE_RELEASE.with_noise(epsilon, delta, 0.5).statistic_noise
    assert gaussian_delta(noise, epsilon) <= delta, "enough"
    assert gaussian_delta(noise - 3 * TOLERANCE, epsilon) > delta, "and no more than that"


def test_noise_of_rounds_is_dp_accountings_own() -> None:
    wanted = Releases(100, 0.05, 0.0, 0, 0.0)
    found = wanted.with_noise(4.0, 1e-5, 0.5).round_noise
    own = dp.calibrate_dp_mechanism(
        lambda: pld.PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE),
        lambda noise: dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(0.05, dp.GaussianDpEvent(noise)), 100),
        4.0,
        1e-5,
        dp.LowerEndpointAndGuess(0.5, 1.0),
        tol=TOLERANCE,
    )
    assert found == pytest.approx(own, abs=2 * TOLERANCE)


@pytest.mark.parametrize(("noise", "epochs", "published"), [(1.3, 15, 1.19), (1.1, 60, 3.01), (0.7, 45, 7.10)])
def test_published_figures_of_dp_sgd(noise: float, epochs: int, published: float) -> None:
    """TensorFlow Privacy's tutorial on MNIST (60,000 examples, batches of 256, δ = 10⁻⁵), by Rényi divergences, which
    claim somewhat more than privacy loss distributions."""
    spent = Releases(epochs * 60_000 // 256, 256 / 60_000, noise, 0, 0.0).spent(1e-5)
    assert 0.7 * published < spent <= published


def test_both_kinds_of_releases_spend_no_more_than_the_whole() -> None:
    found = Releases(50, 0.1, 0.0, 1, 0.0).with_noise(6.0, 1e-5, 0.25)
    alone = Releases(0, 0.0, 0.0, 1, found.statistic_noise).spent(1e-5)
    assert 1.48 < alone <= 1.5, "a quarter of ε for the statistics"
    assert 5.9 < found.spent(1e-5) <= 6.0


def test_nothing_is_spent_without_a_release() -> None:
    assert Releases(0, 0.1, 1.0, 0, 1.0).spent(1e-5) == 0


def test_noise_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="setting epsilon = 1e-06: no noise was found"):
        Releases(10**6, 1.0, 0.0, 0, 0.0).with_noise(1e-6, 1e-9, 0.5)


def test_a_noised_count_of_clipped_changes_costs_the_changes_some_noise() -> None:
    """Two Gaussian releases are as one with the root of the sum of their squared signal-to-noise ratios."""
    changes = split_noise(1.0, deviation=2.0)
    assert changes**-2 + (2 * 2.0) ** -2 == pytest.approx(1.0)
    with pytest.raises(InputError, match="raise clients_per_round, or set clip_quantile = 0"):
        split_noise(4.0, deviation=2.0)


def test_audit_inverts_the_formula() -> None:
    assert gaussian_epsilon(1 / 1.5, gaussian_delta(1.5, 2.0)) == pytest.approx(2.0)
