"""The trained towers for inference: one adapter, and the user vector after the last event only.

Training puts the pairs of many clients into transformers' own modules. Here the pairs are merged into the frozen
weights of a BERT, which plain torch computes (`bert_layers.py`). The layers of other architectures stay transformers'
own modules, which take seconds to import.

Shapes: B histories of a pass, L events of a history, E embedding, D hidden states.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.model.bert_layers import BertLayers
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.model.item_tower import ItemTower
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.passes import PASS_SIZE, pad_pass
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.model.user_tower import decayed_mean


class Layers(Protocol):
    """The layers of a user tower, with one adapter."""

    def last_states(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Compute the hidden states of the last events, padded to a whole pass: (B, L, E), (B, L) → (PASS_SIZE, D)."""
        ...

    def traceable_states(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Compute the hidden states of the last events by the same operations for any B and L: → (B, D)."""
        ...


class ModuleLayers:
    """The layers as transformers' own modules, of an architecture that has no plain version here."""

    def __init__(self, config: ModelConfig, encoder: Encoder, adapter: Adapter, seed: int) -> None:
        self._tower = TwoTowerModel(config, encoder, seed, len(adapter["user.up"])).user
        ours = {name.removeprefix("user."): tensor for name, tensor in adapter.items() if name.startswith("user.")}
        trained = {name for name, parameter in self._tower.named_parameters() if parameter.requires_grad}
        if different := sorted(trained ^ ours.keys()):
            raise KeyError(different[0])
        self._tower.load_state_dict({name: tensor.unsqueeze(0) for name, tensor in ours.items()}, strict=False)

    def last_states(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Compute the hidden states of the last events, each history padded to a whole pass: (PASS_SIZE, D)."""
        return self.traceable_states(pad_pass(vectors), pad_pass(mask))

    def traceable_states(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Compute the hidden states of the last events by the same operations for any B and L: → (B, D)."""
        return self._tower.hidden_states(vectors, mask)[:, -1]


class InferenceModel:
    """Both towers with one adapter. It is immutable, so threads may share it.

    `encoder` is the user tower's. Its vectors differ from those of `TwoTowerModel` by rounding alone. Raises
    `InputError` if the encoder does not read histories of the config's length.
    """

    def __init__(self, config: ModelConfig, encoder: Encoder, adapter: Adapter, seed: int) -> None:
        self.length = config.history  # most recent events that it reads
        self._recency = config.recency
        plain = encoder.config.get("model_type", "bert") == "bert"
        self._layers: Layers = (BertLayers if plain else ModuleLayers)(config, encoder, adapter, seed)
        self._down, self._up = adapter["user.down"], adapter["user.up"]
        self._item = ItemTower(config, len(self._up), torch.Generator())
        self._item.load_state_dict({name: adapter[f"item.{name}"].unsqueeze(0) for name in ("down", "up")})

    @torch.inference_mode()
    def item_vectors(self, embeddings: Tensor) -> Tensor:
        """Compute unit item vectors of text embeddings: (n, E) → (n, E)."""
        return self._item(embeddings.unsqueeze(0))[0]

    @torch.inference_mode()
    def user_vectors(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Compute unit user vectors after the last event of right-aligned histories: (B, L, E), (B, L) → (B, E)."""
        passes = zip(vectors.split(PASS_SIZE), mask.split(PASS_SIZE), strict=True)
        return torch.cat([self._pass_user_vectors(*histories) for histories in passes])

    def _pass_user_vectors(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Compute the user vectors of at most `PASS_SIZE` histories."""
        count = len(vectors)
        if mask.shape[1] < PASS_SIZE:  # histories so short that one alone has fewer rows than a product of eight
            vectors, mask = pad_pass(vectors), pad_pass(mask)
        learned = self._learned(self._layers.last_states(vectors, mask))[: len(vectors)]  # (B, E)
        return F.normalize(decayed_mean(vectors, mask, self._recency, last=1)[:, 0] + learned, dim=-1)[:count]

    def _learned(self, states: Tensor) -> Tensor:
        """Compute the learned term of user vectors from hidden states: (n, D) → (n, E)."""
        return F.linear(F.linear(states, self._down), self._up)

    def traceable_user_vectors(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Compute what `user_vectors` does, up to rounding, by the same operations for any B and L.

        A tracer that writes the model in another format can follow it. (B, L, E), (B, L) → (B, E).
        """
        learned = self._learned(self._layers.traceable_states(vectors, mask))  # (B, E)
        ages = mask.shape[1] - 1 - torch.arange(mask.shape[1])
        weights = self._recency**ages * mask  # (B, L), as `decayed_mean` weighs the events before the last place
        mean = (weights.unsqueeze(1) @ vectors).squeeze(1) / weights.sum(-1, keepdim=True).clamp(min=1)
        return F.normalize(mean + learned, dim=-1)
