"""Partitions of a dataset's users over the nodes of a federation."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.randomness import Stream, random_stream
from fedrec.data.readers.formats import TableFile
from fedrec.data.readers.lines import TextFormat
from fedrec.data.readers.reading_report import ReadingReport
from fedrec.data.readers.rows import read_table


@dataclass(frozen=True, eq=False)
class UserPartition:
    """The users of one node."""

    about: str
    users: np.ndarray  # rows of the shard, rising


def partition_evenly(users: int, nodes: int) -> list[UserPartition]:
    """Deal the users to nodes of equal size, like cards; node k holds part k of `Shard.part`.

    Raises `InputError` if a node would have no user.
    """
    _check_nodes(users, nodes)
    return [UserPartition(f"part {part} of {nodes}", np.arange(part, users, nodes)) for part in range(nodes)]


def partition_dirichlet(users: int, nodes: int, concentration: float, seed: int) -> list[UserPartition]:
    """Draw the nodes' shares of the users from a symmetric Dirichlet distribution, at least one user each.

    A smaller concentration gives more uneven shares. As in Hsu et al. 2019, arXiv:1909.06335, for sizes in place of
    labels. Raises `InputError` if a node would have no user.
    """
    _check_nodes(users, nodes)
    rng = random_stream(Stream.PARTITION, seed)
    sizes = 1 + rng.multinomial(users - nodes, rng.dirichlet(np.full(nodes, concentration)))
    parts = np.split(rng.permutation(users), np.cumsum(sizes)[:-1])
    return [UserPartition(f"a share of {len(part) / users:.1%}", np.sort(part)) for part in parts]


def partition_by_column(
    ids: pl.Series, table: Path, user_column: str, column: str, text_format: TextFormat
) -> list[UserPartition]:
    """Make a node of each value that a column of a table of users has.

    Raises `InputError` if a user has no value, or more than one.
    """
    file = TableFile(table, text_format)
    rows = read_table(file, {"user_id": user_column, "group": column}, ReadingReport()).unique()
    if (repeated := rows["user_id"].is_duplicated()).any():
        user = rows["user_id"][int(repeated.arg_max() or 0)]
        raise InputError(f"{table}: user {user!r} has more than one {column}; keep one, as one node holds this user")
    groups = ids.alias("user_id").to_frame().join(rows, on="user_id", how="left", maintain_order="left")["group"]
    if groups.has_nulls():
        user = ids[int(groups.is_null().arg_max() or 0)]
        raise InputError(f"{table}: user {user!r} has no {column}; add a row, so that some node holds this user")
    values = groups.unique().sort().to_list()
    return [UserPartition(f"{column} {value}", np.flatnonzero((groups == value).to_numpy())) for value in values]


def _check_nodes(users: int, nodes: int) -> None:
    if not 1 <= nodes <= users:
        raise InputError(f"`nodes={nodes}`: there are {users:,} users; give 1 to {users:,}, so that each node has one")
