"""The bound on exposure over a Grid: users tell in sums what they would be shown, and items that are shown too widely
are lowered.

It follows the last round: each order to count is a line in the log, and has no checkpoint. The same users count the
same, so that an interrupted run asks again. Users are sampled once, by the run's seed.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.serverapp import Grid
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.federation import wire
from fedrec.federation.aggregate import aggregate
from fedrec.federation.exchange import RoundReport, orders_per_node, request_updates
from fedrec.federation.messages import Order
from fedrec.federation.roster import Roster
from fedrec.federation.round_log import RoundLog
from fedrec.federation.rounds import Stopwatch, record_of
from fedrec.federation.sampling import sample_clients
from fedrec.federation.served import Served
from fedrec.recsys.exposure_bound import EXPOSED, Bounding, Exposure, ExposureLimit

ORDERS = 6
"""The orders to count, at most: one to find items that are in many lists, and one for each time that some fall."""
COUNTED_USERS = 10_000
"""Users that are asked what they are shown, at most: a share of 0.015 of them has a standard error of 0.0012."""
FEWEST = 0.5
"""Share of the asked users without whose counts there is no bound: a few could take from all what these like."""

logger = logging.getLogger("fedrec")


class NotCounted(Exception):
    """The end of a bound for which too few users have told what they are shown; its text says why."""


@dataclass(frozen=True, eq=False)
class Bounded:
    """The biases of a model's items (N,), None without a bound, and how they came to be, for the card."""

    bias: Tensor | None
    record: dict[str, Any]

    @classmethod
    def without(cls, reason: str) -> "Bounded":
        """Build the result of a run that bounds nothing, for a reason."""
        return cls(None, {"base": 0.0, "reason": reason})


def bound_exposure(grid: Grid, roster: Roster, served: Served, log: RoundLog) -> Bounded:
    """Ask users for what they would be shown by a model, and lower items until none is shown too widely.

    A run that bounds no exposure asks nobody, and one that bounds it by default ends without a bound if the nodes
    refuse to count. Raises `InputError` if they do not answer, or if exposure was to be bounded by a number.
    """
    config = served.setup.config
    if not (limit := config.exposure_limit):
        return Bounded.without(config.unbounded)
    try:
        return _bound(_Counting(grid, roster, served, log), limit)
    except NotCounted as reason:
        logger.warning(
            "exposure is not bounded: %s; an item that few have had may be shown to everybody. Set secure = true, or "
            "exposure_base = 0 to do without (docs/robustness.md)",
            reason,
        )
        return Bounded.without(str(reason))


def describe(record: Mapping[str, Any]) -> str:
    """Describe in one line what a card tells of exposure."""
    if "reason" in record:
        return f"Exposure is not bounded: {record['reason']}."
    return (
        f"Exposure is bounded: {record['lowered']} items are lowered, which would be shown to more users than items "
        "that so few have had may be."
    )


def _bound(counting: "_Counting", limit: ExposureLimit) -> Bounded:
    bounding = Bounding.start(limit, len(counting.served.setup.dataset.catalogue))
    asked = counted = 0
    while asked < ORDERS and (bounding.excess or not asked):
        bounding, counted = counting.step(bounding, asked)
        asked += 1
    found = {"users": counted, "orders": asked, "lowered": bounding.lowered, "unsettled": bounding.excess}
    return Bounded(bounding.bias, {"base": limit.base, **found})


@dataclass(frozen=True, eq=False)
class _Counting:
    """The orders to count for one model, and the log of them."""

    grid: Grid
    roster: Roster
    served: Served
    log: RoundLog

    def step(self, bounding: Bounding, asked: int) -> tuple[Bounding, int]:
        """Request counts, after so many orders, and return the bound after them, with the users who were counted.

        Raises `NotCounted` or `InputError` if they are too few.
        """
        watch, state, config = Stopwatch(), self.served.state, self.served.setup.config
        users = sample_clients(self.roster, COUNTED_USERS, config.seed, 0, config.node_share)
        orders = orders_per_node(self.roster, Order(state.best_round, users, split=EXPOSED, run=state.run))
        report = request_updates(self.grid, wire.EXPOSURE, orders, self.served.adapter | bounding.order, config)
        found = _exposure_of(report)
        after = bounding.step(found) if found else bounding
        told = {"users": found.users if found else 0, "lowered": after.lowered, "excess": after.excess}
        about = {"users": len(self.roster), "exposure": told}
        record = record_of(state.round + asked + 1, about, report, watch)
        self.log.append(record)
        self.log.observe(record)
        if not found:
            self._refuse(report)
        return after, told["users"]

    def _refuse(self, report: RoundReport) -> None:
        """Raise `NotCounted` if the run can do without counts, and none are to be had, or else `InputError`."""
        reason = next(iter((*report.refusals, *report.absences)), "no user has a history")
        told = f"{report.clients_answered} of {report.clients_asked} users told what is shown ({reason})"
        willing = report.clients_asked - report.clients_refused
        if self.served.setup.config.exposure.is_auto and not (report.absences and _are_enough(willing, report)):
            raise NotCounted(told)
        raise InputError(f"{told}; settle that and resume, or train again with exposure_base = 0")


def _are_enough(users: int, report: RoundReport) -> bool:
    """Whether so many of the asked users are enough for a bound."""
    return users >= FEWEST * report.clients_asked


def _exposure_of(report: RoundReport) -> Exposure | None:
    """Return what users are shown; None if too few of the asked users have told."""
    total = aggregate(report.updates)
    if total is None or not total.sums["users"] or not _are_enough(report.clients_answered, report):
        return None
    return Exposure(int(total.sums["users"]), **total.deltas)
