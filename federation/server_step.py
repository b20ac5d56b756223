"""The server's step: the aggregate of a round moves the adapter."""

from dataclasses import replace

import torch

from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Update
from fedrec.federation.optimisers import OPTIMISERS, Moments, ServerConfig
from fedrec.recsys.model.lora import Adapter


def server_step(state: State, total: Update | None, config: RunConfig, staleness: float = 0.0) -> State:
    """Return the next state: x ← x + η · direction, by the run's optimiser.

    `staleness` is the mean number of steps between the adapter that the changes began from and this one, if rounds are
    asynchronous. Of its way to a new value the momentum then goes 1 / (1 + 2 · staleness): it averages over as many
    times more steps. A new change weighs as much as a fresh one in this step, and less in later ones. By the theory of
    control this is a lag compensator (docs/asynchronous.md). At a staleness of 0 all is as in synchronous rounds.

    The mean change is divided out once, here, in float64: by the number of users who had an example. One that diverged
    counts among these, as a change of zero, so that a round in which many diverge takes a shorter step. If no node
    answered (`total` is None), or no user had an example, only the round is counted.
    """
    learners = total.sums["learners"] if total else 0
    if total is None or not learners:
        return replace(state, round=state.round + 1)
    freshness = 1 / (1 + 2 * staleness)
    rate = learning_rate(config, state.round) * _warm_up(config.server, state.round, freshness)
    adapter: Adapter = {}
    momentum: Adapter = {}
    variance: Adapter = {}
    for name, delta in total.deltas.items():
        moments = Moments(state.momentum[name], state.variance[name])
        direction, moments = OPTIMISERS[config.server.optimizer](delta / learners, moments, config.server)
        adapter[name] = (state.adapter[name].double() + rate * direction).float()
        momentum[name] = torch.lerp(state.momentum[name], moments.momentum, freshness)
        variance[name] = moments.variance
    return replace(state, round=state.round + 1, adapter=adapter, momentum=momentum, variance=variance)


def learning_rate(config: RunConfig, rounds_done: int) -> float:
    """Return the server's learning rate η for the round after `rounds_done` rounds."""
    left = 1 - rounds_done / config.rounds if config.server.schedule == "linear" else 1.0
    return config.server.server_rate * left


def _warm_up(config: ServerConfig, rounds_done: int, freshness: float) -> float:
    """Return what the first steps of an adaptive optimiser are multiplied by, the more so the less fresh changes are.

    Its second moment begins near zero, so that its first steps are too long by 1 / √(1 - β₂^t) (Kingma & Ba 2015,
    arXiv:1412.6980, section 3). Fresh changes correct such a step at once; stale ones repeat it.
    """
    bias = 1 - config.beta2 ** (rounds_done + 1)
    return bias ** ((1 - freshness) / 2) if config.adaptive else 1.0
