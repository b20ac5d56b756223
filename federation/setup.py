"""The setup of a run in one process: its settings, and what they train on, each part opened once."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.federation.config import RunConfig
from fedrec.recsys.closed_form.features import FourierFeatures
from fedrec.recsys.embeddings import USER_ENCODER, Embeddings, embed_catalogue
from fedrec.recsys.encoders.joined import ItemEncoder, describe_encoder, open_encoder, open_user_encoder, same_encoder
from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.hardware import device
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.training.closed_form import ClosedFormMethod
from fedrec.recsys.training.hybrid import HybridMethod
from fedrec.recsys.training.method import FederatedMethod


@dataclass(frozen=True, eq=False)
class TrainingSetup:
    """A dataset and the settings of a run, shared by the server and all nodes in one process.

    Each part is opened at its first use, and then shared. A server uses the public side only: it opens no histories.
    """

    dataset: Dataset
    config: RunConfig
    feature_map: FourierFeatures | None = None
    """The features of texts, of a run whose catalogue has grown since they were fitted; None: fitted to the dataset."""

    @cached_property
    def encoder(self) -> ItemEncoder:
        """The encoder of the items. Raises `InputError` if it cannot be found."""
        return open_encoder(self.config.model.encoder, self.config.model.prompt, self.dataset.folder)

    @cached_property
    def user_encoder(self) -> Encoder:
        """The user tower's encoder. Raises `InputError` if it cannot be found."""
        return open_user_encoder(self.config.model.user_encoder, self.config.model.encoder)

    @property
    def described_encoders(self) -> dict[str, Any]:
        """What a card says of the encoders; the user tower's is left out if it is the only one of the items."""
        described = describe_encoder(self.encoder)
        if same_encoder(self.user_encoder, described):
            return {"encoder": described}
        return {"encoder": described, "user_encoder": describe_encoder(self.user_encoder)}

    def check_encoders(self, card: Mapping[str, Any], run: str) -> None:
        """Raise `InputError` unless both encoders are those of a run's card; `run` is what the message names."""
        pairs = (self.encoder, card["encoder"]), (self.user_encoder, card.get("user_encoder", card["encoder"]))
        for encoder, described in pairs:
            if not same_encoder(encoder, described):
                raise InputError(f"{run} was trained with other weights of {encoder.name}; restore them")

    @property
    def stamp(self) -> dict[str, str]:
        """The identities of catalogue and encoders, which all nodes of a run must have."""
        other = {USER_ENCODER: self.user_encoder.sha256} if self.config.model.user_encoder else {}
        return self.embeddings.provenance | other

    @cached_property
    def embeddings(self) -> Embeddings:
        """The items' embeddings, on the processor; they are computed, and saved in the dataset's folder, if absent."""
        return embed_catalogue(self.dataset.catalogue, self.encoder, self.dataset.folder)

    @cached_property
    def model(self) -> TwoTowerModel:
        """The two-tower model as it starts, on the processor. Raises `InputError` if the encoder cannot give it."""
        return TwoTowerModel(self.config.model, self.user_encoder, self.config.seed, self.encoder.width)

    @cached_property
    def device_embeddings(self) -> Embeddings:
        """The items' embeddings where clients train: on the graphics processor if there is one."""
        return replace(self.embeddings, matrix=self.embeddings.matrix.to(device()))

    @cached_property
    def device_model(self) -> TwoTowerModel:
        """The model where clients train; a copy if that is not the processor."""
        return self.model if device().type == "cpu" else copy.deepcopy(self.model).to(device())

    @cached_property
    def method(self) -> FederatedMethod:
        """The run's method, where clients train."""
        method = self.config.method_row.build(self.config, self.device_embeddings, lambda: self.device_model)
        if self.feature_map and isinstance(method, HybridMethod):
            return method.with_feature_map(self.feature_map)
        return method

    @property
    def closed_form(self) -> ClosedFormMethod:
        """The closed form of a method that has one. Raises `TypeError` if the run's method has none."""
        if not isinstance(self.method, HybridMethod):
            raise TypeError(f"{self.config.method} has no closed form")
        return self.method.closed_form
