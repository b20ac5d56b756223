"""The artifact: everything an answer needs, nothing about anyone.

A run's folder, once trained, holds
  card.json                 all configs, data and encoder fingerprints, versions, seed, machine
  catalogue.parquet         the public items
  item_vectors.safetensors  one vector per item, from the trained item tower
  adapter_config.json, adapter_model.safetensors   the user tower's LoRA in PEFT's own format
  towers.safetensors        what else was learned: the item tower, the user tower's head
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.ids import id_faults
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.recsys.card import AGAIN, CARD, load_finished_card, model_config
from fedrec.recsys.embeddings import Encoder, resolve_encoder
from fedrec.recsys.hardware import parallel_map, workers
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.model.inference import PASS_SIZE, InferenceModel
from fedrec.recsys.model.lora import Adapter, fingerprint, from_peft, is_lora, to_peft
from fedrec.recsys.model.scoring import Scorer, user_vectors, vector_scorer
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.nearest import Found, best, contenders, doubt, exact_scores
from fedrec.recsys.tensors import check_adapter, check_numbers, check_vectors, load_tensors

VECTORS = "item_vectors.safetensors"
TOWERS = "towers.safetensors"
logger = logging.getLogger("fedrec")

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FILES = (VECTORS, TOWERS, PEFT_CONFIG, PEFT_WEIGHTS)
"""Of the artifact, beside its card and its catalogue."""


@dataclass(frozen=True, eq=False)
class Recommender:
    """A trained recommender: it answers from a history, a text, or a vector made elsewhere."""

    catalogue: Catalogue
    vectors: Tensor  # (N, E) unit item vectors
    adapter: Adapter
    card: dict[str, Any]

    @property
    def version(self) -> str:
        """Names exactly this model: the run's name and a hash of what it learned."""
        return str(self.card["model_version"])

    @cached_property
    def encoder(self) -> Encoder:
        """Resolved when first needed; raises `InputError` if it is not the one this model was trained on."""
        wanted = self.card["encoder"]
        encoder = resolve_encoder(wanted["name"])
        if encoder.sha256 != wanted["sha256"]:
            raise InputError(
                f"encoder {encoder.name} has sha256 {encoder.sha256} where the run was trained on {wanted['sha256']}"
            )
        return encoder

    @cached_property
    def model(self) -> TwoTowerModel:
        """To train it further; to answer, `towers` are quicker."""
        return TwoTowerModel(self._config, self.encoder, self.card["seed"])

    @cached_property
    def towers(self) -> InferenceModel:
        try:
            return InferenceModel(self._config, self.encoder, self.adapter, self.card["seed"])
        except (KeyError, RuntimeError) as error:
            raise InputError(
                f"{self.version}: the adapter does not fit {self.encoder.name} ({error}); {AGAIN}"
            ) from error

    @property
    def _config(self) -> ModelConfig:
        return model_config(self.card["config"]["model"])

    def user_vector(self, history: Sequence[int] | np.ndarray) -> Tensor:
        """The user vector after a history of rows, oldest first: (E,). This is all that a device needs to send."""
        return self.user_vectors(self.vectors, [np.asarray(history)])[0]

    def query_vector(self, text: str) -> Tensor:
        """A free text's place among the items, as if it described one: (E,)."""
        return self.text_vectors([text])[0]

    def user_vectors(self, vectors: Tensor, histories: Sequence[np.ndarray]) -> Tensor:
        """The user vectors after histories of rows of `vectors` (N, E): (B, E).

        They are read in passes, as many as there are workers, each within one thread: to the bit, a history gets the
        same vector in any company.
        """
        towers, size = self.towers, min(PASS_SIZE, -(-len(histories) // workers()))

        def read(start: int) -> Tensor:
            return user_vectors(towers.user_vectors, towers.length, vectors, histories[start : start + size])  # (b, E)

        starts = range(0, len(histories), size or 1)
        return torch.cat([torch.zeros(0, vectors.shape[1]), *parallel_map(read, starts)])

    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """The places of free texts among the items: (B, E). Each is read in a pass of its own, as histories are."""
        towers, encoder = self.towers, self.encoder
        encoder.load()  # here, while the threads of `parallel_map` go on reading histories

        def read(text: str) -> Tensor:
            return towers.item_vectors(encoder.encode([text]))  # (1, E)

        return torch.cat([torch.zeros(0, self.vectors.shape[1]), *parallel_map(read, texts)])

    def recommend(self, vector: Tensor, k: int = 10, exclude: Sequence[int] | np.ndarray = ()) -> Found:
        """The k best rows for a vector and their cosines, best first, by looking at every item. Among equals the lower
        row comes first."""
        left, asked = np.ones(len(self.vectors), dtype=bool), vector.numpy()
        left[np.asarray(exclude, dtype=np.int64)] = False
        rows = np.flatnonzero(left)
        rows = rows[contenders((self.vectors @ vector).numpy()[rows], k, doubt(asked))]
        return best(rows, exact_scores(self.vectors.numpy()[rows], asked), k)

    def scorer(self) -> Scorer:
        """This model as one that ranks, for evaluation."""
        return vector_scorer(self.towers.user_vectors, self.towers.length, self.vectors)

    def save(self, folder: Path) -> None:
        """Write the artifact's files, each in one step; the card last, since it says that the run is whole."""
        self.catalogue.save(folder)
        _save_tensors(folder / VECTORS, {"vectors": self.vectors})
        lora = to_peft(self.adapter)
        _save_tensors(folder / PEFT_WEIGHTS, lora)
        _save_tensors(folder / TOWERS, {name: t for name, t in self.adapter.items() if not is_lora(name)})
        save_json(
            folder / PEFT_CONFIG,
            peft_config(model_config(self.card["config"]["model"]), self.card["encoder"], self.card["seed"]),
        )
        save_json(folder / CARD, self.card)

    @classmethod
    def load(cls, folder: Path) -> "Recommender":
        """Open a run. Raises `InputError` where a file is missing, damaged, or of another run."""
        card, catalogue = load_finished_card(folder), Catalogue.load(folder)
        if catalogue.fingerprint != card["data"]["catalogue_fingerprint"]:
            raise InputError(f"{folder}: the catalogue is not the one that card.json names; copy the run again")
        tensors, adapter = load_tensors(folder / VECTORS), load_adapter(folder)
        vectors = check_vectors(tensors, len(catalogue), folder)
        check_adapter(adapter, model_config(card["config"]["model"]), vectors.shape[1], folder)
        for name, found in (("adapter", adapter), ("item_vectors", tensors)):
            if fingerprint(found) != card["fingerprints"][name]:
                raise InputError(f"{folder}: the {name} is not the one that card.json names; {AGAIN}")
            check_numbers(found, folder)
        _warn_of_ids(catalogue, folder)
        return cls(catalogue, vectors, adapter, card)


def peft_config(config: ModelConfig, encoder: dict[str, str], seed: int) -> dict[str, Any]:
    """What `peft.PeftModel.from_pretrained` needs to put the LoRA pairs onto the encoder's first layers.

    A random base has a name that no model has, so that nobody puts the pairs onto pretrained layers by mistake.
    """
    random = config.user_encoder_init == "random"
    return {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": f"{encoder['name']} (random weights, seed {seed})" if random else encoder["name"],
        "revision": None if random else encoder["revision"],
        "r": config.lora_rank,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(config.lora_targets),
        "layers_to_transform": list(range(config.layers)),
        "layers_pattern": "layer",
        "inference_mode": True,
    }


def _warn_of_ids(catalogue: Catalogue, folder: Path) -> None:
    """Tell of ids that today's rule refuses, in a catalogue that was prepared before it."""
    faults = id_faults(catalogue.frame["item_id"])
    if faults.is_not_null().any():
        row = int(faults.is_not_null().arg_max() or 0)
        logger.warning(
            "%s: %s items have ids that cannot be asked for by a URL; %.60r %s. Prepare the data again with other ids",
            *(folder, f"{len(faults) - faults.null_count():,}", catalogue.ids[row], faults[row]),
        )


def save_json(path: Path, content: dict[str, Any]) -> None:
    with replaced_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    with replaced_file(path) as partial:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)


def load_adapter(folder: Path) -> Adapter:
    """What a run learned. Raises `InputError` where a file is missing or damaged."""
    return from_peft(load_tensors(folder / PEFT_WEIGHTS)) | load_tensors(folder / TOWERS)
