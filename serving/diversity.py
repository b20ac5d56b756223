"""Maximal marginal relevance: the next item is good, and not like those before it (Carbonell and Goldstein 1998,
doi:10.1145/290941.291025)."""

import numpy as np

from serving.exact import Found


def diversified(found: Found, vectors: np.ndarray, diversity: float, count: int) -> Found:
    """`count` of the found in an order that trades each item's score against its greatest likeness to one before it.

    `vectors` (n, E) are those of the found, at unit length. With `diversity` 0 the order stays; with 1 only likeness
    counts, after the first.
    """
    rows, scores = np.array([row for row, _ in found]), np.array([score for _, score in found])
    chosen: list[int] = []
    likeness = np.full(len(found), -np.inf)
    left = np.ones(len(found), dtype=bool)
    for _ in range(min(count, len(found))):
        worth = scores if not chosen else (1 - diversity) * scores - diversity * likeness
        best = int(np.argmax(np.where(left, worth, -np.inf)))
        chosen.append(best)
        left[best] = False
        likeness = np.maximum(likeness, vectors @ vectors[best])
    return [(int(rows[place]), float(scores[place])) for place in chosen]
