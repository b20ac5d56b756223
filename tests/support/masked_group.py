"""A group of nodes that mask their sums, and their server, without messages: it shows what each of them sees."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fedrec.federation.secure_aggregation import node_session
from fedrec.federation.secure_aggregation.collector import Collector
from fedrec.federation.secure_aggregation.config import SecureAggregationConfig
from fedrec.federation.secure_aggregation.group import Group, Question
from fedrec.federation.secure_aggregation.node_session import Session
from fedrec.federation.secure_aggregation.signing import draw_identity

QUESTION = Question("0f" * 8, 3, "train")
CONFIG = SecureAggregationConfig(secure=True, secure_clients=1)
NOBODY: frozenset[int] = frozenset()


@dataclass
class MaskedGroup:
    """Nodes in the order of their places, with their sums, and the collector of the server."""

    identities: list[bytes]
    sessions: list[Session]
    numbers: list[np.ndarray]
    config: SecureAggregationConfig
    collector: Collector = field(init=False)
    masked: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, numbers: list[np.ndarray], config: SecureAggregationConfig = CONFIG, clients: int = 1) -> "MaskedGroup":
        """Nodes of as many clients each that have advertised their keys."""
        identities = [draw_identity() for _ in numbers]
        sessions = [node_session.begin(identity, QUESTION, clients) for identity in identities]
        made = cls(identities, sessions, numbers, config)
        group = Group.of(QUESTION, [session.advertisement for session in sessions])
        order = sorted(range(len(numbers)), key=lambda node: sessions[node].advertisement.identity)
        made.identities, made.sessions = [identities[node] for node in order], [sessions[node] for node in order]
        made.collector = Collector(group, config)
        return made

    @property
    def group(self) -> Group:
        return self.collector.group

    @property
    def places(self) -> list[int]:
        return list(range(len(self.sessions)))

    def share(self, lost: Collection[int] = NOBODY) -> None:
        for place in self.places:
            if place not in lost:
                session, sealed = node_session.share_keys(self.sessions[place], self.group, self.config)
                self.sessions[place] = session
                self.collector.take_sealed(place, sealed)
        self.collector.check_cover(self.collector.participants)

    def mask(self, lost: Collection[int] = NOBODY) -> None:
        for place in self.collector.participants:
            if place not in lost:
                self.sessions[place], self.masked[place] = node_session.mask(
                    self.sessions[place], self.collector.sealed_for(place), self.numbers[place], self.config
                )
                self.collector.take_masked(place, self.masked[place])
        self.collector.check_cover(self.collector.survivors)

    def attest(self, lost: Collection[int] = NOBODY) -> None:
        survivors = self.collector.survivors
        for place in survivors:
            if place not in lost:
                session, signature = node_session.attest(
                    self.sessions[place], survivors, self.identities[place], self.config
                )
                self.sessions[place] = session
                self.collector.take_signature(place, signature)
        self.collector.check_cover(self.collector.signatures)

    def reveal(self, lost: Collection[int] = NOBODY) -> None:
        for place in list(self.collector.signatures):
            if place not in lost:
                shares = node_session.reveal(self.sessions[place], self.collector.signatures, self.config)
                self.collector.take_shares(place, shares)

    def sum_of(self, places: Collection[int]) -> np.ndarray:
        """The sum of the nodes' numbers as they were before masks."""
        return np.stack([self.numbers[place] for place in places]).sum(axis=0, dtype=np.uint64)


def group_of(nodes: int, size: int = 5, **changes: Any) -> MaskedGroup:
    """A group whose nodes have numbers of 64 random bits."""
    rng = np.random.default_rng(7)
    numbers = [rng.integers(0, 2**64, size, dtype=np.uint64) for _ in range(nodes)]
    return MaskedGroup.of(numbers, replace(CONFIG, **changes))
