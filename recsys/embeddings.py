"""Embeddings of the catalogue by frozen encoders, cached in the prepared folder with their provenance."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedrec.data.catalogue import Catalogue
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.data.storage.reading import regular
from fedrec.recsys.encoders.joined import ItemEncoder
from fedrec.recsys.encoders.text import BLOCK, Progress

MODALITY = "modality"
"""The entry of a provenance that names what is mixed with the texts, if anything is."""

RECIPE = "recipe"
"""The entry of a provenance with the hash of an encoder's pooling, tokenizer and prompts, if it is not pinned."""

USER_ENCODER = "user_encoder"
"""The entry of a node's stamp with the sha256 of the user tower's encoder, if that is another one."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One frozen embedding per item, with the provenance: which encoder embedded which catalogue, and what else is
    mixed in."""

    matrix: Tensor  # (N, E)
    provenance: dict[str, str]
    trainable_rows: np.ndarray  # rows that training may use

    @staticmethod
    def provenance_of(catalogue: Catalogue, encoder: ItemEncoder) -> dict[str, str]:
        """Return the identities of an encoder and a catalogue: equal ones give equal embeddings."""
        identity = {
            "encoder": encoder.name,
            "revision": encoder.revision,
            "sha256": encoder.sha256,
            "catalogue": catalogue.fingerprint,
        }
        return identity | ({RECIPE: encoder.recipe} if encoder.recipe else {})

    def mixed(self, matrix: Tensor, modality: str) -> "Embeddings":
        """Return embeddings (N, E) in which another modality is mixed with the texts.

        All nodes of a run must have the same `modality`: the name of its vectors and their version, as a fingerprint.
        """
        return replace(self, matrix=matrix, provenance=self.provenance | {MODALITY: modality})

    def save(self, folder: Path) -> None:
        """Cache the embeddings in a prepared folder, for `embed_catalogue`."""
        with replaced_file(_cache_file(folder, self.provenance)) as path:
            save_file({"matrix": self.matrix}, path, metadata=self.provenance)


def _cache_file(folder: Path, provenance: dict[str, str]) -> Path:
    key = provenance["sha256"]
    if RECIPE in provenance:
        key = hashlib.sha256(f"{key} {provenance[RECIPE]}".encode()).hexdigest()
    return folder / f"embeddings-{key[:12]}.safetensors"


def embed_catalogue(
    catalogue: Catalogue,
    encoder: ItemEncoder,
    folder: Path | None = None,
    progress: Progress = lambda done, total: None,
    block: int = BLOCK,
) -> Embeddings:
    """Embed every item, texts in blocks, or read the cache in `folder` if it is of the same texts and encoder.

    Another modality that is mixed in there is read with it.
    `progress` is called after each block, with the number of embedded items and of all items.
    """
    provenance = Embeddings.provenance_of(catalogue, encoder)
    if folder and (cached := _read_cache(_cache_file(folder, provenance), provenance, (len(catalogue), encoder.width))):
        return Embeddings(*cached, catalogue.trainable_rows)
    matrix, beside = encoder.embed_items(catalogue, progress, block)
    embeddings = Embeddings(matrix, provenance, catalogue.trainable_rows)
    embeddings = embeddings.mixed(matrix, beside) if beside else embeddings
    if folder:
        embeddings.save(folder)
    return embeddings


def _read_cache(
    cache: Path, provenance: dict[str, str], shape: tuple[int, int]
) -> tuple[Tensor, dict[str, str]] | None:
    """Read the cache, and its provenance. Return None if it is missing, damaged, or of other texts or weights."""
    try:
        with safe_open(regular(cache, "remove it"), framework="pt") as file:
            cached, found = tuple(file.get_slice("matrix").get_shape()), dict(file.metadata() or {})
            modality = {name: found[name] for name in (MODALITY,) if name in found}
            if found != provenance | modality or cached != shape:
                return None
            matrix = file.get_tensor("matrix")
    except (FileNotFoundError, SafetensorError):
        return None
    return (matrix, found) if matrix.dtype == torch.float32 and bool(matrix.isfinite().all()) else None
