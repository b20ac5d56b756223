"""The salts of a folder's users: random, or derived from the users' ids. Private: they stay beside the shard.

A user's ticket, by which the server knows the user, is a hash of the salt. A salt that is derived from an id gives away
the ticket of everybody whose id can be guessed, and ids are guessed a million a second. So a salt is random, and kept
when a folder is prepared again, unless it is asked for by id: then the same table gives the same model anywhere.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.randomness import salt_of
from fedrec.data.shard import FOLDER, Shard
from fedrec.data.user_ids import load_user_ids

SaltRule = Literal["random", "by-id"]
"""How users without a salt get one."""

GUESSABLE = "salts derived from users' ids, which give away tickets, replaced by random ones"


def salt_source(rule: SaltRule, before: Path, warn: Callable[[str], None]) -> Callable[[str], int]:
    """Return the function from a user's id to the salt, for a folder that replaces the folder `before`.

    Random salts are kept from that folder. Its salts that were derived from ids are not, and `warn` is told.
    """
    if rule == "by-id":
        return salt_of
    known = _known_salts(before, warn)
    kept = {user_id: salt for user_id, salt in known.items() if salt != salt_of(user_id)}
    if len(kept) < len(known):
        warn(f"{before}: {GUESSABLE}: {len(known) - len(kept):,} of {len(known):,}")
    return lambda user_id: kept[user_id] if user_id in kept else secrets.randbits(64)


def without_guessable(ids: pl.Series, salts: np.ndarray) -> np.ndarray:
    """Replace the salts that were derived from ids by random ones: (U,) ids and salts → (U,)."""
    pairs = zip(ids.to_list(), salts.tolist(), strict=True)
    mended = (secrets.randbits(64) if salt == salt_of(user_id) else salt for user_id, salt in pairs)
    return np.fromiter(mended, dtype=np.uint64, count=len(salts))


def _known_salts(folder: Path, warn: Callable[[str], None]) -> dict[str, int]:
    """Return the salts of the users in a folder, by id; empty if there is no such folder, or if it is damaged."""
    if not (folder / FOLDER).is_dir():
        return {}
    try:
        return dict(zip(load_user_ids(folder).to_list(), Shard.load(folder).salts.tolist(), strict=True))
    except InputError as error:
        warn(f"{error}; its users get new salts")
        return {}
