"""Vectors that the user brings: a file of them with the items' ids, checked and kept in the prepared folder."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.data.storage.names import plain_name
from fedrec.data.storage.reading import regular
from fedrec.recsys.encoders.filling import fill_missing
from fedrec.recsys.encoders.text import Progress
from fedrec.recsys.encoders.vector_files import read_vectors

VECTORS = "vectors:"
"""How the name of vectors that were brought begins: `vectors:NAME`."""


@dataclass(frozen=True)
class BroughtVectors:
    """Vectors of a catalogue's items in a prepared folder, brought there by `bring_vectors`."""

    name: str  # vectors:NAME
    sha256: str
    width: int
    file: Path
    revision = "local"
    recipe = ""

    @classmethod
    def find(cls, name: str, folder: Path | None) -> "BroughtVectors":
        """Find the vectors of a name in a prepared folder. Raises `InputError`."""
        file = _file_of(folder, name.removeprefix(VECTORS)) if folder else None
        if not file or not file.is_file():
            raise InputError(
                f"encoder {name!r}: there are no such vectors in {folder or 'any prepared folder'}; bring them by "
                f"`fedrec data embed {folder or 'DATA'} --vectors FILE`"
            )
        matrix, _ = _load(file)
        return cls(name, hashlib.sha256(matrix.numpy().tobytes()).hexdigest(), matrix.shape[1], file)

    def embed_items(self, catalogue: Catalogue, progress: Progress, block: int) -> tuple[Tensor, str]:
        """Read the unit vector of each item: (N, E), and no modality beside them: the sha256 is of the vectors.

        An item without one gets the mean of the others. Raises `InputError` if they are of another catalogue.
        """
        matrix, fingerprint = _load(self.file)
        if fingerprint != catalogue.fingerprint or len(matrix) != len(catalogue):
            raise InputError(f"{self.file} is of another catalogue; bring the vectors again, by `fedrec data embed`")
        progress(len(catalogue), len(catalogue))
        return fill_missing(matrix, np.flatnonzero(matrix.any(-1).numpy()), self.name), ""


@dataclass(frozen=True)
class Brought:
    """What became of a file of vectors: counts, and an example of each kind that needs a look."""

    name: str  # vectors:NAME
    width: int
    items: int  # items of the catalogue
    matched: int  # items that got a vector
    unknown: int  # ids of the file that are not in the catalogue
    unknown_example: str | None
    missing_example: str | None  # an item without a vector

    @property
    def missing(self) -> int:
        """The number of items without a vector."""
        return self.items - self.matched


def bring_vectors(file: Path, catalogue: Catalogue, folder: Path, name: str = "") -> Brought:
    """Read a file of vectors, and keep those of the catalogue's items in a prepared folder, in unit length.

    `name` is by default the file's name without its ending. Raises `InputError` if the file cannot be read, has an id
    twice, a number that is not finite or a vector of zeros, or no id of the catalogue.
    """
    name = plain_name(name or file.stem, "`name`")
    ids, vectors = read_vectors(file)
    rows = np.array([-1 if (row := catalogue.row(item)) is None else row for item in ids], dtype=np.int64)
    known = rows >= 0
    if not known.any():
        raise InputError(
            f"`vectors` {file}: none of its {len(ids):,} ids is in the catalogue, such as {ids[0]!r}; the catalogue's "
            f"look like {catalogue.ids[0]!r}"
        )
    matrix = torch.zeros(len(catalogue), vectors.shape[1])
    matrix[rows[known]] = F.normalize(torch.from_numpy(vectors[known]), dim=-1).float()
    with replaced_file(_file_of(folder, name)) as path:
        save_file({"matrix": matrix}, path, metadata={"catalogue": catalogue.fingerprint})
    without = np.setdiff1d(np.arange(len(catalogue)), rows)
    return Brought(
        *(VECTORS + name, vectors.shape[1], len(catalogue), int(known.sum()), int((~known).sum())),
        next((item for item, there in zip(ids, known, strict=True) if not there), None),
        catalogue.ids[without[0]] if len(without) else None,
    )


def _file_of(folder: Path, name: str) -> Path:
    return folder / f"vectors-{plain_name(name, 'vectors')}.safetensors"


def _load(file: Path) -> tuple[Tensor, str]:
    """Read the matrix (N, E) and the fingerprint of its catalogue. Raises `InputError` if the file is damaged."""
    remedy = "bring the vectors again, by `fedrec data embed`"
    try:
        with safe_open(regular(file, remedy), framework="pt") as opened:
            matrix, fingerprint = opened.get_tensor("matrix"), (opened.metadata() or {}).get("catalogue", "")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be read ({error}); {remedy}") from error
    if matrix.dtype != torch.float32 or matrix.ndim != 2 or not bool(matrix.isfinite().all()):
        raise InputError(f"{file} holds no vectors of finite numbers; {remedy}")
    return matrix, fingerprint
