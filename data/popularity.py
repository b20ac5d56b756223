"""How popular each item is, as a public column of the catalogue: the endpoint answers by it who has no history."""

import numpy as np
import polars as pl

from fedrec.data.readers.items import POPULARITY
from fedrec.data.shard import Shard

COUNTED, GIVEN, NONE = "counted", "given", "none"
"""Where the column comes from: training events, the table of items, or nowhere."""


def popularity_from(items: pl.DataFrame, wanted: bool) -> str:
    """Say where the column comes from, if items have it already or if it is wanted."""
    if POPULARITY in items.columns:
        return GIVEN
    return COUNTED if wanted else NONE


def counted(shard: Shard, items: int, repeats: bool) -> pl.Series:
    """How many users had each item in their training events: (N,). A user counts once, also where repeats are kept.

    Held-out events are not counted: what is measured on them stays unseen.
    """
    users, rows = shard.events("train")
    if repeats:
        rows = pl.DataFrame({"user": users, "row": rows}).unique()["row"].to_numpy()
    return pl.Series(POPULARITY, np.bincount(rows, minlength=items), dtype=pl.Int64)
