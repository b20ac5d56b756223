"""The bound on exposure over a Grid: users tell in sums what they would be shown, and items that are shown too widely
are lowered.

It follows the last round, and needs no checkpoint: the same users count the same, so that an interrupted run asks
again. Users are sampled once, by the run's seed.
"""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

from flwr.serverapp import Grid
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.federation import wire
from fedrec.federation.aggregate import aggregate
from fedrec.federation.exchange import orders_per_node, request_updates
from fedrec.federation.messages import Order
from fedrec.federation.roster import Roster
from fedrec.federation.sampling import sample_clients
from fedrec.federation.served import Served
from fedrec.recsys.exposure_bound import EXPOSED, Bounding, Exposure

ORDERS = 6
"""The orders to count, at most: one to find items that are in many lists, and one for each time that some fall."""
COUNTED_USERS = 10_000
"""Users that are asked what they are shown, at most: a share of 0.015 of them has a standard error of 0.0012."""

logger = logging.getLogger("fedrec")


@dataclass(frozen=True, eq=False)
class Bounded:
    """The biases of a model's items (N,), and how they came to be, for the card."""

    bias: Tensor
    record: dict[str, Any]


def bound_exposure(grid: Grid, roster: Roster, served: Served) -> Bounded:
    """Ask users for what they would be shown by a model, and lower items until none is shown too widely.

    Raises `InputError` if nobody answers.
    """
    config, state = served.setup.config, served.state
    users = sample_clients(roster, COUNTED_USERS, config.seed, 0, config.node_share)
    order = Order(state.best_round, users, split=EXPOSED, run=state.run)
    ask = partial(_request_counts, grid, roster, order, served)
    bounding, asked, counted = Bounding.start(config.exposure, len(served.setup.dataset.catalogue)), 0, 0
    while asked < ORDERS and (bounding.excess or not asked):
        found = ask(bounding)
        bounding, asked, counted = bounding.step(found), asked + 1, found.users
    lowered = int((bounding.bias < 0).sum())
    record = {"users": counted, "orders": asked, "lowered": lowered, "unsettled": bounding.excess}
    logger.info("%s items are shown to fewer of %s users than they would be; %s orders", lowered, counted, asked)
    return Bounded(bounding.bias, record)


def _request_counts(grid: Grid, roster: Roster, order: Order, served: Served, bounding: Bounding) -> Exposure:
    adapter, config = served.adapter | bounding.order, served.setup.config
    report = request_updates(grid, wire.EXPOSURE, orders_per_node(roster, order), adapter, config)
    total = aggregate(report.updates)
    if total is None or not total.sums["users"]:
        reason = next(iter((*report.refusals, *report.absences)), "no user has a history")
        raise InputError(
            f"nobody told what is shown ({reason}); settle that and resume, or train again with exposure_base = 0"
        )
    return Exposure(int(total.sums["users"]), **total.deltas)
