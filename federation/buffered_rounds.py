"""Asynchronous rounds (FedBuff: Nguyen et al. 2022, arXiv:2106.06639): the server steps at a buffer of answers.

A client trains from the adapter that was current when it began, so the server keeps the adapters that clients are still
at work from. The answers from one adapter are summed, exactly, on whatever nodes; each of these sums is multiplied by
the weight of its staleness, and they are added in the order of the versions. So the model does not depend on the nodes.
As in the paper, the server divides by the number of clients, not of weights: stale changes shorten a step. Its momentum
is not the paper's: it averages over more steps the more stale changes are (`server_step`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice
from operator import add
from typing import Any, Protocol, Self

from fedrec.data.errors import InputError
from fedrec.federation.buffered.schedule import Step, schedule_steps
from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig
from fedrec.federation.exchange import RoundReport, orders_per_node
from fedrec.federation.groups import Gathered
from fedrec.federation.messages import Order, Update
from fedrec.federation.roster import Roster
from fedrec.recsys.model.lora import Adapter


class AskFrom(Protocol):
    """A function that sends each node one order with an adapter, and returns the valid answers."""

    def __call__(self, *, orders: Mapping[int, Order], adapter: Adapter) -> RoundReport: ...


@dataclass(frozen=True, eq=False)
class BufferedRounds:
    """The rest of a run's asynchronous rounds: the steps of the schedule, over the clients of the first census."""

    roster: Roster
    config: RunConfig
    steps: Iterator[Step]

    @classmethod
    def after(cls, state: State, roster: Roster, config: RunConfig) -> Self:
        """Go on after the rounds of a state. Raises `InputError` if it was left with other users at work."""
        if state.roster not in ("", roster.fingerprint):
            raise InputError(
                f"setting buffer_size = {config.buffer.buffer_size}: the nodes host other users than those that were "
                "at work; resume with the same users, or train again into another folder"
            )
        return cls(roster, config, islice(schedule_steps(roster, config), state.round, None))

    def request(self, ask: AskFrom, state: State) -> tuple[RoundReport, State, dict[str, Any]]:
        """Request the answers of the next step.

        Return their weighted sum as the one update of a report, the state with the adapters that are in use after the
        step, and the fields of the round's record that tell of the schedule.
        """
        step = next(self.steps)
        versions = {**state.versions, state.round: state.adapter}
        gathered = Gathered()
        for version, clients in step.answers.items():
            order = Order(version + 1, clients, self.config.clip, run=state.run)
            report = ask(orders=orders_per_node(self.roster, order), adapter=versions[version])
            gathered.add(report, dict.fromkeys(report.nodes, version))
        total = _sum_weighted(gathered.sums, step.weights(self.config.buffer.staleness_exponent), state.round + 1)
        report = replace(gathered.account, updates=[total] if total else [])
        goes_on = state.round + 1 < self.config.rounds
        kept = {version: versions[version] for version in sorted(step.in_use) if goes_on}
        return report, replace(state, versions=kept), step.as_record()


def _sum_weighted(sums: Mapping[int, Update], weights: Mapping[int, float], round: int) -> Update | None:
    """Add the sums of all versions as an update of this round, each change multiplied by its weight; None of none."""
    weighted = [
        Update(round, one.users, {name: weights[version] * tensor for name, tensor in one.deltas.items()}, one.sums)
        for version, one in sorted(sums.items())
    ]
    return reduce(add, weighted) if weighted else None
