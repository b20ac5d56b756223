"""The roster: every user that can be sampled, and the node that hosts it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedrec.data.errors import InputError


@dataclass(frozen=True, eq=False)
class Roster:
    """The users that can be sampled: for each its node and its number there, in the order of the users' tickets.

    That order is the same however the users are spread over nodes, so a draw means the same users anywhere.
    """

    nodes: np.ndarray  # (U,) node of each user
    users: np.ndarray  # (U,) number in that node's shard
    tickets: np.ndarray  # (U,) rising
    stamp: Mapping[str, str]  # what a node must have to be on it: the same catalogue, the same encoder

    @classmethod
    def empty(cls, stamp: Mapping[str, str]) -> "Roster":
        """Build a roster without users."""
        tickets = np.zeros(0, dtype=np.uint64)
        return cls(tickets, np.zeros(0, dtype=np.int64), tickets, stamp)

    def with_node(self, node: int, tickets: np.ndarray) -> "Roster":
        """Add a node by the tickets of its shard, in order. Raises `InputError` if it claims users of another node."""
        everyone = np.concatenate([self.tickets, tickets])
        if (shared := np.isin(self.tickets, tickets)).any():
            raise InputError(
                f"it hosts the same users as node {self.nodes[shared][0]} ({shared.sum()} of its {len(tickets)}); give "
                "each node its own part of them"
            )
        order = np.argsort(everyone, kind="stable")
        nodes = np.concatenate([self.nodes, np.full(len(tickets), node, dtype=np.uint64)])
        users = np.concatenate([self.users, np.arange(len(tickets))])
        return Roster(nodes[order], users[order], everyone[order], self.stamp)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the tickets: the same for the same users on any nodes."""
        return hashlib.sha256(self.tickets.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.users)

    def per_node(self, drawn: np.ndarray) -> dict[int, np.ndarray]:
        """Group places of the roster by node, as each node's own user numbers."""
        return {int(node): self.users[drawn][self.nodes[drawn] == node] for node in np.unique(self.nodes[drawn])}
