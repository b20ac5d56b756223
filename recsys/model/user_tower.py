"""The user tower: user vectors from a pretrained transformer that reads item vectors.

Shapes: C clients, B histories of a client, L events of a history, E embedding, D hidden states, H heads.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedrec.data.errors import InputError
from fedrec.recsys.encoders.text import Encoder, quiet_loading
from fedrec.recsys.model.architectures import architecture_of
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.model.lora import inject_lora, kaiming_uniform
from fedrec.recsys.model.per_client_ops import client_linear
from fedrec.recsys.model.projection import input_projection, project

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ACTIVATIONS = {"gelu": F.gelu, "gelu_new": partial(F.gelu, approximate="tanh"), "relu": F.relu, "silu": F.silu}
"""The supported activations, by their name in the encoder's config."""


class UserTower(nn.Module):
    """User vector = unit(mean of the item vectors so far + up · down · h), h from the pretrained encoder.

    The mean weighs recent events more. The first layers of the encoder read the history's item vectors as input
    embeddings, causally. As `up` starts at zero, an untrained tower recommends by text similarity, and training learns
    a correction of that. If E and D differ, a fixed public projection (`input_projection`) is between the item vectors
    and the layers.
    """

    projection: Tensor | None

    def __init__(
        self, config: ModelConfig, encoder: Encoder, generator: torch.Generator, item_width: int | None = None
    ) -> None:
        super().__init__()
        self.encoder = load_frozen_layers(config, encoder, generator)
        self._driver = architecture_of(encoder.name, self.encoder.config)
        self.width = self.encoder.config.hidden_size
        self.item_width = item_width or self.width
        self.register_buffer("projection", input_projection(self.item_width, self.width), persistent=False)
        self.recency = config.recency
        inject_lora(self.encoder, config.lora_targets, config.lora_rank, config.lora_alpha, generator)
        self.down = kaiming_uniform((config.user_rank, self.width), generator)
        self.up = nn.Parameter(torch.zeros(1, self.item_width, config.user_rank))

    def forward(self, vectors: Tensor, mask: Tensor, dropout_mask: Tensor | None = None) -> Tensor:
        """Compute the user vector after each event: (C·B, L, E), (C·B, L) → (C·B, L, E).

        `dropout_mask` (C, B, L, D), if any, multiplies the hidden states that the head reads.
        """
        clients = self.up.shape[0]
        hidden = self.hidden_states(vectors, mask).reshape(clients, -1, self.width)  # (C, B·L, D)
        hidden = hidden if dropout_mask is None else hidden * dropout_mask.view_as(hidden)
        learned = client_linear(client_linear(hidden, self.down), self.up)  # (C, B·L, E)
        mean = decayed_mean(vectors, mask, self.recency)
        return F.normalize(mean + learned.view_as(mean), dim=-1)

    def hidden_states(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Compute the last layer's hidden states of right-aligned histories: (B, L, E), (B, L) → (B, L, D)."""
        driver = self._driver
        return self.encoder(
            inputs_embeds=project(vectors, self.projection),
            attention_mask=driver.mask(causal_mask(mask)),
            position_ids=position_ids(mask) + driver.offset(self.encoder.config),
        ).last_hidden_state


def decayed_mean(vectors: Tensor, mask: Tensor, recency: float, last: int | None = None) -> Tensor:
    """Compute the mean of the vectors up to each of the last l events (all by default), recent ones weighing more.

    An event's weight is `recency` to the power of the number of events after it. (B, L, E), (B, L) → (B, l, E).
    """
    length = mask.shape[-1]
    places = torch.arange(length, device=mask.device)
    ends = places[length - (last or length) :]
    ages = ends[:, None] - places
    weights = (recency**ages).tril(length - len(ends)) * mask.unsqueeze(1)  # (B, l, L)
    with torch.autocast(mask.device.type, enabled=False):
        return (weights / weights.sum(-1, keepdim=True).clamp(min=1)).to(vectors) @ vectors


def causal_mask(mask: Tensor) -> Tensor:
    """Return which events each place of right-aligned histories reads: itself and those before. (B, L) → (B, L, L)."""
    length = mask.shape[-1]
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)  # padding reads itself: no empty softmax
    return (causal & mask.unsqueeze(1)) | itself


def position_ids(mask: Tensor) -> Tensor:
    """Count each event's position from the first event, so that padding shifts no position: (B, L) → (B, L)."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def attention(
    layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Compute attention, as transformers calls it: (B, H, L, d) thrice, mask (B, 1, L, L) → (B, L, H, d).

    Keys and values may have fewer heads, each for a group of queries (Ainslie et al. 2023, arXiv:2305.13245).
    On a CPU it runs in float32 at least: its backward pass in bfloat16 takes five times as long there.
    """
    if (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if query.device.type == "cpu":
        query, key, value = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (query, key, value))
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(query, key, value, mask, scale=scaling).transpose(1, 2), None


def load_frozen_layers(config: ModelConfig, encoder: Encoder, generator: torch.Generator) -> "PreTrainedModel":
    """Load the encoder's first layers, with their pretrained weights or with random ones, in float32.

    Raises `InputError` if the layers of the encoder cannot be driven, or if the config does not fit them.
    """
    from transformers import AttentionInterface, AutoConfig, AutoModel

    AttentionInterface.register(attention.__name__, attention)

    with quiet_loading():
        described: Any = AutoConfig.from_pretrained(encoder.folder)
        driver = architecture_of(encoder.name, described)
        _check_architecture(config, encoder, described)
        pooling = {"add_pooling_layer": False} if driver.pooled else {}
        model = AutoModel.from_pretrained(
            encoder.folder,
            config=_first_layers(described, config.layers),
            attn_implementation="eager" if driver.own_attention else attention.__name__,
            dtype=torch.float32,
            **pooling,
        )
    if config.user_encoder_init == "random":
        _reinitialise_weights(model, described.initializer_range, generator)
    return model.eval().requires_grad_(False)


def _first_layers(described: Any, layers: int) -> Any:
    """Return the transformers config of a model's first layers."""
    described.num_hidden_layers, described.use_cache = layers, False
    if kinds := getattr(described, "layer_types", None):
        described.layer_types = kinds[:layers]
    return described


def _check_architecture(config: ModelConfig, encoder: Encoder, described: Any) -> None:
    """Raise `InputError` if the user tower cannot be built from an encoder with this transformers config."""
    if described.model_type == "bert" and described.hidden_act not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise InputError(f"encoder {encoder.name!r}: hidden_act = {described.hidden_act!r} is none of {known}")
    if not 1 <= config.layers <= described.num_hidden_layers:
        raise InputError(f"layers = {config.layers}; {encoder.name} has 1 to {described.num_hidden_layers}")
    if config.history > (longest := architecture_of(encoder.name, described).longest(described)):
        raise InputError(f"history = {config.history}; {encoder.name} reads {longest}")


def _reinitialise_weights(module: nn.Module, std: float, generator: torch.Generator) -> None:
    """Replace all weights by BERT's initial ones: normal with standard deviation `std`, zero biases, unit norms.

    Devlin et al. 2018, arXiv:1810.04805; the published code's `initializer_range` is 0.02.
    """
    for layer in module.modules():
        if isinstance(layer, nn.LayerNorm) or type(layer).__name__.endswith("RMSNorm"):
            nn.init.ones_(layer.weight)  # type: ignore[arg-type] - a norm of transformers has a weight, too
        elif isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=std, generator=generator)
        if isinstance(layer, nn.LayerNorm | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
