"""A fingerprint of the histories in a prepared folder: it tells whether a run was trained on them, and nothing of them.

It is an HMAC-SHA256 under a random key, which stays in the folder's private side. Without the key nobody can test a
guess. A published dataset has a fixed key in place of it, so that its fingerprint is the same on every machine.
"""

import hashlib
import hmac
import secrets
from pathlib import Path

import numpy as np

from fedrec.data.errors import InputError
from fedrec.data.shard import FOLDER, Shard

FILE = f"{FOLDER}/fingerprint.key"
PRIVATE, PUBLISHED = "private", "published"
"""The first word of the file: a key in hexadecimal digits follows, or the name of a dataset."""


def save_key(folder: Path, published: str | None = None, before: Path | None = None) -> None:
    """Write a folder's key for its owner alone: that of a published dataset, or a random one.

    The random key of the folder `before`, which this one takes the place of, is kept.
    """
    path = folder / FILE
    kept = _line(before) if before else None
    path.touch(mode=0o600)
    if published is not None:
        path.write_text(f"{PUBLISHED} {published}\n", "utf-8")
    elif kept and kept[0] == PRIVATE:
        path.write_text(" ".join(kept) + "\n", "utf-8")
    else:
        path.write_text(f"{PRIVATE} {secrets.token_hex(32)}\n", "utf-8")


def fingerprint_of(folder: Path) -> str | None:
    """Return the fingerprint of a prepared folder's histories, after one of its key.

    None if the folder has no shard, as a server's, or no key, as those of earlier versions.
    """
    if not (line := _line(folder)):
        return None
    key, shard = _key(*line, folder / FILE), Shard.load(folder)
    digest = hmac.new(key, digestmod=hashlib.sha256)
    for column in (shard.starts, shard.ends, shard.items, shard.salts):
        digest.update(f"{column.dtype.str} {len(column)} ".encode())
        digest.update(np.ascontiguousarray(column).data)
    return f"{hmac.digest(key, b'key', 'sha256').hex()[:16]}:{digest.hexdigest()}"


def same_key(one: str, other: str) -> bool:
    """Tell whether two fingerprints are of one key: else they differ whatever the histories are."""
    return one.partition(":")[0] == other.partition(":")[0]


def _line(folder: Path) -> tuple[str, str] | None:
    try:
        kind, _, rest = (folder / FILE).read_text("utf-8").strip().partition(" ")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        return ("", "")
    return kind, rest


def _key(kind: str, rest: str, path: Path) -> bytes:
    if kind == PUBLISHED and rest:
        return hashlib.sha256(f"fedrec: histories of {rest}".encode()).digest()
    try:
        key = bytes.fromhex(rest) if kind == PRIVATE else b""
    except ValueError:
        key = b""
    if len(key) != 32:
        raise InputError(f"{path} is damaged; remove it and prepare the data again")
    return key
