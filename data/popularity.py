"""The popularity of each item, as a public column of the catalogue."""

import numpy as np
import polars as pl

from fedrec.data.shard import SLICE, Shard

POPULARITY = "popularity"
"""The catalogue's column of numbers by which users without a history are answered."""

COUNTED, GIVEN, NONE = "counted", "given", "none"
"""The origin of the column: training events, the table of items, or none."""


def popularity_source(items: pl.DataFrame, wanted: bool) -> str:
    """Return the origin of the column: the items table if that has it, else the training events if it is wanted."""
    if POPULARITY in items.columns:
        return GIVEN
    return COUNTED if wanted else NONE


def count_users_per_item(shard: Shard, items: int, repeats: bool) -> pl.Series:
    """Count the users who had each item in their training events: (N,). With repeats, too, a user counts once.

    Held-out events are not counted, so that metrics on them are fair.
    """
    counts = np.zeros(items, dtype=np.int64)
    for start in range(0, len(shard), SLICE):
        users, rows = shard.select(slice(start, start + SLICE)).events("train")
        if repeats:
            rows = pl.DataFrame({"user": users, "row": rows}).unique()["row"].to_numpy()
        counts += np.bincount(rows, minlength=items)
    return pl.Series(POPULARITY, counts, dtype=pl.Int64)
