"""Accounting: the noise that keeps a guarantee, and what some releases have spent of it. `dp-accounting` computes both.

Neighbouring are two populations of which one has one user more. A release adds Gaussian noise to a sum over users to
which each adds at most the clip in L2 norm. The noise multiplier is the noise's standard deviation over the clip.
Rounds draw each user by an own coin (Poisson sampling), so that their noise is amplified by the sampling; the sums of
the closed form are over everybody. All releases are composed by privacy loss distributions, rounded so that ε is never
too small (Doroshenko et al. 2022, arXiv:2207.04380).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fedrec.data.errors import InputError

RELATION = "add or remove one user"
"""The neighbouring relation of every claim."""
LARGEST_NOISE = 4096.0
"""The largest noise multiplier: beyond it, numbers on the grid of sums leave the range of exact draws."""
TOLERANCE = 1e-3
"""The precision of a noise multiplier."""
STEP = 1e-3
"""The step on which privacy losses are rounded up."""

ORDERS = (*range(2, 16), *range(16, 64, 4), 64, 96, 128, 256, 512, 1024)
"""The orders of Rényi divergences, of which any gives an upper bound. Whole ones are sums of finitely many terms, which
are always found."""


@dataclass(frozen=True)
class Releases:
    """Some noised releases of a run, and the noise in them."""

    rounds: int  # of towers
    sampling_rate: float  # the probability of a user to be drawn for a round
    round_noise: float  # noise multiplier; 0 without rounds
    statistics: int  # of the closed form: 0 or 1
    statistic_noise: float  # noise multiplier; 0 without statistics

    def spent(self, delta: float) -> float:
        """Compute the ε of these releases at a δ."""
        if not self.rounds and not self.statistics:
            return 0.0
        return _accountant().compose(self._event()).get_epsilon(delta)

    def bound(self, delta: float) -> float:
        """Compute an upper bound of the ε of these releases, at once."""
        import dp_accounting as dp
        from dp_accounting import rdp

        return (
            rdp.RdpAccountant(ORDERS, dp.NeighboringRelation.ADD_OR_REMOVE_ONE)
            .compose(self._event())
            .get_epsilon(delta)
        )

    def _event(self) -> Any:
        import dp_accounting as dp

        events = []
        if self.rounds:
            drawn = dp.PoissonSampledDpEvent(self.sampling_rate, dp.GaussianDpEvent(self.round_noise))
            events.append(dp.SelfComposedDpEvent(drawn, self.rounds))
        if self.statistics:
            events.append(dp.GaussianDpEvent(self.statistic_noise))
        return dp.ComposedDpEvent(events)

    def with_noise(self, epsilon: float, delta: float, statistic_budget: float) -> "Releases":
        """Find the least noise with which these releases spend ε at most.

        With both kinds, the statistics alone spend the share `statistic_budget` of ε, and the rounds what is left.
        Raises `InputError` if no noise is enough.
        """
        found = self
        if self.statistics:
            share = statistic_budget if self.rounds else 1.0
            alone = replace(self, rounds=0)
            noise = _least_noise(alone, "statistic_noise", share * epsilon, delta)
            found = replace(self, statistic_noise=noise)
        if self.rounds:
            found = replace(found, round_noise=_least_noise(found, "round_noise", epsilon, delta))
        return found


def _accountant() -> Any:
    import dp_accounting as dp
    from dp_accounting import pld

    return pld.PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE, STEP)


def _least_noise(releases: Releases, name: str, epsilon: float, delta: float) -> float:
    """Find the least noise multiplier of one kind, rounded up to the tolerance.

    Rényi divergences, which are computed at once, give an upper end, and privacy loss distributions the answer below.
    """
    from scipy.optimize import root_scalar

    def with_noise(noise: float) -> Releases:
        return replace(releases, **{name: noise})

    def too_much(noise: float) -> float:
        return with_noise(noise).spent(delta) - epsilon

    upper = _first(lambda noise: with_noise(noise).bound(delta) <= epsilon)
    if upper is None:
        raise InputError(
            f"setting epsilon = {epsilon:g}: no noise was found that keeps it, with multipliers up to "
            f"{LARGEST_NOISE:g}; raise epsilon, or lower rounds"
        )
    lower = upper
    while too_much(lower) <= 0:
        lower *= 0.8
    bracket = (lower, lower / 0.8)
    found = upper if lower == upper else root_scalar(too_much, bracket=bracket, xtol=TOLERANCE / 4).root
    steps = math.ceil(found / TOLERANCE)
    while too_much(steps * TOLERANCE) > 0:
        steps += 1
    return steps * TOLERANCE


def _first(keeps: Callable[[float], bool]) -> float | None:
    """Return the first of growing noise multipliers that keeps a bound."""
    noise = 0.05
    while not keeps(noise):
        noise *= 1.2
        if noise > LARGEST_NOISE:
            return None
    return noise


def default_delta(users: int) -> float:
    """Return the δ of a population: a tenth of one user."""
    return 1 / (10 * users)
