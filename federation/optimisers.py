"""The server's optimisers, after Reddi et al. 2021, arXiv:2003.00295, algorithm 2.

An optimiser is a function of one tensor's mean change Δ and of what the server remembers of it, and a row of
`OPTIMISERS`; the setting `optimizer` chooses it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from annotated_types import Ge, Gt, Interval
from pydantic import ConfigDict
from torch import Tensor

from fedrec.federation.aggregate import AGGREGATIONS
from fedrec.federation.choices import KeyOf


class Moments(NamedTuple):
    """What the server remembers of one tensor's changes, in float64."""

    momentum: Tensor  # m
    variance: Tensor  # v


class Step(NamedTuple):
    """An optimiser's answer: the direction that the server's rate η multiplies, and the moments for the next round."""

    direction: Tensor
    moments: Moments


Optimiser = Callable[[Tensor, Moments, "ServerConfig"], Step]


def fedavg(mean: Tensor, moments: Moments, config: "ServerConfig") -> Step:
    """Step along the mean change: Δ."""
    return Step(mean, Moments(mean, moments.variance))


def fedavgm(mean: Tensor, moments: Moments, config: "ServerConfig") -> Step:
    """Step along the momentum: m ← β₁ m + Δ (Hsu et al. 2019, arXiv:1909.06335)."""
    m = config.beta1 * moments.momentum + mean
    return Step(m, Moments(m, moments.variance))


def fedadam(mean: Tensor, moments: Moments, config: "ServerConfig") -> Step:
    """Step along m / (√v + τ), with v ← β₂ v + (1 - β₂) Δ²."""
    v = config.beta2 * moments.variance + (1 - config.beta2) * mean.square()
    return _adaptive_step(mean, moments.momentum, v, config)


def fedyogi(mean: Tensor, moments: Moments, config: "ServerConfig") -> Step:
    """Step along m / (√v + τ), with v ← v - (1 - β₂) Δ² sign(v - Δ²)."""
    v, square = moments.variance, mean.square()
    return _adaptive_step(mean, moments.momentum, v - (1 - config.beta2) * square * (v - square).sign(), config)


def _adaptive_step(mean: Tensor, m: Tensor, v: Tensor, config: "ServerConfig") -> Step:
    m = config.beta1 * m + (1 - config.beta1) * mean
    return Step(m / (v.sqrt() + config.adaptivity), Moments(m, v))


OPTIMISERS: dict[str, Optimiser] = {"fedavg": fedavg, "fedavgm": fedavgm, "fedadam": fedadam, "fedyogi": fedyogi}
"""The optimisers by name."""


@dataclass(frozen=True)
class ServerConfig:
    """How the server moves the adapter by the mean change. Reddi et al. 2021, arXiv:2003.00295."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    optimizer: Annotated[str, KeyOf(OPTIMISERS)] = "fedadam"
    """The rule by which the server applies the mean change of the clients."""
    server_rate: Annotated[float, Gt(0)] = 2e-3
    """Length of the server's step: η in the paper."""
    schedule: Literal["constant", "linear"] = "linear"
    """Schedule of the server's learning rate. linear: it falls to zero with the last round."""
    beta1: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    """Momentum of the server; fedavg has none."""
    beta2: Annotated[float, Interval(ge=0, lt=1)] = 0.99
    """Decay of the second moment in fedadam and fedyogi."""
    adaptivity: Annotated[float, Gt(0)] = 1e-4
    """The constant τ of fedadam and fedyogi: changes much smaller than this move the adapter little."""
    aggregation: Annotated[str, KeyOf(AGGREGATIONS)] = "sum"
    """The rule by which the answers of a round become one. sum: the only one under secure aggregation, with no bound on
    a false answer but the clip; the others are robust rules, over answers that the server sees one by one. The sums of
    a closed form are always added."""
    liars: Annotated[float, Interval(ge=0, lt=0.5)] = 0.1
    """Share of the answers that may be false: trimmed-mean leaves out as many at both ends of each number, and
    multi-krum as many answers. The other rules need no such guess."""
    groups: Annotated[int, Ge(1)] = 1
    """Groups of a round's users, each of which answers with a sum of its own to a robust rule. 1: each node is one
    answer. A node with users in several groups answers once for each, with as many times the bytes."""

    @property
    def adaptive(self) -> bool:
        """Whether a step is divided by the root of a second moment."""
        return OPTIMISERS[self.optimizer] in (fedadam, fedyogi)
