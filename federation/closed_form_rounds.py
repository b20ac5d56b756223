"""The rounds of the closed form over a Grid: one exchange of sums, then a validation of each candidate solution.

With final sums, two more follow: a validation of what was chosen, as it would be served, and a second exchange, with
fewer events held out, from which the finished model is solved.

All are rounds like those of training: a line in the log, a checkpoint, and a resumed run goes on with the next.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from fedrec.data.errors import InputError
from fedrec.federation import round_log, wire
from fedrec.federation.aggregate import aggregate
from fedrec.federation.census import with_new_nodes
from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig
from fedrec.federation.exchange import RoundReport, orders_per_node, request_updates
from fedrec.federation.members import Members, marks_of
from fedrec.federation.messages import Order
from fedrec.federation.privatise import Privatiser
from fedrec.federation.roster import Roster
from fedrec.federation.round_log import SCORE, RoundLog
from fedrec.federation.rounds import Stopwatch, record_of
from fedrec.federation.run_statistics import RunSums, Sums, has_total, load_total, save_total
from fedrec.federation.sampling import sample_clients
from fedrec.federation.served import Served
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.training.hybrid import split_adapter


def run(grid: Grid, roster: Roster, state: State, setup: TrainingSetup, log: RoundLog) -> State:
    """Exchange the sums, and choose a solution on validation, from the state after training.

    Without validation the middle of the search space is taken. Raises `InputError` if nobody answered, with everything
    before it saved.
    """
    config = setup.config
    if state.round < config.summing_rounds[0]:
        state = _exchange_sums(grid, roster, state, setup, log)
    if state.round < config.last_choice:
        state = _choose(grid, roster, state, setup, log)
    if config.final_sums and state.round < config.last_round - 1:
        state = _validate_chosen(grid, roster, state, setup, log)
    if config.final_sums and state.round < config.last_round:
        state = _exchange_sums(grid, roster, state, setup, log)
    return state


def validation_before(folder: Path, config: RunConfig) -> dict[str, float]:
    """Return the validation of what was chosen, before the final sums, from a run's log."""
    return next(record["validation"] for record in round_log.read(folder) if record["round"] == config.last_round - 1)


def _exchange_sums(grid: Grid, roster: Roster, state: State, setup: TrainingSetup, log: RoundLog) -> State:
    """Request the sums of all users, and save them in the run's folder; solve them for what validation has chosen, or
    for the middle of the search space if it does not choose.

    Sums with noise that a run has saved, and not solved before it was killed, are not requested again.
    """
    watch, config = Stopwatch(), setup.config
    number = next(number for number in config.summing_rounds if number > state.round)
    everyone = with_new_nodes(grid, roster, set(map(int, roster.nodes)), config)
    privatiser, report, found = Privatiser.open(log.folder, config), RoundReport(), {"users": len(everyone)}
    if privatiser.has_released_sums and has_total(log.folder):
        sums = load_total(log.folder)
    else:
        order = Order(number, np.arange(len(everyone)), run=state.run)
        report, sums = _request_sums(grid, everyone, order, setup, privatiser)
        found["clients_without_examples"] = sums.users - sums.learners
    state = replace(state, round=number, roster=privatiser.remember(everyone))
    if state.chosen or not config.validated:
        chosen = state.chosen or config.search_space.middle
        deviation = privatiser.deviation(setup.closed_form.clipped)
        solution = setup.closed_form.solver(sums.statistics, deviation).solve(chosen)
        state = state.with_solution(_beside(state, solution), chosen)
    _record(state, log, watch, report, found)
    return state


