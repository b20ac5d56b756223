"""Privacy at the server: Poisson sampling before a round, and noise between the sum of its answers and its use.

DP-FedAvg (McMahan et al. 2018, arXiv:1710.06963): each user's change is in the sum with an L2 norm of at most the
clip; the sum gets Gaussian noise of z · clip, and is divided by the expected number of users, which tells nothing of
the users who were drawn. The clip can follow a quantile of the changes' lengths (Andrew et al. 2021,
arXiv:1905.03871). The sums of the closed form get noise once.

Noise is drawn in whole numbers, on the grid on which the sum is exact (federation/privacy/noise.py), so that no
rounding of floating-point numbers tells of the data (Mironov 2012, doi:10.1145/2382196.2382264).
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedrec.data.errors import InputError
from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Update
from fedrec.federation.privacy.accounting import Releases
from fedrec.federation.privacy.ledger import FILE, Ledger, Spent
from fedrec.federation.privacy.noise import draw_gaussian
from fedrec.federation.privacy.shares import Sensitivity
from fedrec.federation.roster import Roster
from fedrec.federation.sampling import sample_clients, sample_secretly
from fedrec.recsys.card import load_card
from fedrec.recsys.closed_form.config import MAX_ITEMS
from fedrec.recsys.closed_form.norm_bounds import NormBounds
from fedrec.recsys.closed_form.pairs import PAIRS
from fedrec.recsys.model.lora import Adapter

BIT_NOISE = 1 / 20
"""The noise on the number of clipped changes, in expected users of a round (Andrew et al. 2021)."""
CLIP_RATE = 0.2
"""The rate at which the clip follows its quantile (likewise)."""

logger = logging.getLogger("fedrec")

_COUNTED = ("clients_asked", "clients_answered", "clients_refused", "clients_diverged", "clients_without_examples")
_MEASURED = ("bytes_down", "bytes_up", "seconds", "clients_per_second")


@dataclass(frozen=True, eq=False)
class Privatiser:
    """What a run does for its guarantee; without one, it samples by the run's seed and hands everything on."""

    folder: Path
    config: RunConfig
    ledger: Ledger | None

    @classmethod
    def open(cls, folder: Path, config: RunConfig) -> "Privatiser":
        """Open the ledger of a run. Raises `InputError` if a run with a guarantee has none."""
        return cls(folder, config, Ledger.load(folder) if config.privacy.enabled else None)

    def sample(self, roster: Roster, round: int) -> np.ndarray:
        """Sample the clients of a round of training: places of the roster, rising."""
        config = self.config
        if self.ledger:
            return sample_secretly(len(roster), self.ledger.plan.sampling_rate)
        return sample_clients(roster, config.clients_per_round, config.seed, round, config.node_share)

    def open_release(self, kind: str) -> float:
        """Enter a release of the `rounds` or the `statistics` to which the nodes add the noise, before they are asked
        for it, and return the multiplier of the noise; 0 if the server adds it, or nobody."""
        ledger = self._entered(kind) if self.config.privacy.by_nodes else None
        if ledger is None:
            return 0.0
        return ledger.plan.round_noise if kind == "rounds" else ledger.plan.statistic_noise

    def close_statistics(self, revealed: bool, excess: float) -> None:
        """Take sums with the nodes' noise out of the ledger if nobody was asked to reveal one; otherwise enter by what
        the variance of the noise exceeds the plan's."""
        if self.config.privacy.by_nodes:
            ledger = Ledger.load(self.folder)
            replace(ledger, statistics=int(revealed), statistic_excess=excess or 1.0).save(self.folder)

    def release_round(self, total: Update | None, clip: float, template: Adapter) -> tuple[Update | None, float]:
        """Return the aggregate of a round as the server may use it, and the clip of the next round.

        Every number of `deltas` gets noise, `learners` is the expected number of users, and no other metric is left.
        With nobody drawn (`total` is None), the noise is released alone. The release is in the ledger before the noise
        is drawn. To a sum with the nodes' noise nothing is added.
        """
        ledger = self.ledger if self.config.privacy.by_nodes else self._entered("rounds")
        if ledger is None:
            return total, 0.0
        if total and self.config.privacy.by_nodes:
            return replace(total, sums={"learners": ledger.expected_cohort}), 0.0
        total = total or Update(0, 0, {name: torch.zeros_like(like).double() for name, like in template.items()}, {})
        noise, cohort = ledger.plan.round_noise, ledger.expected_cohort
        if self.config.privacy.clip_quantile:
            noise, next_clip = self._adapted(total, clip, noise, cohort)
        else:
            next_clip = 0.0
        numbers = sum(tensor.numel() for tensor in total.deltas.values())
        most = Sensitivity.of_change(clip, numbers)
        deltas = add_noise(total.deltas, noise * most.longest, most.unit)
        return replace(total, deltas=deltas, sums={"learners": cohort}), next_clip

    def _adapted(self, total: Update, clip: float, noise: float, cohort: float) -> tuple[float, float]:
        """Return the noise multiplier of the changes, and the next clip, from a noised count of the clipped changes.

        Each user adds ½ or -½ to the count, and both releases together are as private as one with the multiplier
        `noise`.
        """
        deviation = BIT_NOISE * cohort
        balance = total.users - 2 * round(total.sums.get("clipped", 0.0))  # in halves: of unclipped less of clipped
        balance += int(draw_gaussian(1, math.ceil((2 * deviation) ** 2))[0])
        unclipped = 0.5 + balance / 2 / cohort
        quantile, largest = self.config.privacy.clip_quantile, self.config.clip
        next_clip = min(largest, clip * math.exp(-CLIP_RATE * (min(max(unclipped, 0.0), 1.0) - quantile)))
        return split_noise(noise, deviation), max(next_clip, largest * 2.0**-20)

    def release_statistics(self, total: Update, clipped: NormBounds | None) -> Update:
        """Return the closed form's sums as the server may use them.

        `clipped` are the bounds to which the nodes have clipped each user's statistics. The number of learners becomes
        that of all users.
        """
        ledger = self.ledger if self.config.privacy.by_nodes else self._entered("statistics")
        if ledger is None:
            return total
        everyone, deltas = ledger.population, total.deltas
        if not self.config.privacy.by_nodes:
            most = Sensitivity.of_statistics(clipped)
            deltas = add_noise(deltas, ledger.plan.statistic_noise * most.longest, most.unit)
        return replace(total, users=everyone, deltas=deltas, sums={"learners": float(everyone)})

    def deviation(self, clipped: NormBounds | None) -> float:
        """Return the standard deviation of the noise in the closed form's sums."""
        if self.ledger is None or clipped is None:
            return 0.0
        excess = Ledger.load(self.folder).statistic_excess
        return self.ledger.plan.statistic_noise * clipped.longest * math.sqrt(excess)

    @property
    def has_released_sums(self) -> bool:
        """Whether the closed form's sums are in the ledger already."""
        return bool(self.ledger and self.ledger.statistics)

    def _entered(self, kind: str) -> Ledger | None:
        """Enter a release into the ledger, and save it. Raises `InputError` if the plan has none left."""
        if self.ledger is None:
            return None
        before = Ledger.load(self.folder)
        ledger = before.with_round() if kind == "rounds" else before.with_statistics()
        ledger.save(self.folder)
        return ledger

    def remember(self, roster: Roster) -> str:
        """Return what the state remembers of the users: their fingerprint, or nothing, since it carries no noise."""
        return "" if self.ledger else roster.fingerprint

    def public(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record of a round as the log may hold it: without numbers that tell who was drawn."""
        if self.ledger is None:
            return dict(record)
        hidden = dict.fromkeys(_COUNTED, 0) | dict.fromkeys(_MEASURED, 0.0)
        return dict(record) | hidden | {"refusals": [], "absences": []}


def split_noise(noise: float, deviation: float) -> float:
    """Return the multiplier of changes that leaves, beside a count of ±½ with noise of a `deviation`, what one release
    with the multiplier `noise` does: z' = (z⁻² - (2 σ)⁻²)^(-½). Raises `InputError` if the count takes all."""
    if noise >= 2 * deviation:
        raise InputError(
            f"setting clip_quantile: with a noise of {noise:.3g}, a round needs more than {noise / 2 / BIT_NOISE:.0f} "
            "users for it; raise clients_per_round, or set clip_quantile = 0"
        )
    return (noise**-2 - (2 * deviation) ** -2) ** -0.5


def add_noise(sums: Adapter, deviation: float, unit: float) -> Adapter:
    """Add Gaussian noise to every number of some sums, which are whole multiples of a unit.

    It is drawn for all of them at once: each draw ends with many rounds over few numbers.
    """
    variance = math.ceil((deviation / unit) ** 2)
    counts = [tensor.numel() for tensor in sums.values()]
    noise = torch.from_numpy(draw_gaussian(sum(counts), variance)).double() * unit  # int64 times a float is float32
    parts = zip(sums.items(), noise.split(counts), strict=True)
    return {name: tensor.double() + part.view(tensor.shape) for (name, tensor), part in parts}


def enter_ledger(folder: Path, config: RunConfig, state: State, users: int) -> State:
    """Begin the ledger of a run over `users` users, or take up the one that it has, and return the state to go on from.

    A round that the ledger counts, and whose checkpoint a crash has lost, is not trained again: it counts as a round
    without an answer. Raises `InputError` if the run would overspend.
    """
    if not config.privacy.enabled:
        return state
    if not (folder / FILE).exists() and not state.round:
        _plan(config, users, _spent_before(folder)).save(folder)
        if config.method_row.trained or config.closed_form.features != PAIRS:
            logger.warning(
                "epsilon = %g: over some thousand users noise hurts this model far more than counts of pairs; up to %s "
                "items, method = 'closed-form' with features = 'pairs' ranks better (docs/privacy.md)",
                config.privacy.epsilon,
                f"{MAX_ITEMS:,}",
            )
    ledger = Ledger.load(folder)
    if lost := max(0, ledger.rounds - state.round):
        logger.warning("%s of %s rounds were released, and lost in a crash; they are not trained again", lost, folder)
    return replace(state, round=max(state.round, ledger.rounds))


def _plan(config: RunConfig, users: int, start: Spent) -> Ledger:
    rounds, summed = config.training_rounds, config.method_row.summed
    rate = min(1.0, config.clients_per_round / users) if rounds else 0.0
    wanted = Releases(rounds, rate, 0.0, int(summed), 0.0)
    ledger = Ledger.plan_run(config.privacy, wanted, users, config.clip, start)
    if rounds and config.privacy.clip_quantile:
        split_noise(ledger.plan.round_noise, BIT_NOISE * ledger.expected_cohort)
    return ledger


def _spent_before(folder: Path) -> Spent:
    """Return what the run that this one started from has spent, by the card. See `check_private_start`."""
    start = load_card(folder).get("start") or {}
    return Spent(**start.get("privacy", {}))
