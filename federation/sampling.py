"""Client sampling: the cohort of a round, drawn from the roster."""

import math
import os
from fractions import Fraction

import numpy as np

from fedrec.data.randomness import Stream, random_stream
from fedrec.federation.roster import Roster


def sample_clients(roster: Roster, count: int, seed: int, round: int, share: float = 1.0) -> np.ndarray:
    """Sample `count` places of the roster uniformly without replacement, or all if it has fewer: (u,), rising.

    With a `share` below 1 no node gets more than this share of `count` (but always one): users are visited in random
    order, and those of a node that has its share are skipped. The sample then depends on which node hosts which users.
    """
    generator = random_stream(Stream.SAMPLE_CLIENTS, seed, round)
    if share == 1:
        return np.sort(generator.choice(len(roster), size=min(count, len(roster)), replace=False))
    order = generator.permutation(len(roster))
    limit = max(1, math.floor(share * count + 1e-9))
    return np.sort(order[_count_earlier(roster.nodes[order]) < limit][:count])


def sample_secretly(users: int, rate: float) -> np.ndarray:
    """Sample each of `users` places by an own coin of probability `rate`, rising: Poisson sampling.

    The coins come from the operating system's generator, so that nobody can compute who was drawn. How many are drawn
    is chance, and may be none.
    """
    if rate >= 1:
        return np.arange(users)
    coins = np.frombuffer(os.urandom(8 * users), dtype="<u8")
    return np.flatnonzero(coins < np.uint64(int(Fraction(rate) * 2**64)))


def _count_earlier(nodes: np.ndarray) -> np.ndarray:
    """Count, for each place, the earlier places of the same node: (u,) → (u,)."""
    by_node = np.argsort(nodes, kind="stable")
    _, counts = np.unique(nodes, return_counts=True)
    earlier = np.empty(len(nodes), dtype=np.int64)
    earlier[by_node] = np.arange(len(nodes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return earlier
