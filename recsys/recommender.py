"""The artifact: a trained recommender, without any user's data.

The folder of a finished run holds
  card.json                 all configs, data and encoder fingerprints, versions, seed, machine
  catalogue.parquet         the public items
  item_vectors.safetensors  one vector per item, from the trained item tower; its bias, if exposure is bounded
  adapter_config.json, adapter_model.safetensors   the user tower's LoRA, in PEFT's format
  towers.safetensors        the other trained parameters: the item tower, the user tower's head
  closed_form.safetensors   if the run has a closed form: two vectors per item, and what a new item needs for its own
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.ids import id_faults
from fedrec.data.storage.json_file import save_json
from fedrec.recsys import exposure_bound
from fedrec.recsys.card import AGAIN, CARD, load_finished_card, model_config
from fedrec.recsys.closed_form import artifact
from fedrec.recsys.closed_form.features import FourierFeatures
from fedrec.recsys.closed_form.model import ClosedForm
from fedrec.recsys.encoders.joined import ItemEncoder, encoder_of_card, open_user_encoder, same_encoder
from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.exposure_bound import ExposureBound
from fedrec.recsys.hardware import parallel_map, workers
from fedrec.recsys.item_vectors import ItemVectors
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.model.inference import PASS_SIZE, InferenceModel
from fedrec.recsys.model.lora import Adapter, fingerprint, from_peft, is_lora, peft_config, to_peft
from fedrec.recsys.model.scoring import Scorer, user_vectors
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.nearest import Found, best, contenders, doubt, exact_scores
from fedrec.recsys.tensors import check_adapter, check_numbers, check_vectors, load_tensors, save_tensors

VECTORS = "item_vectors.safetensors"
TOWERS = "towers.safetensors"
Mapped = TypeVar("Mapped")
logger = logging.getLogger("fedrec")

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FILES = (VECTORS, TOWERS, PEFT_CONFIG, PEFT_WEIGHTS, artifact.FILE)
"""The artifact's files, besides its card and its catalogue. The last is there if the run has a closed form."""


