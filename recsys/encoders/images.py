"""Pictures of items: a CLIP-like encoder over a column of the catalogue that holds paths.

CLIP: Radford et al. 2021, arXiv:2103.00020.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.recsys.encoders.filling import fill_missing
from fedrec.recsys.encoders.text import Encoder, Progress

IMAGES = "images:"
"""How the name of an image encoder begins: `images:MODEL`, or `images:MODEL@COLUMN`."""

COLUMN = "image"
"""The column of the paths, if the name has none."""

OPENED = 32
"""The maximum number of pictures in memory at once."""

logger = logging.getLogger("fedrec")


@dataclass(frozen=True)
class ImageEncoder:
    """An encoder of the pictures whose paths are in a column of the catalogue."""

    name: str  # images:MODEL[@COLUMN]
    model: Encoder
    column: str = COLUMN

    @property
    def revision(self) -> str:
        """The revision of the model."""
        return self.model.revision

    @property
    def sha256(self) -> str:
        """The sha256 of the model's weights."""
        return self.model.sha256

    @property
    def recipe(self) -> str:
        """The recipe of the model, such as the size to which a picture is scaled."""
        return self.model.recipe

    @property
    def width(self) -> int:
        """The width of a picture's vector. It opens the model."""
        return self.model.width

    def embed_items(self, catalogue: Catalogue, progress: Progress, block: int) -> tuple[Tensor, str]:
        """Embed each item's picture: unit vectors (N, E), and a fingerprint of the pictures.

        An item without one gets the mean of the others; how many have none is logged, with an example. Raises
        `InputError` if no item has one, if the column is missing, or if the model reads no pictures.
        """
        if not self.model.model.supports("image"):
            raise InputError(f"encoder {self.name!r} reads no pictures; name a model such as CLIP")
        paths, digest = self._paths(catalogue), hashlib.sha256()
        vectors, faults = torch.zeros(len(paths), self.width), dict[int, str]()
        block = min(block, OPENED)
        for start in range(0, len(paths), block):
            opened = {}
            for row, path in enumerate(paths[start : start + block], start):
                try:
                    content = _read(path)
                    opened[row] = _open_picture(content)
                    digest.update(f"{row} {hashlib.sha256(content).hexdigest()}\n".encode())
                except InputError as error:
                    faults[row] = str(error)
            if opened:
                vectors[list(opened)] = self._encode(list(opened.values()))
            progress(min(start + block, len(paths)), len(paths))
        for row, fault in list(faults.items())[:1]:
            logger.warning(
                "%s: %s of %s items have no readable picture, such as %.60r (%s); they get the mean of the others",
                *(self.name, f"{len(faults):,}", f"{len(paths):,}", catalogue.ids[row], fault),
            )
        present = np.setdiff1d(np.arange(len(paths)), list(faults))
        return fill_missing(vectors, present, self.name), f"{self.name} {digest.hexdigest()}"

    def _paths(self, catalogue: Catalogue) -> list[Any]:
        if self.column not in catalogue.frame.columns:
            there = ", ".join(catalogue.frame.columns)
            raise InputError(f"encoder {self.name!r}: the catalogue has no column {self.column!r}, but {there}")
        return catalogue.frame[self.column].to_list()

    def _encode(self, pictures: list[Any]) -> Tensor:
        vectors = self.model.model.encode(pictures, normalize_embeddings=True, show_progress_bar=False)
        return torch.from_numpy(np.asarray(vectors, dtype=np.float32))


def _read(path: Any) -> bytes:
    """Read a picture's file. Raises `InputError`, which says why it cannot be."""
    if not isinstance(path, str) or not path.strip():
        raise InputError("no path")
    try:
        if not Path(path).is_file():
            raise InputError(f"{path} is no file")
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


def _open_picture(content: bytes) -> Any:
    """Open a picture in colours. Raises `InputError` if the bytes are none, or of more pixels than memory is for."""
    from io import BytesIO

    from PIL import Image

    try:
        return Image.open(BytesIO(content)).convert("RGB")
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise InputError(f"no picture: {str(error).partition(chr(10))[0]}") from error
