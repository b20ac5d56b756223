"""Reading files that others may have written: regular files of limited size that hold a table.

Without these checks a pipe in place of a file blocks the process for ever, and a huge file takes all memory.
"""

import json
import math
import stat
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.data.errors import InputError

LARGEST = 2**24
"""The maximum number of bytes of a file of settings, a card or a manifest: they have some thousand."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def regular(path: Path, remedy: str, option: str = "") -> Path:
    """Return `path` if it is a regular file. Raises `InputError`, and `OSError` if nothing is there."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        raise InputError(f"{option}{path} is {kind}, where a file belongs; {remedy}")
    return path


def read_bytes(path: Path, remedy: str, option: str = "", largest: int = LARGEST) -> bytes:
    """Read a regular file of at most `largest` bytes. Raises `InputError`, and `OSError` if nothing is there."""
    with regular(path, remedy, option).open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise InputError(f"{option}{path} is larger than {largest:,} bytes; {remedy}")
    return content


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object. Raises `InputError`, and `OSError` if nothing is there."""
    return _read_table(path, "JSON", _parse_json, remedy)


def read_toml(path: Path, remedy: str, option: str = "") -> dict[str, Any]:
    """Read a TOML file. Raises `InputError`, which begins with the option that named it, and `OSError`."""
    return _read_table(path, "TOML", lambda content: tomllib.loads(content.decode("utf-8-sig")), remedy, option)


def _read_table(
    path: Path, language: str, parse: Callable[[bytes], Any], remedy: str, option: str = ""
) -> dict[str, Any]:
    content = read_bytes(path, remedy, option)
    try:
        found = parse(content)
    except RecursionError as error:
        raise InputError(f"{option}{path} is nested too deeply for {language}; {remedy}") from error
    except ValueError as error:
        raise InputError(f"{option}{path} is not {language} ({error}); {remedy}") from error
    if not isinstance(found, dict):
        raise InputError(f"{option}{path} holds {type(found).__name__} where a table belongs; {remedy}")
    return found


def _parse_json(content: bytes) -> Any:
    """Parse JSON strictly: Python's parser accepts numbers that are not finite, and the last of two equal keys."""
    text = content.decode("utf-8-sig")
    return json.loads(text, object_pairs_hook=_check_unique, parse_constant=_refuse_constant, parse_float=_check_finite)


def _check_unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return found


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _check_finite(text: str) -> float:
    return number if math.isfinite(number := float(text)) else _refuse_constant(text)


_WORDS: dict[type, str] = {str: "text", int: "a whole number", float: "a number", dict: "a table"}


def require(table: Mapping[str, Any], fields: Mapping[str, type], path: Path, remedy: str) -> None:
    """Check that a table read from `path` has these fields, such as `data.name`, each of exactly its type.

    Raises `InputError`, which names the first field that is missing or of another type.
    """
    for field, kind in fields.items():
        value: Any = table
        for name in field.split("."):
            if not isinstance(value, Mapping) or name not in value:
                raise InputError(f"{path} has no {field}; {remedy}")
            value = value[name]
        if type(value) is not kind:
            raise InputError(f"{path}: {field} is {repr(value)[:60]}, where {_WORDS[kind]} belongs; {remedy}")


def open_array(path: Path, remedy: str) -> np.ndarray:
    """Open a list of whole numbers in a `.npy` file as a memory map: (n,). Raises `InputError`.

    The shape in the file's header is compared with its size, and no object in it is unpickled.
    """
    try:
        found = np.load(regular(path, remedy), mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; {remedy}") from error
    except InputError:
        raise
    except (ValueError, OSError, EOFError, OverflowError, TypeError, SyntaxError) as error:
        raise InputError(f"{path} cannot be read ({error}); {remedy}") from error
    if not isinstance(found, np.ndarray) or found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise InputError(f"{path} holds no list of whole numbers; {remedy}")
    return found
