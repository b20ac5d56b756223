"""The user tower: user vectors from a pretrained transformer that reads item vectors.

Shapes: C clients, B histories of a client, L events of a history, E embedding, D hidden states, H heads.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedrec.data.errors import InputError
from fedrec.recsys.embeddings import Encoder, quiet_loading
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.model.lora import inject_lora, kaiming_uniform
from fedrec.recsys.model.per_client_ops import client_linear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ACTIVATIONS = {"gelu": F.gelu, "gelu_new": partial(F.gelu, approximate="tanh"), "relu": F.relu, "silu": F.silu}
"""The supported activations, by their name in the encoder's config."""


class UserTower(nn.Module):
    """User vector = unit(mean of the item vectors so far + up · down · h), h from the pretrained encoder.

    The mean weighs recent events more. The first layers of the encoder read the history's item vectors as input
    embeddings, causally. As `up` starts at zero, an untrained tower recommends by text similarity, and training learns
    a correction of that.
    """

    def __init__(self, config: ModelConfig, encoder: Encoder, generator: torch.Generator) -> None:
        super().__init__()
        self.encoder = load_frozen_layers(config, encoder, generator)
        self.width = self.encoder.config.hidden_size
        self.recency = config.recency
        inject_lora(self.encoder, config.lora_targets, config.lora_rank, config.lora_alpha, generator)
        self.down = kaiming_uniform((config.user_rank, self.width), generator)
        self.up = nn.Parameter(torch.zeros(1, self.width, config.user_rank))

    def forward(self, vectors: Tensor, mask: Tensor, dropout_mask: Tensor | None = None) -> Tensor:
        """Compute the user vector after each event: (C·B, L, E), (C·B, L) → (C·B, L, E).

        `dropout_mask` (C, B, L, D), if any, multiplies the hidden states that the head reads.
        """
        clients = self.up.shape[0]
        hidden = self._encode_history(vectors, mask).reshape(clients, -1, self.width)  # (C, B·L, D)
        hidden = hidden if dropout_mask is None else hidden * dropout_mask.view_as(hidden)
        learned = client_linear(client_linear(hidden, self.down), self.up)  # (C, B·L, E)
        mean = decayed_mean(vectors, mask, self.recency)
        return F.normalize(mean + learned.view_as(mean), dim=-1)

    def _encode_history(self, vectors: Tensor, mask: Tensor) -> Tensor:
        attention_mask = causal_mask(mask).unsqueeze(1)
        return self.encoder(
            inputs_embeds=vectors, attention_mask=attention_mask, position_ids=position_ids(mask)
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

    On a CPU it runs in float32 at least: its backward pass in bfloat16 takes five times as long there.
    """
    if query.device.type == "cpu":
        query, key, value = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (query, key, value))
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(query, key, value, mask, scale=scaling).transpose(1, 2), None


def load_frozen_layers(config: ModelConfig, encoder: Encoder, generator: torch.Generator) -> "PreTrainedModel":
    """Load the encoder's first layers, with their pretrained weights or with random ones.

    Raises `InputError` if the encoder is not a BERT model that the config fits.
    """
    from transformers import AttentionInterface, AutoConfig, AutoModel

    AttentionInterface.register(attention.__name__, attention)

    with quiet_loading():
        bert: Any = AutoConfig.from_pretrained(encoder.folder)
        _check_architecture(config, encoder, bert)
        model = AutoModel.from_pretrained(
            encoder.folder,
            num_hidden_layers=config.layers,
            add_pooling_layer=False,
            attn_implementation=attention.__name__,
        )
    if config.user_encoder_init == "random":
        _reinitialise_weights(model, bert.initializer_range, generator)
    return model.eval().requires_grad_(False)


def _check_architecture(config: ModelConfig, encoder: Encoder, bert: Any) -> None:
    """Raise `InputError` if the user tower cannot be built from an encoder with the transformers config `bert`."""
    if bert.model_type != "bert":
        raise InputError(f"encoder {encoder.name!r} is a {bert.model_type!r} model; the user tower needs BERT")
    if bert.hidden_act not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise InputError(f"encoder {encoder.name!r}: hidden_act = {bert.hidden_act!r} is none of {known}")
    if not 1 <= config.layers <= bert.num_hidden_layers:
        raise InputError(f"layers = {config.layers}; {encoder.name} has 1 to {bert.num_hidden_layers}")
    if config.history > bert.max_position_embeddings:
        raise InputError(f"history = {config.history}; {encoder.name} reads {bert.max_position_embeddings}")


def _reinitialise_weights(module: nn.Module, std: float, generator: torch.Generator) -> None:
    """Replace all weights by BERT's initial ones: normal with standard deviation `std`, zero biases, unit norms.

    Devlin et al. 2018, arXiv:1810.04805; the published code's `initializer_range` is 0.02.
    """
    for layer in module.modules():
        if isinstance(layer, nn.LayerNorm):
            nn.init.ones_(layer.weight)
        elif isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=std, generator=generator)
        if isinstance(layer, nn.LayerNorm | nn.Linear):
            nn.init.zeros_(layer.bias)
