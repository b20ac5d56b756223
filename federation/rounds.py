"""The training loop over a Grid: sample, request, aggregate, privatise, step, validate, record.

There is no other loop: a test in one process, a simulation and a network of nodes all use this one.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from fedrec.data.errors import InputError
from fedrec.federation import wire
from fedrec.federation.aggregate import aggregate
from fedrec.federation.buffered_rounds import BufferedRounds
from fedrec.federation.census import with_new_nodes
from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig
from fedrec.federation.exchange import RoundReport, orders_per_node, request_updates
from fedrec.federation.groups import request_round
from fedrec.federation.messages import Order, Update
from fedrec.federation.privatise import Privatiser
from fedrec.federation.roster import Roster
from fedrec.federation.round_log import SCORE, RoundLog
from fedrec.federation.sampling import sample_clients
from fedrec.federation.server_step import server_step

logger = logging.getLogger("fedrec")


def run(grid: Grid, roster: Roster, state: State, config: RunConfig, log: RoundLog) -> State:
    """Train from `state` to the last round, synchronous or asynchronous, and return the state after it.

    Every round ends with a line in the log and a checkpoint beside it. Late nodes take part from the next round on;
    validation users are sampled once, from the initial nodes. With the same users from the first round to the last, an
    interrupted run comes to the same model. Raises `InputError` if the adapter leaves the range of float32.
    """
    initial, validation_users = roster, _sample(roster, config.validation_users, 0, config)
    if state.roster not in ("", roster.fingerprint):
        logger.warning("the nodes host other users than before; resuming with these %s", len(roster))
    known_nodes, privatiser = set(map(int, roster.nodes)), Privatiser.open(log.folder, config)
    ask = partial(request_updates, grid, wire.TRAIN, config=config)
    buffered = BufferedRounds.after(state, roster, config) if config.buffer.asynchronous else None
    while state.round < config.rounds:
        watch, number, clip = Stopwatch(), state.round + 1, state.clip or config.clip
        # sample, request
        if buffered:
            report, state, schedule = buffered.request(ask, state)
        else:
            roster, schedule = with_new_nodes(grid, roster, known_nodes, config), {}
            clients, noise = privatiser.sample(roster, number), privatiser.open_release("rounds")
            order = Order(number, clients, clip, best=state.best_round, run=state.run, noise=noise)
            report = request_round(partial(ask, adapter=state.adapter), roster, order, config)
        # aggregate, privatise, step
        total = aggregate(report.updates, config.server.aggregation, config.server.liars)
        if total or not report.clients_asked:
            total, next_clip = privatiser.release_round(total, clip, state.adapter)
            state = replace(state, clip=next_clip)
        state = server_step(state, total, config, schedule.get("staleness", 0.0))
        state = replace(state, roster=privatiser.remember(roster))
        _check_finite(state, config)
        speed = report.clients_answered / watch.seconds
        # validate
        evaluation = RoundReport()
        if not config.validated:
            state = state.with_best_adapter() if total else state
        elif number % config.validate_every == 0 or number == config.rounds:
            order = Order(number, validation_users, split="validation", run=state.run)
            evaluation = request_updates(grid, wire.EVALUATE, orders_per_node(initial, order), state.adapter, config)
            state = state.with_score(evaluation.metrics[SCORE]) if evaluation.metrics else state
        # record
        record = {
            "round": number,
            **round_metrics(total),
            "validation": evaluation.metrics,
            "users": len(roster),
            **report.with_traffic_of(evaluation).as_record(),
            "seconds": round(watch.seconds, 3),
            "clients_per_second": round(speed, 1),
            **schedule,
        }
        public = privatiser.public(record)
        log.append(public)
        state.save(log.folder)
        log.observe(public)
    return state


def _sample(roster: Roster, count: int, round: int, config: RunConfig) -> np.ndarray:
    return sample_clients(roster, count, config.seed, round, config.node_share)


@dataclass(frozen=True)
class Stopwatch:
    """The seconds since a moment."""

    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self.started


def record_of(number: int, found: Mapping[str, Any], report: RoundReport, watch: Stopwatch) -> dict[str, Any]:
    """Build the record of a round without training, from what it has found."""
    return {
        "round": number,
        **round_metrics(None),
        "validation": None,
        **found,
        **report.as_record(),
        "seconds": round(watch.seconds, 3),
        "clients_per_second": round(report.clients_answered / watch.seconds, 1),
    }


def _check_finite(state: State, config: RunConfig) -> None:
    """Raise `InputError` if a step has moved the adapter out of the range of float32."""
    if not all(tensor.isfinite().all() for tensor in state.adapter.values()):
        raise InputError(
            f"round {state.round} moved the adapter beyond what float32 can hold; train again, into another folder, "
            f"with a lower server_rate than {config.server.server_rate:g}"
        )


def round_metrics(total: Update | None) -> dict[str, Any]:
    """Compute the metrics of a round: means over the clients that have a loss, and counts of the other clients.

    Without an answer, and under differential privacy, there are none.
    """
    if total is None or "loss" not in total.sums:
        return {"loss": None, "clipped": None, "clients_diverged": 0, "clients_without_examples": 0}
    sums = total.sums
    with_loss = sums["learners"] - sums["diverged"]
    return {
        "loss": sums["loss"] / with_loss if with_loss else None,
        "clipped": sums["clipped"] / with_loss if with_loss else None,
        "clients_diverged": int(sums["diverged"]),
        "clients_without_examples": total.users - int(sums["learners"]),
    }
