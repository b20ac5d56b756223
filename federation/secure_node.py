"""A node's answers to the stages of secure aggregation (federation/secure_aggregation/node_session.py)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import RecordDict

from fedrec.federation import wire
from fedrec.federation.messages import Order, OrderRefused, Update
from fedrec.federation.node import Node
from fedrec.federation.privacy.shares import add_share, count_honest
from fedrec.federation.secure_aggregation import node_session
from fedrec.federation.secure_aggregation.group import Advertisement, Group, Question
from fedrec.federation.secure_layout import METRICS, check_capacity, layout_of, sensitivity_of
from fedrec.recsys.closed_form.norm_bounds import Bounds
from fedrec.recsys.model.lora import Adapter

REPEATABLE = {wire.EVALUATE, wire.EXPOSURE}
"""The kinds of orders that a node answers more than once in a round: the same round is validated and
evaluated, and its exposure is counted several times."""


def open_to_sight(node: Node) -> Node:
    """Return a node if its run lets it answer without a mask. Raises `OrderRefused`."""
    if node.config.secure_aggregation.secure:
        raise OrderRefused("an order is refused: with secure = True this node answers with masked sums alone")
    return node


def answer_stage(content: RecordDict, node: Node) -> RecordDict:
    """Answer a request of any stage. Raises `OrderRefused`."""
    if not node.config.secure_aggregation.secure:
        raise OrderRefused("a stage is refused: this run has secure = False")
    with _refusing():
        stage = wire.stage_of(content)
        fields = wire.decode_fields(content, wire.REQUESTS[stage])
        session = fields.pop("session", None)
        if session is not None and stage != wire.SHARE and node.memory.session.known_group.session != session:
            raise ValueError("it belongs to another session")
    if stage == wire.MASK:
        return _mask(node, fields, *wire.decode_order(wire.split_order(content)))
    with _refusing():
        return STAGES[stage](node, fields)


@contextmanager
def _refusing() -> Iterator[None]:
    """Refuse for any `ValueError` in the block, whose text names fields of messages and nothing of the node's data."""
    try:
        yield
    except ValueError as error:
        raise OrderRefused(f"a stage is refused: {error}") from error


def _advertise(node: Node, fields: dict[str, Any]) -> RecordDict:
    question = Question(fields["run"], fields["round"], fields["kind"])
    if question.kind not in METRICS:
        raise ValueError(f"kind = {question.kind[:40]!r} is none of {sorted(METRICS)}")
    session = node_session.begin(node.memory.identity, question, fields["clients"])
    node.memory.open_session(session)
    keys = session.advertisement
    public = {name: getattr(keys, name) for name in wire.ANSWERS[wire.ADVERTISE]}
    return wire.encode_fields(wire.ADVERTISE, public)


def _share(node: Node, fields: dict[str, Any]) -> RecordDict:
    session = node.memory.session
    columns = (fields[name] for name in ("identity", "sealing", "masking", "clients", "signature"))
    members = [Advertisement(*row) for row in zip(*columns, strict=True)]
    group = Group.of(session.question, members)
    node.memory.check_known(group)
    session, sealed = node_session.share_keys(session, group, node.config.secure_aggregation)
    node.memory.open_session(session)
    return wire.encode_fields(wire.SHARE, {"texts": sealed})


def _mask(node: Node, fields: dict[str, Any], order: Order, adapter: Adapter) -> RecordDict:
    """Answer an order, which must be the one that the session began for, by a masked sum."""
    with _refusing():
        session = node.memory.session
        question, clients = session.question, session.advertisement.clients
        if (order.run, order.round, len(order.users)) != (question.run, question.round, clients):
            raise ValueError("the order is not the one that the keys were signed for")
        bounds = node.setup.closed_form.bounds if question.kind == wire.STATISTICS else None
        check_capacity(question.kind, session.known_group.count_clients(), node.config, bounds)
    left = session.known_group.threshold(node.config.secure_aggregation)  # of its nodes are in the sum, at least
    update = _answer(node, question.kind, order, adapter, left)
    with _refusing():
        numbers = _to_integers(node, order, update, bounds)
        sealed = dict(zip(fields["places"], fields["texts"], strict=True))
        session, masked = node_session.mask(session, sealed, numbers, node.config.secure_aggregation)
        node.memory.open_session(session)
    return wire.encode_masked(masked)


def _to_integers(node: Node, order: Order, update: Update, bounds: Bounds | None) -> np.ndarray:
    """Convert a sum to integers modulo 2⁶⁴ (P,), with the node's share of noise if the order has some.

    Metrics are then zero: the noise is for the other numbers, and they would be exact.
    """
    kind, group, config = node.memory.session.question.kind, node.memory.session.known_group, node.config
    if not order.noise:
        return layout_of(kind, update.deltas, bounds).to_integers(update)
    silent = replace(update, sums=dict.fromkeys(update.sums, 0.0))
    numbers = layout_of(kind, update.deltas, bounds).to_integers(silent)
    most = sensitivity_of(kind, order, update.deltas, bounds)
    honest = count_honest(len(group), group.threshold(config.secure_aggregation), config.privacy.honest_nodes)
    add_share(numbers[: most.numbers], most.variance(order.noise), honest, node.coins)
    return numbers


def _answer(node: Node, kind: str, order: Order, adapter: Adapter, nodes: int) -> Update:
    answers = {wire.TRAIN: node.train, wire.STATISTICS: node.sum_statistics, wire.EVALUATE: node.evaluate}
    answers[wire.EXPOSURE] = node.count_exposure
    return answers[kind](order, adapter, nodes)


def _attest(node: Node, fields: dict[str, Any]) -> RecordDict:
    memory = node.memory
    session, signature = node_session.attest(
        memory.session, fields["places"], memory.identity, node.config.secure_aggregation
    )
    memory.open_session(session)
    return wire.encode_fields(wire.ATTEST, {"signature": signature})


def _reveal(node: Node, fields: dict[str, Any]) -> RecordDict:
    session = node.memory.session
    signatures = dict(zip(fields["places"], fields["texts"], strict=True))
    shares = node_session.reveal(session, signatures, node.config.secure_aggregation)
    node.memory.end_session(repeatable=session.question.kind in REPEATABLE)
    return wire.encode_fields(wire.REVEAL, {"places": list(shares), "texts": list(shares.values())})


STAGES: dict[str, Callable[[Node, dict[str, Any]], RecordDict]] = {
    wire.ADVERTISE: _advertise,
    wire.SHARE: _share,
    wire.ATTEST: _attest,
    wire.REVEAL: _reveal,
}
