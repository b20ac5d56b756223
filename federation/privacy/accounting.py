"""Accounting: the noise that keeps a promise, and what some releases have spent of it. `dp-accounting` computes both.

Neighbouring are two populations of which one has one user more. A release adds Gaussian noise to a sum over users to
which each adds at most the clip in L2 norm. The noise multiplier is the noise's standard deviation over the clip.
Rounds draw each user by an own coin (Poisson sampling), so that their noise is amplified by the sampling; the sums of
the closed form are over everybody. All releases are composed by privacy loss distributions, rounded so that ε is never
too small (Doroshenko et al. 2022, arXiv:2207.04380).
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from fedrec.data.errors import InputError

RELATION = "add or remove one user"
"""The neighbouring relation of every claim."""
LARGEST_NOISE = 1000.0
"""The largest noise multiplier that is tried."""
TOLERANCE = 1e-3
"""The precision of a noise multiplier: it is too large by at most this."""
SHORT = 1e-6
"""The largest relative error of the noise's deviation on its grid, for which multipliers are enlarged."""


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

    return pld.PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE)


def _least_noise(releases: Releases, name: str, epsilon: float, delta: float) -> float:
    """Find the least noise multiplier of one kind."""
    import dp_accounting as dp

    bracket = dp.LowerEndpointAndGuess(0.05, 1.0)
    try:
        found = dp.calibrate_dp_mechanism(
            _accountant,
            lambda noise: replace(releases, **{name: noise})._event(),
            epsilon,
            delta,
            bracket,
            tol=TOLERANCE,
        )
    except Exception as error:
        raise InputError(
            f"setting epsilon = {epsilon:g}: no noise was found that keeps it ({error}); raise epsilon, or lower rounds"
        ) from error
    return round_up(found * (1 + SHORT))


def round_up(noise: float) -> float:
    """Round a noise multiplier up to six digits behind the point."""
    return math.ceil(noise * 1e6) / 1e6


def default_delta(users: int) -> float:
    """Return the δ of a population: a tenth of one user."""
    return 1 / (10 * users)
