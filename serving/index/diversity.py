"""Maximal marginal relevance: the next item is good, and not like those before it (Carbonell and Goldstein 1998,
doi:10.1145/290941.291025)."""

import numpy as np

from fedrec.recsys.nearest import Found, on_grid

POOL = 200
"""Items among which the next one is chosen: the best of them, and the next as many once all of these are placed."""


def diversified(found: Found, vectors: np.ndarray, diversity: float, count: int) -> Found:
    """`count` of the found in an order that trades each item's score against its greatest likeness to one before it.

    `vectors` (n, E) are those of the found, at unit length. With `diversity` 0 the order stays; with 1 only likeness
    counts, after the first. A pool is filled from the best on, so a longer order begins as a shorter one does.
    """
    chosen: list[int] = []
    exact = on_grid(vectors)  # equal items are equally like another
    for start in range(0, min(count, len(found)), POOL):
        pool = np.arange(start, min(start + POOL, len(found)))
        scores, left = np.array([found[place][1] for place in pool]), np.ones(len(pool), dtype=bool)
        likeness = (exact[pool] @ exact[chosen].T).max(axis=1, initial=-np.inf)  # (p,)
        for _ in range(min(count - start, len(pool))):
            worth = (1 - diversity) * scores - diversity * likeness if chosen else scores
            best = int(np.argmax(np.where(left, worth, -np.inf)))  # the first of equals
            chosen.append(int(pool[best]))
            left[best] = False
            likeness = np.maximum(likeness, exact[pool] @ exact[pool[best]])
    return [found[place] for place in chosen]
