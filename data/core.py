"""The k-core of histories: what is left if users and items with few events are left out until none is left to.

Shapes: t events, U users, N items.
"""

import numpy as np

from fedrec.data.histories import Histories


def find_core(histories: Histories, user_core: int, item_core: int) -> tuple[np.ndarray, int]:
    """Find the largest set of events (t,) of bool in which each user and each item has at least so many of them.

    Returns it, and the number of passes: one pass is not enough in general, since a user who loses an item may then
    have too few. Seidman 1983, doi:10.1016/0378-8733(83)90028-X, for the two sides of a bipartite graph.
    """
    users, items = histories.user_of_each(), histories.items
    kept, passes = np.ones(len(items), dtype=bool), 0
    while True:
        per_user, per_item = np.bincount(users[kept]), np.bincount(items[kept])
        few = np.zeros(len(items), dtype=bool)
        few[kept] = (per_user[users[kept]] < user_core) | (per_item[items[kept]] < item_core)
        if not few.any():
            return kept, passes
        kept, passes = kept & ~few, passes + 1
