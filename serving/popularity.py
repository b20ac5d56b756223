"""The ranking for questions without a known item in their history."""

import numpy as np

from fedrec.recsys.nearest import Found, best
from fedrec.serving.live_catalogue import LiveCatalogue
from fedrec.serving.refusals import UnanswerableError


def require_popularity(catalogue: LiveCatalogue) -> np.ndarray:
    """Return the popularity of each row (N+M,). Raises `UnanswerableError` if the catalogue has no such column."""
    if (popularity := catalogue.popularity) is None:
        raise UnanswerableError(
            "history", "none of these ids is on offer, and the catalogue has no popularity column; give a query"
        )
    return popularity


def rank_by_popularity(catalogue: LiveCatalogue, allowed: np.ndarray | None, k: int) -> Found:
    """Return the k most popular living rows of the mask `allowed` (N+M,)."""
    living = catalogue.index.living
    rows = np.flatnonzero(living if allowed is None else living & allowed)
    return best(rows, require_popularity(catalogue)[rows], k)
