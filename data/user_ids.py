"""The ids of a shard's users, in the shard's order. Private: they stay beside the shard."""

from pathlib import Path

import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.shard import FOLDER, Shard
from fedrec.data.storage.reading import regular

FILE = f"{FOLDER}/users.parquet"


def save_user_ids(folder: Path, ids: pl.Series) -> None:
    """Write the ids of a shard's users into the folder that holds the shard."""
    ids.alias("user_id").to_frame().write_parquet(folder / FILE)


def load_user_ids(folder: Path) -> pl.Series:
    """Read the ids of a prepared folder's users: (U,).

    Raises `InputError` if they are missing or damaged, or do not belong to the shard beside them.
    """
    path = folder / FILE
    try:
        ids = pl.read_parquet(regular(path, "prepare the data again"))["user_id"]
    except (FileNotFoundError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise InputError(f"{path} is missing or damaged; prepare the data again") from error
    if ids.dtype != pl.String or ids.has_nulls():
        raise InputError(f"{path} is damaged: its user_id is not text throughout; prepare the data again")
    if len(ids) != (users := len(Shard.load(folder))):
        raise InputError(f"{path} names {len(ids):,} users, and the histories are of {users:,}; prepare the data again")
    return ids


def find_user(folder: Path, user_id: str) -> int:
    """Return a user's index in the shard. Raises `InputError` if the user is not there."""
    ids = load_user_ids(folder)
    user = (ids == user_id).arg_max() if len(ids) else None
    if user is None or ids[user] != user_id:
        known = f"its ids look like {ids[0]!r}" if len(ids) else "it has no users"
        raise InputError(f"user {user_id!r} is not on this node ({folder}); {known}")
    return int(user)
