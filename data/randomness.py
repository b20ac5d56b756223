"""Random streams: all generators of the project are built here.

A generator's seed is the stream's number, then the key of the draw: the run's seed, the round, a user's salt. So no two
kinds of draws share a stream, and a user's draws are the same on any node, in any cohort.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """The kinds of draws. A number is never reused for another kind: models would change."""

    SAMPLE_CLIENTS = 1
    NEGATIVES = 2
    TRAINING_WINDOWS = 3
    SAMPLED_RANKING = 4
    ROTATIONS = 5
    BASELINE_EXAMPLES = 6
    BASELINE_STARTS = 7
    EVENT_DROPOUT = 8
    HEAD_DROPOUT = 9
    PARTITION = 10
    GROUPS = 11
    NEGATIVE_GROUPS = 13
    INPUT_PROJECTION = 16
    TURNS = 30
    DEVICE_SPEED = 31
    DEVICE_PRESENCE = 32
    PRESENCE = 33
    PSEUDONYMS = 40


def random_stream(stream: Stream, *key: int) -> np.random.Generator:
    """Build the generator of one draw. The same stream and key give the same numbers on every machine."""
    return np.random.default_rng([int(stream), *(int(part) for part in key)])


@dataclass(frozen=True)
class DrawKey:
    """The key of all draws of one local step in training. With it and the own salt, each client draws by itself."""

    seed: int
    round: int
    step: int = 0

    def client_streams(self, stream: Stream, salts: np.ndarray) -> Iterator[np.random.Generator]:
        """Make the generators of one kind of draw, one per client: (C,) salts."""
        return (random_stream(stream, self.seed, self.round, self.step, salt) for salt in salts.tolist())


def salt_of(user_id: str) -> int:
    """Derive a user's 64-bit salt from the id: all random draws for the user depend on it. It never leaves the node.

    It depends on the id alone, so that a published dataset gives the same model anywhere. But an id that can be guessed
    gives away its salt and ticket: other users' salts are random (data/user_salts.py).
    """
    return int.from_bytes(hashlib.blake2b(user_id.encode(), digest_size=8, person=b"salt").digest())


def ticket_of(salt: int) -> int:
    """Derive a user's ticket: the 64-bit pseudonym by which the server samples clients. It is a hash of the salt.

    The order of users by ticket does not depend on their partition over nodes.
    """
    return int.from_bytes(hashlib.blake2b(int(salt).to_bytes(8), digest_size=8, person=b"ticket").digest())
