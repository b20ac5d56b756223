"""The orders that a node follows. Each is validated whole before a user's data is touched, as answers are at the server
(federation/validate_update.py)."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from torch import Tensor

from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order, OrderRefused
from fedrec.recsys.exposure_bound import EXPOSED
from fedrec.recsys.model.lora import Adapter

RUN_ID = re.compile("[0-9a-f]{0,32}")
"""A run's id; none, in a run whose state was saved by a version without ids."""

PROTOCOLS = ("full", "sampled-99")
"""The protocols by which a node ranks."""


@dataclass(frozen=True, eq=False)
class OrderLimits:
    """The limits of one kind of order: the run's promises, the node's users, and the adapters that it may bring."""

    users: int  # U
    rounds: Sequence[int]
    templates: Sequence[Adapter]  # names, shapes and types; their numbers do not matter
    largest_clip: float  # 0: the order has no clip
    splits: tuple[str, ...]
    protocols: tuple[str, ...]
    held_out: int
    noised: bool = False  # nodes add noise

    @classmethod
    def to_train(cls, config: RunConfig, users: int, template: Adapter) -> Self:
        """Build the limits of an order to train from an adapter."""
        rounds, noised = range(1, config.training_rounds + 1), config.privacy.by_nodes
        return cls(users, rounds, [template], config.clip, ("train",), PROTOCOLS[:1], config.held_out, noised)

    @classmethod
    def to_sum(cls, config: RunConfig, users: int) -> Self:
        """Build the limits of an order to sum statistics: it comes once, after the rounds of training, and once more at
        the end of a run with final sums."""
        rounds, noised = config.summing_rounds, config.privacy.by_nodes
        return cls(users, rounds, [{}], 0.0, ("train",), PROTOCOLS[:1], config.held_out, noised)

    @classmethod
    def to_evaluate(cls, config: RunConfig, users: int, templates: Sequence[Adapter]) -> Self:
        """Build the limits of an order to rank by one of some kinds of adapters."""
        rounds = range(1, config.last_round + 1)
        return cls(users, rounds, templates, 0.0, config.rankable, PROTOCOLS, config.held_out)

    @classmethod
    def to_count(cls, config: RunConfig, users: int, templates: Sequence[Adapter]) -> Self:
        """Build the limits of an order to count exposure."""
        rounds = range(1, config.last_round + 1)
        return cls(users, rounds, templates, 0.0, (EXPOSED,), PROTOCOLS[:1], config.held_out)


def validate_order(order: Order, adapter: Adapter, limits: OrderLimits) -> None:
    """Raise `OrderRefused`, which names the field and the limit, if the order or the adapter is not within the limits
    of its kind."""
    rules = _numbers(order, limits), _texts(order, limits)
    for faults in (*rules, _users(order.users, limits.users), _tensors(adapter, limits.templates)):
        for fault in faults:
            raise OrderRefused(f"an order is refused: {fault}")


def check_watched(watched: Tensor, items: int) -> None:
    """Raise `OrderRefused` if watched rows (K,) are not in a catalogue of N = `items` items, nor -1."""
    if not -1 <= watched.min() <= watched.max() < items:
        raise OrderRefused(f"an order is refused: watched names an item beyond 0 to {items - 1}, and not -1")


def _numbers(order: Order, limits: OrderLimits) -> Iterator[str]:
    rounds, most = limits.rounds, limits.largest_clip
    if not rounds:
        yield f"round = {order.round}, and this run has no round of training"
    elif order.round not in rounds:
        between = "to" if isinstance(rounds, range) else "or"
        yield f"round = {order.round} is not {rounds[0]}{f' {between} {rounds[-1]}' if len(rounds) > 1 else ''}"
    if not 0 <= order.best < order.round:
        yield f"best = {order.best} is not a round before {order.round}, or 0"
    if most and not (math.isfinite(order.clip) and 0 < order.clip <= most):
        yield f"clip = {order.clip:g} is not above 0 and at most {most:g}, as this run promised"
    if not most and order.clip != 0:
        yield f"clip = {order.clip:g}, and such an order has none"
    if limits.noised and not (math.isfinite(order.noise) and order.noise > 0):
        yield f"noise = {order.noise:g} is not above 0, and with noise_by = 'nodes' this node adds some"
    if not limits.noised and order.noise != 0:
        yield f"noise = {order.noise:g}, and such an order has none"


def _texts(order: Order, limits: OrderLimits) -> Iterator[str]:
    if order.split not in limits.splits:
        yield f"split = {order.split[:40]!r} is not among {limits.splits}, with held_out = {limits.held_out}"
    if order.protocol not in limits.protocols:
        yield f"protocol = {order.protocol[:40]!r} is not among {limits.protocols}"
    if not RUN_ID.fullmatch(order.run):
        yield f"run = {order.run[:40]!r} is not up to 32 hexadecimal digits"


def _users(asked: np.ndarray, users: int) -> Iterator[str]:
    if asked.ndim != 1 or not len(asked):
        yield "users is not a list of at least one"
    elif not 0 <= asked.min() <= asked.max() < users:
        yield f"users names one beyond 0 to {users - 1}"
    elif len(np.unique(asked)) < len(asked):
        yield "users names one twice, who would move the sum twice"


def _tensors(adapter: Adapter, templates: Sequence[Adapter]) -> Iterator[str]:
    template = next((one for one in templates if one.keys() == adapter.keys()), templates[0])
    if adapter.keys() != template.keys():
        yield f"adapter has other tensors: {[name[:40] for name in sorted(adapter.keys() ^ template.keys())[:3]]}"
        return
    for name, like in template.items():
        given = adapter[name]
        if given.shape != like.shape:
            yield f"adapter {name} has shape {tuple(given.shape)} where {tuple(like.shape)} belongs"
        elif given.dtype != like.dtype:
            yield f"adapter {name} is of {given.dtype} where {like.dtype} belongs"
        elif not given.isfinite().all():
            yield f"adapter {name} holds values that are not finite"
