"""Maximal marginal relevance: the next item is relevant, and unlike those before it (Carbonell and Goldstein 1998,
doi:10.1145/290941.291025)."""

import numpy as np

from fedrec.recsys.nearest import Found, on_grid

POOL = 200
"""Items among which the next one is chosen: the best `POOL`; once all of these are placed, the next `POOL`."""


def pool_size(count: int) -> int:
    """Return how many items to search for, so that every pool that `count` items come from is full."""
    return -(-count // POOL) * POOL


def maximal_marginal_relevance(ranking: Found, vectors: np.ndarray, diversity: float, count: int) -> Found:
    """Order a ranking by each item's score minus its greatest similarity to an item before it.

    Return the first `count` items. `vectors` (n, E) are the ranking's, at unit length. With `diversity` 0 the order
    stays; with 1 only similarity counts, after the first item. A longer order begins as a shorter one does, because
    pools are filled from the best item on.
    """
    chosen: list[int] = []
    exact = on_grid(vectors)  # equal items are equally similar to another
    for start in range(0, min(count, len(ranking)), POOL):
        pool = np.arange(start, min(start + POOL, len(ranking)))
        scores, left = np.array([ranking[place][1] for place in pool]), np.ones(len(pool), dtype=bool)
        similarity = (exact[pool] @ exact[chosen].T).max(axis=1, initial=-np.inf)  # (p,)
        for _ in range(min(count - start, len(pool))):
            relevance = (1 - diversity) * scores - diversity * similarity if chosen else scores
            best = int(np.argmax(np.where(left, relevance, -np.inf)))  # the first of equals
            chosen.append(int(pool[best]))
            left[best] = False
            similarity = np.maximum(similarity, exact[pool] @ exact[pool[best]])
    return [ranking[place] for place in chosen]
