"""The server's step: the aggregate of a round moves the adapter."""

from dataclasses import replace

from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Update
from fedrec.federation.optimisers import OPTIMISERS, Moments
from fedrec.recsys.model.lora import Adapter


def server_step(state: State, total: Update | None, config: RunConfig) -> State:
    """Return the next state: x ← x + η · direction, by the run's optimiser.

    The mean change is divided out once, here, in float64: by the number of users who had an example. One that diverged
    counts among these, as a change of zero, so that a round in which many diverge takes a shorter step. If no node
    answered (`total` is None), or no user had an example, only the round is counted.
    """
    learners = total.sums["learners"] if total else 0
    if total is None or not learners:
        return replace(state, round=state.round + 1)
    rate = learning_rate(config, state.round)
    adapter: Adapter = {}
    momentum: Adapter = {}
    variance: Adapter = {}
    for name, delta in total.deltas.items():
        moments = Moments(state.momentum[name], state.variance[name])
        direction, moments = OPTIMISERS[config.server.optimizer](delta / learners, moments, config.server)
        adapter[name] = (state.adapter[name].double() + rate * direction).float()
        momentum[name], variance[name] = moments
    return replace(state, round=state.round + 1, adapter=adapter, momentum=momentum, variance=variance)


def learning_rate(config: RunConfig, rounds_done: int) -> float:
    """Return the server's learning rate η for the round after `rounds_done` rounds."""
    left = 1 - rounds_done / config.rounds if config.server.schedule == "linear" else 1.0
    return config.server.server_rate * left