@dataclass(frozen=True, eq=False)
class Recommender:
    """A trained recommender. It answers from a history, from a text, or from a user vector."""

    catalogue: Catalogue
    vectors: Tensor  # (N, E) unit item vectors of the towers
    adapter: Adapter
    card: dict[str, Any]
    closed_form: ClosedForm | None = None
    bound: ExposureBound | None = None

    @classmethod
    def of_run(
        cls,
        catalogue: Catalogue,
        vectors: Tensor,
        adapter: Adapter,
        card: Mapping[str, Any],
        closed_form: ClosedForm | None = None,
        bound: ExposureBound | None = None,
    ) -> "Recommender":
        """Make the artifact of a finished run, whose card gets the fingerprints, the version and the closed form.

        The version depends on all trained parameters.
        """
        prints = {
            "adapter": fingerprint(adapter),
            "item_vectors": fingerprint(exposure_bound.tensors_of(vectors, bound)),
        }
        version, section = sha256(repr(prints).encode()).hexdigest() if bound else prints["adapter"], {}
        if closed_form:
            described = artifact.describe(closed_form)
            prints[artifact.SECTION] = fingerprint(artifact.tensors_of(closed_form))
            version = sha256(repr((described, prints)).encode()).hexdigest()
            section = {artifact.SECTION: card.get(artifact.SECTION, {}) | described}  # beside how it came to be
        stamped = {**card, "fingerprints": prints, "model_version": f"{card['data']['name']}-{version[:12]}", **section}
        return cls(catalogue, vectors, adapter, stamped, closed_form, bound)

    @property
    def version(self) -> str:
        """The model's version: the run's name and a hash of its parameters."""
        return str(self.card["model_version"])

    @cached_property
    def encoder(self) -> ItemEncoder:
        """The items' encoder, opened at the first use. Raises `InputError` if the model was trained on another one."""
        encoder = encoder_of_card(self.card["encoder"], self.model_config.prompt)
        if encoder.width != self.tower_width:
            raise InputError(f"{self.version}: its vectors have another width than {encoder.name}; {AGAIN}")
        return encoder

    @cached_property
    def user_encoder(self) -> Encoder:
        """The user tower's encoder. Raises `InputError` if the model was trained on another one."""
        encoder = open_user_encoder(self.model_config.user_encoder, self.card["encoder"]["name"])
        if not same_encoder(encoder, self._described_user_encoder):
            raise InputError(f"user_encoder {encoder.name} has other files than the run was trained on; restore them")
        return encoder

    @property
    def _described_user_encoder(self) -> Mapping[str, Any]:
        return self.card.get("user_encoder", self.card["encoder"])

    @cached_property
    def model(self) -> TwoTowerModel:
        """The trainable model. For inference use `towers`, which is faster."""
        return TwoTowerModel(self.model_config, self.user_encoder, self.card["seed"], self.tower_width)

    @cached_property
    def towers(self) -> InferenceModel:
        """The model for inference. Raises `InputError` if the adapter does not fit the encoder."""
        try:
            return InferenceModel(self.model_config, self.user_encoder, self.adapter, self.card["seed"])
        except (KeyError, RuntimeError) as error:
            raise InputError(
                f"{self.version}: the adapter does not fit {self.user_encoder.name} ({error}); {AGAIN}"
            ) from error

    @property
    def model_config(self) -> ModelConfig:
        """The architecture that the card describes."""
        return model_config(self.card["config"]["model"])

    @cached_property
    def items(self) -> ItemVectors:
        """The vectors of the catalogue's items."""
        ours = (self.closed_form.model.events, self.closed_form.model.candidates) if self.closed_form else None
        return ItemVectors.join(self.vectors, ours).with_biases(self.bound.column if self.bound else None)

    @property
    def tower_width(self) -> int:
        """The width E of the towers' vectors, with which all vectors here begin."""
        return self.vectors.shape[1]

    @property
    def length(self) -> int:
        """The number of most recent events of a history that its user vector depends on."""
        reach = 0 if self.closed_form is None else self.closed_form.model.stack.reach
        return max(self.towers.length, reach)

    def user_vector(self, history: Sequence[int] | np.ndarray) -> Tensor:
        """Compute the user vector of a history of rows, oldest first: (E,), or (E + r,) with a closed form.

        A device needs to send nothing else.
        """
        return self.user_vectors(self.items.read, [np.asarray(history)])[0]

    def user_vectors(self, read: Tensor, histories: Sequence[np.ndarray]) -> Tensor:
        """Compute the user vectors of histories, which are rows of `read` (n, R), as in `ItemVectors`: (B, W).

        They have unit length; that of an empty history is zeros. The batch is split into one pass per worker, each
        within one thread. So a history gets the same vector, to the bit, in any batch.
        """
        size = min(PASS_SIZE, -(-len(histories) // workers()))

        def encode_pass(start: int) -> Tensor:
            return self._join_users(read, histories[start : start + size])

        starts = range(0, len(histories), size or 1)
        return torch.cat([self.items.searched[:0], *parallel_map(encode_pass, starts)])

    def _join_users(self, read: Tensor, histories: Sequence[np.ndarray]) -> Tensor:
        """Compute the user vectors of a pass."""
        towers, width = self.towers, self.tower_width
        encode = partial(user_vectors, towers.user_vectors, towers.length, read[:, :width])
        users = self.closed_form.blend_users(encode, histories, read[:, width:]) if self.closed_form else None
        if self.bound:
            return self.bound.extend_users(encode(histories) if users is None else users)
        return encode(histories) if users is None else F.normalize(users, dim=-1)

    def query_vectors(self, texts: Sequence[str]) -> Tensor:
        """Compute unit vectors of free texts, to search with: (B, W). The closed form's half, if any, is zeros."""
        vectors = self._map_texts(texts, self.encoder.encode_queries, self.towers.item_vectors)  # (1, E) each
        return self.towers_only(torch.cat([self.items.searched[:0, : self.tower_width], *vectors]))

    def towers_only(self, vectors: Tensor) -> Tensor:
        """Return vectors that score by their towers' half alone, in cosines: (n, E or more) → (n, W)."""
        return F.pad(vectors[:, : self.tower_width], (0, self.items.searched.shape[1] - self.tower_width))

    def new_items(self, texts: Sequence[str]) -> ItemVectors:
        """Compute the vectors of new items by their texts."""
        closed_form = self.closed_form

        def vectors_of(embedding: Tensor) -> ItemVectors:
            ours = None if closed_form is None else closed_form.item_vectors(embedding)
            new = ItemVectors.join(self.towers.item_vectors(embedding), ours)
            return new.with_biases(torch.zeros(len(embedding), 1) if self.bound else None)

        each = self._map_texts(texts, self.encoder.encode, vectors_of)
        searched, read = self.items.searched[:0], self.items.read[:0]
        return ItemVectors(
            torch.cat([searched, *(item.searched for item in each)]), torch.cat([read, *(item.read for item in each)])
        )

    def _map_texts(
        self, texts: Sequence[str], encode: Callable[[Sequence[str]], Tensor], function: Callable[[Tensor], Mapped]
    ) -> list[Mapped]:
        """Apply a function to the embedding (1, E) of each text, which is encoded in a pass of its own."""
        self.encoder.load()  # before the threads start, so that it is loaded once
        return list(parallel_map(lambda text: function(encode([text])), texts))

    def recommend(self, vector: Tensor, k: int = 10, exclude: Sequence[int] | np.ndarray = ()) -> Found:
        """Return the k rows with the highest scores for a user vector (W,), with their scores, by exact search.

        Among equal scores the lower row comes first.
        """
        searched = self.items.searched
        candidates, query = np.ones(len(searched), dtype=bool), vector.numpy()
        candidates[np.asarray(exclude, dtype=np.int64)] = False
        rows = np.flatnonzero(candidates)
        rows = rows[contenders((searched @ vector).numpy()[rows], k, doubt(query))]
        return best(rows, exact_scores(searched.numpy()[rows], query), k)

    def scorer(self) -> Scorer:
        """Return the model as a scorer, for evaluation."""
        items = self.items
        return lambda histories: self._join_users(items.read, histories) @ items.searched.T

    def save(self, folder: Path) -> None:
        """Write the artifact's files, each in one step. The card comes last: it marks the run as finished."""
        self.catalogue.save(folder)
        save_tensors(folder / VECTORS, exposure_bound.tensors_of(self.vectors, self.bound))
        lora = to_peft(self.adapter)
        save_tensors(folder / PEFT_WEIGHTS, lora)
        save_tensors(folder / TOWERS, {name: t for name, t in self.adapter.items() if not is_lora(name)})
        if self.closed_form:
            save_tensors(folder / artifact.FILE, artifact.tensors_of(self.closed_form))
        peft = peft_config(self.model_config, self._described_user_encoder, self.card["seed"], lora)
        save_json(folder / PEFT_CONFIG, peft)
        save_json(folder / CARD, self.card)

    @classmethod
    def load(cls, folder: Path) -> "Recommender":
        """Open a finished run. Raises `InputError` if a file is missing, damaged, or of another run."""
        card, catalogue = load_finished_card(folder), Catalogue.load(folder)
        if catalogue.fingerprint != card["data"]["catalogue_fingerprint"]:
            raise InputError(f"{folder}: the catalogue is not the one that card.json names; {AGAIN}")
        tensors, adapter = load_tensors(folder / VECTORS), load_adapter(folder)
        vectors, bias = check_vectors(tensors, len(catalogue), folder), tensors.get("bias")
        check_adapter(adapter, model_config(card["config"]["model"]), vectors.shape[1], folder)
        for name, parameters in (("adapter", adapter), ("item_vectors", tensors)):
            _check_fingerprint(name, parameters, card, folder)
        _warn_of_ids(catalogue, folder)
        return cls(catalogue, vectors, adapter, card, _load_closed_form(folder, card, vectors), ExposureBound.of(bias))


def _load_closed_form(folder: Path, card: Mapping[str, Any], vectors: Tensor) -> ClosedForm | None:
    """Read the closed form of a run, beside item vectors (N, E); None if its card describes none."""
    if artifact.SECTION not in card:
        return None
    tensors = load_tensors(folder / artifact.FILE)
    _check_fingerprint(artifact.SECTION, tensors, card, folder)
    return artifact.closed_form_of(card[artifact.SECTION], tensors, vectors, folder)


def load_feature_map(folder: Path, card: Mapping[str, Any]) -> FourierFeatures:
    """Read the features of texts of a run with a closed form over texts. Raises `InputError`."""
    tensors = load_tensors(folder / artifact.FILE)
    _check_fingerprint(artifact.SECTION, tensors, card, folder)
    return artifact.feature_map_of(tensors)


def _check_fingerprint(name: str, tensors: Mapping[str, Tensor], card: Mapping[str, Any], folder: Path) -> None:
    """Raise `InputError` if tensors are not those that the card names, or hold numbers that are not finite."""
    if fingerprint(tensors) != card["fingerprints"][name]:
        raise InputError(f"{folder}: the {name} is not the one that card.json names; {AGAIN}")
    check_numbers(tensors, folder)


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
