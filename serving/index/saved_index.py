"""An inverted file on disk, beside the run whose vectors it holds."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from fedrec.data.errors import InputError
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.data.storage.locks import lock_beside, locked
from fedrec.data.storage.reading import read_json, regular, require
from fedrec.serving.index.vector_index import Index

FILE, DESCRIPTION = "index.faiss", "index.json"
REMEDY = "remove it, and it will be rebuilt"
_FIELDS = {"model_version": str, "items": int, "width": int, "sha256": str, "recall": float}


def save_index(index: Index, folder: Path, version: str) -> None:
    """Write an inverted file; `version` is the model whose vectors it holds."""
    assert isinstance(index.base, faiss.IndexIVFFlat), "rebuilding an exact index is faster than loading it"
    described = {"model_version": version, "width": index.width, "items": len(index.matrix), "recall": index.recall}
    with locked(lock_beside(folder / FILE)):  # the two files belong together
        with replaced_file(folder / FILE) as path:
            faiss.write_index(index.base, str(path))
        with replaced_file(folder / DESCRIPTION) as path:
            path.write_text(json.dumps(described | {"sha256": _sha256(folder / FILE)}, indent=2) + "\n", "utf-8")


def load_index(folder: Path, matrix: np.ndarray, version: str) -> Index | None:
    """Load the index saved for these vectors (N, W); None if there is none, or it belongs to another model.

    Raises `InputError` if a file is damaged.
    """
    if not (folder / DESCRIPTION).exists():
        return None
    try:
        described = _read_description(folder)
        if described["model_version"] != version or (described["items"], described["width"]) != matrix.shape:
            return None
        is_intact = _sha256(regular(folder / FILE, REMEDY)) == described["sha256"]
        base = faiss.read_index(str(folder / FILE)) if is_intact else None
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder / FILE} cannot be read ({error}); {REMEDY}") from error
    if not isinstance(base, faiss.IndexIVFFlat):
        raise InputError(f"{folder / FILE} is not the file that {DESCRIPTION} describes; {REMEDY}")
    return Index.from_base(np.ascontiguousarray(matrix, dtype=np.float32), base, described["recall"])


def _read_description(folder: Path) -> dict[str, Any]:
    """Read a saved index's description. If another endpoint is saving one, wait for both of its files."""
    described = _parse_description(folder)
    if _sha256(regular(folder / FILE, REMEDY)) != described["sha256"]:
        with suppress(OSError), locked(lock_beside(folder / FILE)):  # without write permission it counts as damaged
            described = _parse_description(folder)
    return described


def _parse_description(folder: Path) -> dict[str, Any]:
    described = read_json(folder / DESCRIPTION, REMEDY)
    require(described, _FIELDS, folder / DESCRIPTION, REMEDY)
    return described


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
