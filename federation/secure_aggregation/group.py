"""A group: the nodes whose sums are masked together, as each of them knows it from their signed keys."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from pydantic import ConfigDict

from fedrec.federation.secure_aggregation.config import SecureAggregationConfig
from fedrec.federation.secure_aggregation.signing import is_signed

SMALLEST = 3
"""The smallest group: in a sum of two, each of both nodes would know the other's part."""
PROTOCOL = "fedrec secure aggregation 2"
"""In all that is signed or derived, so that nodes whose masks would not cancel refuse each other. A change of keys,
masks or shares is another number: 1 masked by ChaCha20, 2 by AES-256."""
STORED = ConfigDict(ser_json_bytes="hex", val_json_bytes="hex")


@dataclass(frozen=True)
class Question:
    """An order of a run that a group answers by one sum."""

    run: str
    round: int
    kind: str

    def describe(self, purpose: str) -> bytes:
        """Describe what is signed or derived for this question alone, and for this purpose."""
        return json.dumps([PROTOCOL, purpose, self.run, self.round, self.kind]).encode()


@dataclass(frozen=True)
class Advertisement:
    """A node's keys for one question, signed by its identity, with the number of clients that it will sum over."""

    __pydantic_config__ = STORED

    identity: bytes  # Ed25519
    sealing: bytes  # X25519: for what other nodes send it
    masking: bytes  # X25519: for the masks that it shares with other nodes
    clients: int
    signature: bytes = b""

    def signed_text(self, question: Question) -> bytes:
        """Return what the signature is of."""
        return question.describe("keys") + self.identity + self.sealing + self.masking + self.clients.to_bytes(8)


@dataclass(frozen=True)
class Group:
    """The nodes that answer a question together, in the order of their identities: place 0, 1, …"""

    question: Question
    members: tuple[Advertisement, ...]

    @classmethod
    def of(cls, question: Question, members: Sequence[Advertisement]) -> "Group":
        """Build a group in its order. Raises `ValueError` if it is too small, names a node or key twice, or has keys
        that are not signed."""
        if len(members) < SMALLEST:
            raise ValueError(f"a group of {len(members)} nodes, where {SMALLEST} are needed")
        for name in ("identity", "sealing", "masking"):
            if len({getattr(member, name) for member in members}) < len(members):
                raise ValueError(f"a group in which two nodes have one {name} key")
        for member in members:
            if not is_signed(member.identity, member.signed_text(question), member.signature):
                name = member.identity.hex()[:16]
                raise ValueError(f"keys that node {name} has not signed for this question, or not by this version")
        return cls(question, tuple(sorted(members, key=lambda member: member.identity)))

    def __len__(self) -> int:
        return len(self.members)

    @cached_property
    def session(self) -> bytes:
        """The digest of the question and of all keys: what belongs to another group or another time has another one."""
        texts = [member.signed_text(self.question) for member in self.members]
        return hashlib.sha256(b"".join([self.question.describe("session"), *texts])).digest()

    def place_of(self, advertisement: Advertisement) -> int:
        """Return the place of a node's own keys. Raises `ValueError` if the group has others for it, or none."""
        if advertisement not in self.members:
            raise ValueError("a group without this node, or with other keys than it has advertised")
        return self.members.index(advertisement)

    def count_clients(self, places: Collection[int] | None = None) -> int:
        """Count the clients of the nodes at some places, or of all."""
        return sum(m.clients for place, m in enumerate(self.members) if places is None or place in places)

    def threshold(self, config: SecureAggregationConfig) -> int:
        """Return the number of nodes that must stay: more than half, so that no two separate sets have so many."""
        return _part_of(len(self), config.secure_threshold)

    def check_cover(self, places: Collection[int], config: SecureAggregationConfig) -> None:
        """Raise `ValueError` if the nodes at these places, or their clients, are too few for a sum."""
        nodes, clients, everyone = self.threshold(config), self.count_clients(places), self.count_clients()
        if not set(places) <= set(range(len(self))) or len(set(places)) < len(places):
            raise ValueError("places that a group of this size has not, or one twice")
        if len(places) < nodes:
            raise ValueError(
                f"{len(places)} of {len(self)} nodes are left, and secure_threshold = {config.secure_threshold:g} "
                f"needs {nodes}"
            )
        if clients < max(config.secure_clients, _part_of(everyone, config.secure_threshold)):
            raise ValueError(
                f"{clients} of {everyone} clients are left, and secure_threshold = {config.secure_threshold:g} and "
                f"secure_clients = {config.secure_clients} need more"
            )

    def survivors_text(self, survivors: Collection[int]) -> bytes:
        """Return what a node signs: that these nodes, and no others, are in the sum."""
        return self.question.describe("survivors") + self.session + json.dumps(sorted(survivors)).encode()


def _part_of(whole: int, share: float) -> int:
    """Return the smallest number that is a share of a whole, and more than its half."""
    return max(ceil(share * whole - 1e-9), whole // 2 + 1)
