"""A frozen sentence encoder on disk. It reads texts, and its first layers can be the user tower's."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.storage.reading import read_json, require

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Progress = Callable[[int, int], None]
"""A function of the number of embedded items and of all items."""

CONFIG, MODULES = "config.json", "modules.json"
BLOCK = 256
"""Items that are embedded between two reports of progress."""

_FETCH = "fetch the encoder again"
_ARCHITECTURE = {
    "hidden_act": str,
    "layer_norm_eps": float,
    "num_attention_heads": int,
    "max_position_embeddings": int,
}
"""The entries of a BERT's config that the user tower needs, and their types."""

_KEEP_WIDTH = {"Transformer", "Pooling", "Normalize"}
"""The modules of sentence-transformers that give vectors as wide as the hidden states."""

_MODULE_KIND = re.compile(r'"type":\s*"(?:\w+\.)*(\w+)"')
"""The last name of a module's type in modules.json."""


@dataclass(frozen=True)
class Encoder:
    """A pretrained sentence encoder on disk, identified by the sha256 of its weights and by its recipe."""

    name: str
    revision: str
    sha256: str
    folder: Path
    files: str = ""  # the sha256 of the other files that decide a vector; empty if the weights are pinned
    prompt: str = ""  # text before each text; empty: the model's own

    @property
    def recipe(self) -> str:
        """A hash of what decides a vector beside the weights: pooling, tokenizer, prompts. Empty if that is pinned."""
        return sha256(f"{self.files}\n{self.prompt}".encode()).hexdigest() if self.files or self.prompt else ""

    @cached_property
    def model(self) -> "SentenceTransformer":
        """The model, opened at first use, in float32. Raises `InputError` if the folder holds none that opens."""
        with quiet_loading():
            from sentence_transformers import SentenceTransformer  # seconds to import

            try:
                return SentenceTransformer(str(self.folder), device="cpu").float()
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
        """The config, checked to have every entry that a BERT has. Raises `InputError`."""
        require(self.config, _ARCHITECTURE, self.folder / CONFIG, _FETCH)
        return self.config

    @cached_property
    def width(self) -> int:
        """The width E of an embedding. The model is opened only if its files do not tell."""
        if (self.folder / CONFIG).is_file() and self._keeps_width and isinstance(self.config.get("hidden_size"), int):
            return self.config["hidden_size"]
        return int(self.model.get_embedding_dimension() or 0) or self.encode(["how wide?"]).shape[1]

    @property
    def _keeps_width(self) -> bool:
        """True if the vectors are as wide as the hidden states: no layer behind them, and one kind of pooling."""
        modules = self.folder / MODULES
        kinds = _MODULE_KIND.findall(modules.read_text("utf-8")) if modules.is_file() else []
        pooling = self.folder / "1_Pooling" / CONFIG
        chosen = read_json(pooling, _FETCH) if pooling.is_file() else {}
        modes = chosen.get("pooling_mode", "mean")
        several = sum(value is True for name, value in chosen.items() if name.startswith("pooling_mode_")) > 1
        return set(kinds) <= _KEEP_WIDTH and isinstance(modes, str) and not several

    reads_texts = True

    @property
    def loaded(self) -> bool:
        """True if the model is in memory."""
        return "model" in vars(self)

    def load(self) -> None:
        """Load the model now, so that the first use does not wait seconds for it."""
        _ = self.model

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Compute unit-length embeddings of items' texts, in float32: (n, E)."""
        return self._vectors(self.model.encode_document, texts)

    def encode_queries(self, texts: Sequence[str]) -> Tensor:
        """Compute unit-length embeddings of texts to search with, in float32: (n, E).

        They differ from an item's if the model's own prompts for documents and queries do.
        """
        return self._vectors(self.model.encode_query, texts)

    def _vectors(self, encode: Callable[..., Any], texts: Sequence[str]) -> Tensor:
        settings = {"normalize_embeddings": True, "show_progress_bar": False, "prompt": self.prompt or None}
        return torch.from_numpy(np.asarray(encode(list(texts), **settings), dtype=np.float32))

    def embed_items(self, catalogue: Catalogue, progress: Progress, block: int) -> tuple[Tensor, str]:
        """Embed every item's text, in blocks: (N, E), and no modality beside the texts."""
        blocks = []
        for start in range(0, len(catalogue), block):
            blocks.append(self.encode(catalogue.texts[start : start + block]))
            progress(min(start + block, len(catalogue)), len(catalogue))
        return torch.cat(blocks), ""


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
