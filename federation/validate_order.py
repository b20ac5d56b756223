"""The orders that a node follows. Each is validated whole before a user's data is touched, as answers are at the server
(federation/validate_update.py)."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order, OrderRefused
from fedrec.recsys.model.lora import Adapter

RUN_ID = re.compile("[0-9a-f]{0,32}")
"""A run's id; none, in a run whose state was saved by a version without ids."""

PROTOCOLS = ("full", "sampled-99")
"""The protocols by which a node ranks."""


@dataclass(frozen=True, eq=False)
class OrderLimits:
    """The limits of an order: the run's promises, the node's users, and the run's adapter."""

    config: RunConfig
    users: int  # U
    template: Adapter  # names, shapes and types; its numbers do not matter


def validate_order(order: Order, adapter: Adapter, limits: OrderLimits, training: bool) -> None:
    """Raise `OrderRefused`, which names the field and the limit, if the order or the adapter is not within the limits.

    An order is to train if `training`, else to evaluate.
    """
    rules = _numbers(order, limits.config, training), _texts(order, limits.config, training)
    for faults in (*rules, _users(order.users, limits.users), _tensors(adapter, limits.template)):
        for fault in faults:
            raise OrderRefused(f"an order is refused: {fault}")


def _numbers(order: Order, config: RunConfig, training: bool) -> Iterator[str]:
    if not 1 <= order.round <= config.rounds:
        yield f"round = {order.round} is not 1 to {config.rounds}"
    if not 0 <= order.best < order.round:
        yield f"best = {order.best} is not a round before {order.round}, or 0"
    if training and not (math.isfinite(order.clip) and 0 < order.clip <= config.clip):
        yield f"clip = {order.clip:g} is not above 0 and at most {config.clip:g}, as this run promised"
    if not training and order.clip != 0:
        yield f"clip = {order.clip:g}, and an evaluation has none"


def _texts(order: Order, config: RunConfig, training: bool) -> Iterator[str]:
    splits = ("train",) if training else config.measured
    if order.split not in splits:
        yield f"split = {order.split[:40]!r} is not among {splits}, with held_out = {config.held_out}"
    protocols = PROTOCOLS[:1] if training else PROTOCOLS
    if order.protocol not in protocols:
        yield f"protocol = {order.protocol[:40]!r} is not among {protocols}"
    if not RUN_ID.fullmatch(order.run):
        yield f"run = {order.run[:40]!r} is not up to 32 hexadecimal digits"


def _users(asked: np.ndarray, users: int) -> Iterator[str]:
    if asked.ndim != 1 or not len(asked):
        yield "users is not a list of at least one"
    elif not 0 <= asked.min() <= asked.max() < users:
        yield f"users names one beyond 0 to {users - 1}"
    elif len(np.unique(asked)) < len(asked):
        yield "users names one twice, who would move the sum twice"


def _tensors(adapter: Adapter, template: Adapter) -> Iterator[str]:
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