def _request_sums(
    grid: Grid, everyone: Roster, order: Order, setup: TrainingSetup, privatiser: Privatiser
) -> tuple[RoundReport, Sums]:
    """Request the sums of all users, add them up, and save them: with noise only the total."""
    config, folder, bounds = setup.config, privatiser.folder, setup.closed_form.bounds
    order = replace(order, noise=privatiser.open_release("statistics"))
    report = request_updates(grid, wire.STATISTICS, orders_per_node(everyone, order), {}, config, bounds)
    privatiser.close_statistics(report.revealed, report.excess)
    total = aggregate(report.updates)
    if total is None and report.refusals:
        raise InputError(
            f"no node answered with its sums ({report.refusals[0]}); settle that and resume, or train with "
            "method = 'fedrec', which asks for none"
        )
    if total is None:
        raise InputError("no node answered with its sums; bring the nodes back and resume")
    sums = Sums.of(privatiser.release_statistics(total, setup.closed_form.clipped))
    if privatiser.ledger:
        save_total(folder, sums)  # of single nodes and users, nothing is kept: it has no noise
        return report, sums
    apart = not config.secure_aggregation.secure
    by_node = dict(zip(report.nodes, map(Sums.of, report.updates), strict=True)) if apart else {}
    RunSums(sums, by_node, _members(everyone, report, order.run)).save(folder)
    return report, sums


def _members(roster: Roster, report: RoundReport, run: str) -> Members:
    """Return the users of the nodes whose sums were added."""
    there = np.isin(roster.nodes, np.array(report.nodes, dtype=np.uint64))
    return Members.of(marks_of(run, roster.tickets[there]), roster.nodes[there])


def _choose(grid: Grid, roster: Roster, state: State, setup: TrainingSetup, log: RoundLog) -> State:
    """Validate the candidates that are left, and keep the best."""
    if state.chosen and not state.trials:  # revised, or of a version that kept no trials and searched the lists alone
        return state
    config, space = setup.config, setup.config.search_space
    solver = setup.closed_form.solver(load_total(log.folder).statistics)
    ranked = sample_clients(roster, config.validation_users, config.seed, 0, config.node_share)
    while state.round < config.last_choice and (chosen := space.propose(state.trials)):
        watch, number = Stopwatch(), state.round + 1
        candidate = _beside(state, solver.solve(chosen))
        order = Order(number, ranked, split="validation", run=state.run)
        report, metrics = _rank(grid, roster, order, candidate, config)
        state = replace(state, round=number).with_candidate(candidate, chosen, metrics[SCORE])
        found = {"validation": metrics, "users": len(roster), "candidate": chosen.as_record()}
        _record(state, log, watch, report, found)
    return state


def _validate_chosen(grid: Grid, roster: Roster, state: State, setup: TrainingSetup, log: RoundLog) -> State:
    """Rank the validation items of all users by what was chosen, as it would be served without final sums."""
    watch, number = Stopwatch(), setup.config.last_round - 1  # the search may have ended before its last round
    served = Served.load(log.folder, setup, state)
    order = Order(number, np.arange(len(roster)), split="validation", run=state.run)
    report, metrics = _rank(grid, roster, order, served.adapter, setup.config)
    state = replace(state, round=number)
    _record(state, log, watch, report, {"validation": metrics, "users": len(roster)})
    return state


def _rank(
    grid: Grid, roster: Roster, order: Order, adapter: Adapter, config: RunConfig
) -> tuple[RoundReport, dict[str, float]]:
    """Request a ranking, and return the report with its metrics. Raises `InputError` if no user was ranked."""
    report = request_updates(grid, wire.EVALUATE, orders_per_node(roster, order), adapter, config)
    if report.metrics is None:
        raise InputError(f"no user was ranked in round {order.round}; bring the nodes back and resume")
    return report, report.metrics


def _beside(state: State, solution: Adapter) -> Adapter:
    """Return the best towers so far, with a solution of the closed form."""
    return split_adapter(state.best)[0] | solution


def _record(state: State, log: RoundLog, watch: Stopwatch, report: RoundReport, found: dict[str, Any]) -> None:
    """Write the line of a round, and the state after it."""
    record = record_of(state.round, found, report, watch)
    log.append(record)
    state.save(log.folder)
    log.observe(record)
