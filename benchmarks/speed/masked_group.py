"""The processor time of the protocol of secure aggregation alone, without messages and training."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fedrec.federation.secure_aggregation import node_session
from fedrec.federation.secure_aggregation.collector import Collector
from fedrec.federation.secure_aggregation.config import SecureAggregationConfig
from fedrec.federation.secure_aggregation.group import Group, Question
from fedrec.federation.secure_aggregation.signing import draw_identity, is_signed

SIZES = (8, 16, 64)
NUMBERS = 98_308
"""The numbers of the default adapter's change, with four metrics."""


def measure_groups(sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """Measure the milliseconds of one core that a node and the server spend on a group of each size."""
    return [_measure_group(size) for size in sizes]


def _measure_group(size: int) -> dict[str, Any]:
    config, question = SecureAggregationConfig(secure=True, secure_clients=1), Question("0" * 16, 1, "train")
    identities = [draw_identity() for _ in range(size)]
    started = {
        session.advertisement.identity: (identity, session)
        for identity in identities
        for session in [node_session.begin(identity, question, 1)]
    }
    members = [session.advertisement for _, session in started.values()]
    collector = Collector(Group.of(question, members), config)
    group, numbers = collector.group, np.zeros(NUMBERS, dtype=np.uint64)
    names, sessions = zip(*(started[member.identity] for member in group.members), strict=True)
    nodes = list(sessions)

    def share(place: int) -> None:
        Group.of(question, members)  # a node checks the signatures
        nodes[place], sealed = node_session.share_keys(nodes[place], group, config)
        collector.take_sealed(place, sealed)

    def mask(place: int) -> None:
        nodes[place], masked = node_session.mask(nodes[place], collector.sealed_for(place), numbers, config)
        collector.take_masked(place, masked)

    def attest(place: int) -> None:
        nodes[place], signature = node_session.attest(nodes[place], range(size), names[place], config)
        collector.signatures[place] = signature

    def reveal(place: int) -> None:
        collector.take_shares(place, node_session.reveal(nodes[place], collector.quorum, config))

    stages: list[Callable[[int], None]] = [share, mask, attest, reveal]
    figures = {f"{stage.__name__}_ms": round(_time_all(stage, size) / size, 2) for stage in stages}
    unmask = _time_all(lambda _: collector.unmask(), 1)
    return {"nodes": size, **figures, "node_ms": round(sum(figures.values()), 2), "server_ms": round(unmask, 1)}


def _time_all(step: Callable[[int], object], count: int) -> float:
    """Return the milliseconds of processor time of a step at all places, each as in a process of its own."""
    total = 0.0
    for place in range(count):
        is_signed.cache_clear()  # a real node has checked no signature for another one
        started = time.process_time()
        step(place)
        total += time.process_time() - started
    return 1000 * total
