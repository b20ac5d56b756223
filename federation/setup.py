"""The setup of a run in one process: its settings, and what they train on, each part opened once."""

import copy
from dataclasses import dataclass, replace
from functools import cached_property

from fedrec.data.dataset import Dataset
from fedrec.federation.config import RunConfig
from fedrec.recsys.closed_form.features import FourierFeatures
from fedrec.recsys.embeddings import Embeddings, Encoder, embed_catalogue, resolve_encoder
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
    def encoder(self) -> Encoder:
        """The text encoder. Raises `InputError` if it cannot be found."""
        return resolve_encoder(self.config.model.encoder)

    @cached_property
    def embeddings(self) -> Embeddings:
        """The items' embeddings, on the processor; they are computed, and saved in the dataset's folder, if absent."""
        return embed_catalogue(self.dataset.catalogue, self.encoder, self.dataset.folder)

    @cached_property
    def model(self) -> TwoTowerModel:
        """The two-tower model as it starts, on the processor. Raises `InputError` if the encoder cannot give it."""
        return TwoTowerModel(self.config.model, self.encoder, self.config.seed)

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
