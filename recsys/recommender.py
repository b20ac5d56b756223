"""The artifact: a trained recommender, without any user's data.

The folder of a finished run holds
  card.json                 all configs, data and encoder fingerprints, versions, seed, machine
  catalogue.parquet         the public items
  item_vectors.safetensors  one vector per item, from the trained item tower
  adapter_config.json, adapter_model.safetensors   the user tower's LoRA, in PEFT's format
  towers.safetensors        the other trained parameters: the item tower, the user tower's head
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.ids import id_faults
from fedrec.data.storage.json_file import save_json
from fedrec.recsys.card import AGAIN, CARD, load_finished_card, model_config
from fedrec.recsys.embeddings import Encoder, resolve_encoder
from fedrec.recsys.hardware import parallel_map, workers
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.model.inference import PASS_SIZE, InferenceModel
from fedrec.recsys.model.lora import Adapter, fingerprint, from_peft, is_lora, to_peft
from fedrec.recsys.model.scoring import Scorer, user_vectors, vector_scorer
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.nearest import Found, best, contenders, doubt, exact_scores
from fedrec.recsys.tensors import check_adapter, check_numbers, check_vectors, load_tensors, save_tensors

VECTORS = "item_vectors.safetensors"
TOWERS = "towers.safetensors"
logger = logging.getLogger("fedrec")

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FILES = (VECTORS, TOWERS, PEFT_CONFIG, PEFT_WEIGHTS)
"""The artifact's files, besides its card and its catalogue."""


@dataclass(frozen=True, eq=False)
class Recommender:
    """A trained recommender. It answers from a history, from a text, or from a user vector."""

    catalogue: Catalogue
    vectors: Tensor  # (N, E) unit item vectors
    adapter: Adapter
    card: dict[str, Any]

    @property
    def version(self) -> str:
        """The model's version: the run's name and a hash of its parameters."""
        return str(self.card["model_version"])

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder, resolved at the first use. Raises `InputError` if the model was trained on another one."""
        wanted = self.card["encoder"]
        encoder = resolve_encoder(wanted["name"])
        if encoder.sha256 != wanted["sha256"]:
            raise InputError(
                f"encoder {encoder.name} has sha256 {encoder.sha256}, but the run was trained on {wanted['sha256']}"
            )
        return encoder

    @cached_property
    def model(self) -> TwoTowerModel:
        """The trainable model. For inference use `towers`, which is faster."""
        return TwoTowerModel(self._config, self.encoder, self.card["seed"])

    @cached_property
    def towers(self) -> InferenceModel:
        """The model for inference. Raises `InputError` if the adapter does not fit the encoder."""
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
        """Compute the user vector of a history of rows, oldest first: (E,). A device needs to send nothing else."""
        return self.user_vectors(self.vectors, [np.asarray(history)])[0]

    def user_vectors(self, vectors: Tensor, histories: Sequence[np.ndarray]) -> Tensor:
        """Compute the user vectors of histories, which are rows of `vectors` (N, E): (B, E).

        The batch is split into one pass per worker, each within one thread. So a history gets the same vector, to the
        bit, in any batch.
        """
        towers, size = self.towers, min(PASS_SIZE, -(-len(histories) // workers()))

        def encode_pass(start: int) -> Tensor:
            return user_vectors(towers.user_vectors, towers.length, vectors, histories[start : start + size])  # (b, E)

        starts = range(0, len(histories), size or 1)
        return torch.cat([torch.zeros(0, vectors.shape[1]), *parallel_map(encode_pass, starts)])

    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """Compute the item vectors of free texts, each encoded in a pass of its own: (B, E)."""
        towers, encoder = self.towers, self.encoder
        encoder.load()  # before the threads start, so that it is loaded once

        def encode_text(text: str) -> Tensor:
            return towers.item_vectors(encoder.encode([text]))  # (1, E)

        return torch.cat([torch.zeros(0, self.vectors.shape[1]), *parallel_map(encode_text, texts)])

    def recommend(self, vector: Tensor, k: int = 10, exclude: Sequence[int] | np.ndarray = ()) -> Found:
        """Return the k rows with the highest cosine to a vector (E,), with their cosines, by exact search.

        Among equal cosines the lower row comes first.
        """
        candidates, query = np.ones(len(self.vectors), dtype=bool), vector.numpy()
        candidates[np.asarray(exclude, dtype=np.int64)] = False
        rows = np.flatnonzero(candidates)
        rows = rows[contenders((self.vectors @ vector).numpy()[rows], k, doubt(query))]
        return best(rows, exact_scores(self.vectors.numpy()[rows], query), k)

    def scorer(self) -> Scorer:
        """Return the model as a scorer, for evaluation."""
        return vector_scorer(self.towers.user_vectors, self.towers.length, self.vectors)

    def save(self, folder: Path) -> None:
        """Write the artifact's files, each in one step. The card comes last: it marks the run as finished."""
        self.catalogue.save(folder)
        save_tensors(folder / VECTORS, {"vectors": self.vectors})
        lora = to_peft(self.adapter)
        save_tensors(folder / PEFT_WEIGHTS, lora)
        save_tensors(folder / TOWERS, {name: t for name, t in self.adapter.items() if not is_lora(name)})
        save_json(
            folder / PEFT_CONFIG,
            peft_config(model_config(self.card["config"]["model"]), self.card["encoder"], self.card["seed"]),
        )
        save_json(folder / CARD, self.card)

    @classmethod
    def load(cls, folder: Path) -> "Recommender":
        """Open a finished run. Raises `InputError` if a file is missing, damaged, or of another run."""
        card, catalogue = load_finished_card(folder), Catalogue.load(folder)
        if catalogue.fingerprint != card["data"]["catalogue_fingerprint"]:
            raise InputError(f"{folder}: the catalogue is not the one that card.json names; {AGAIN}")
        tensors, adapter = load_tensors(folder / VECTORS), load_adapter(folder)
        vectors = check_vectors(tensors, len(catalogue), folder)
        check_adapter(adapter, model_config(card["config"]["model"]), vectors.shape[1], folder)
        for name, parameters in (("adapter", adapter), ("item_vectors", tensors)):
            if fingerprint(parameters) != card["fingerprints"][name]:
                raise InputError(f"{folder}: the {name} is not the one that card.json names; {AGAIN}")
            check_numbers(parameters, folder)
        _warn_of_ids(catalogue, folder)
        return cls(catalogue, vectors, adapter, card)


def peft_config(config: ModelConfig, encoder: dict[str, str], seed: int) -> dict[str, Any]:
    """Build the config by which `peft.PeftModel.from_pretrained` applies the LoRA pairs to the encoder's first layers.

    A random initialisation gets a name that no model has, so that the pairs are not applied to pretrained layers by
    mistake.
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
    """Warn of item ids that are refused today, in a catalogue that was prepared before they were."""
    faults = id_faults(catalogue.frame["item_id"])
    if faults.is_not_null().any():
        row = int(faults.is_not_null().arg_max() or 0)
        logger.warning(
            "%s: %s items have ids that cannot be asked for by a URL; %.60r %s. Prepare the data again with other ids",
            *(folder, f"{len(faults) - faults.null_count():,}", catalogue.ids[row], faults[row]),
        )


def load_adapter(folder: Path) -> Adapter:
    """Read the trained parameters of a run. Raises `InputError` if a file is missing or damaged."""
    return from_peft(load_tensors(folder / PEFT_WEIGHTS)) | load_tensors(folder / TOWERS)
