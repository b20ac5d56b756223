"""A fingerprint of the histories in a prepared folder: it identifies them in a run's card, and reveals nothing of them.

It is an HMAC-SHA256 under a random key, which stays in the folder's private part. Without the key nobody can test a
guess. A published dataset has a fixed key instead, so that its fingerprint is the same on every machine.
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
"""The first word of the file, before a key in hexadecimal digits or the name of a dataset."""


def save_key(folder: Path, published: str | None = None, before: Path | None = None) -> None:
    """Write a folder's key, readable by its owner alone: the fixed key of a published dataset, or a random one.

    The random key of the folder `before`, which this folder replaces, is kept.
    """
    path = folder / FILE
    previous = _read_line(before) if before else None
    path.touch(mode=0o600)
    if published is not None:
        path.write_text(f"{PUBLISHED} {published}\n", "utf-8")
    elif previous and previous[0] == PRIVATE:
        path.write_text(" ".join(previous) + "\n", "utf-8")
    else:
        path.write_text(f"{PRIVATE} {secrets.token_hex(32)}\n", "utf-8")


def fingerprint_of(folder: Path) -> str | None:
    """Compute the fingerprint of a prepared folder's histories, preceded by a fingerprint of its key.

    None if the folder has no shard (a server's folder) or no key (folders of early versions).
    """
    if not (line := _read_line(folder)):
        return None
    key, shard = _parse_key(*line, folder / FILE), Shard.load(folder)
    digest = hmac.new(key, digestmod=hashlib.sha256)
    held = () if shard.held is None else (shard.held,)
    for column in (shard.starts, shard.ends, shard.items, shard.salts, *held):
        digest.update(f"{column.dtype.str} {len(column)} ".encode())
        digest.update(np.ascontiguousarray(column).data)
    return f"{hmac.digest(key, b'key', 'sha256').hex()[:16]}:{digest.hexdigest()}"


def same_key(one: str, other: str) -> bool:
    """Check whether two fingerprints have one key; otherwise they differ even for the same histories."""
    return one.partition(":")[0] == other.partition(":")[0]


def _read_line(folder: Path) -> tuple[str, str] | None:
    try:
        kind, _, rest = (folder / FILE).read_text("utf-8").strip().partition(" ")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        return ("", "")
    return kind, rest


def _parse_key(kind: str, rest: str, path: Path) -> bytes:
    if kind == PUBLISHED and rest:
        return hashlib.sha256(f"fedrec: histories of {rest}".encode()).digest()
    try:
        key = bytes.fromhex(rest) if kind == PRIVATE else b""
    except ValueError:
        key = b""
    if len(key) != 32:
        raise InputError(f"{path} is damaged; remove it and prepare the data again")
    return key
