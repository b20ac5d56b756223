"""The layers of a trained user tower of BERT's architecture, for inference: plain torch, with merged weights.

The last layer computes one place of each history. It does not import transformers, whose import takes longer than
everything else at start.

Shapes: B histories of a pass, L events of a history, E embedding, D hidden states, H heads of width d.
"""

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from fedrec.data.errors import InputError
from fedrec.recsys.encoders.find import WEIGHTS
from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.model.lora import Adapter, merge_adapter
from fedrec.recsys.model.passes import pad_pass
from fedrec.recsys.model.projection import input_projection, project
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.model.user_tower import ACTIVATIONS, causal_mask, position_ids

POSITIONS, TOKEN_TYPES = "embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight"
QUERY_KEY_VALUE = tuple(f"attention.self.{name}" for name in ("query", "key", "value"))
LAYER_PARTS = (
    *QUERY_KEY_VALUE,
    *("attention.output.dense", "attention.output.LayerNorm"),
    *("intermediate.dense", "output.dense", "output.LayerNorm"),
)
"""The parts of a layer of BERT (Devlin et al. 2018, arXiv:1810.04805). Each has a weight and a bias."""


class BertLayers:
    """A BERT's first layers with one adapter merged into them. They are immutable, so threads may share them."""

    def __init__(self, config: ModelConfig, encoder: Encoder, adapter: Adapter, seed: int) -> None:
        bert = encoder.architecture
        self._layers = config.layers
        self._heads, self._epsilon = bert["num_attention_heads"], bert["layer_norm_eps"]
        self._activation = ACTIVATIONS[bert["hidden_act"]]
        if config.history > bert["max_position_embeddings"]:
            raise InputError(f"history = {config.history}; {encoder.name} reads {bert['max_position_embeddings']}")
        weights = merge_adapter(_frozen_weights(config, encoder, seed), adapter, config.lora_alpha / config.lora_rank)
        for layer in range(config.layers):  # one product in place of three
            for kind in ("weight", "bias"):
                parts = [weights.pop(f"{_layer_name(layer)}.{name}.{kind}") for name in QUERY_KEY_VALUE]
                weights[f"{_layer_name(layer)}.attention.self.{kind}"] = torch.cat(parts)
        self._weights, hidden_width = weights, weights[POSITIONS].shape[1]
        if adapter["user.down"].shape[1] != hidden_width:
            raise RuntimeError(
                f"user.down reads {adapter['user.down'].shape[1]} numbers, and the layers have {hidden_width}"
            )
        self._projection = input_projection(len(adapter["user.up"]), hidden_width)

    def _embed(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Compute the input of the first layer: (B, L, E), (B, L) → (B, L, D)."""
        states = project(vectors, self._projection) + F.embedding(position_ids(mask), self._weights[POSITIONS])
        return self._layer_norm(states + self._weights[TOKEN_TYPES][0], "embeddings.LayerNorm")

    def last_states(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Compute the hidden states of the last events, padded to a whole pass: (B, L, E), (B, L) → (PASS_SIZE, D)."""
        attention_mask, last = causal_mask(mask), self._layers - 1  # (B, L, L)
        states = self._states(vectors, mask, attention_mask, last)
        attended = self._last_attention(_layer_name(last), states, attention_mask[:, -1])
        return self._feed_forward(_layer_name(last), pad_pass(states[:, -1]), attended)

    def traceable_states(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Compute the hidden states of the last events by the same operations for any B and L: → (B, D)."""
        return self._states(vectors, mask, causal_mask(mask), self._layers)[:, -1]

    def _states(self, vectors: Tensor, mask: Tensor, attention_mask: Tensor, layers: int) -> Tensor:
        """Compute the hidden states behind so many layers at every place: (B, L, E), (B, L), (B, L, L) → (B, L, D)."""
        states = self._embed(vectors, mask)
        for layer in map(_layer_name, range(layers)):
            states = self._feed_forward(layer, states, self._attention(layer, states, attention_mask))
        return states

    def _attention(self, layer: str, states: Tensor, mask: Tensor) -> Tensor:
        """Compute a layer's attention at every place: (B, L, D), (B, L, L) → (B, L, D)."""
        parts = self._linear(states, f"{layer}.attention.self").chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self._heads, -1)).transpose(1, 2) for part in parts)  # (B, H, L, d)
        return F.scaled_dot_product_attention(query, key, value, mask.unsqueeze(1)).transpose(1, 2).flatten(-2)

    def _last_attention(self, layer: str, states: Tensor, mask: Tensor) -> Tensor:
        """Compute a layer's attention at the last place only: (B, L, D), (B, L) → (PASS_SIZE, D).

        For one query q and states x, no keys and values are computed: q · (W_k x + b_k) = (W_kᵀ q) · x + q · b_k, of
        which softmax ignores q · b_k, the same at every place; and Σ p (W_v x + b_v) = W_v Σ p x + b_v, as Σ p = 1.
        """
        weight, bias = (self._weights[f"{layer}.attention.self.{kind}"] for kind in ("weight", "bias"))
        query_weight, key_weight, value_weight = weight.unflatten(0, (3, self._heads, -1))  # (H, d, D) each
        query_bias, _, value_bias = bias.unflatten(0, (3, self._heads, -1))  # (H, d)
        query = torch.einsum("bx,hdx->bhd", pad_pass(states[:, -1]), query_weight) + query_bias
        key_query = torch.einsum("bhd,hdx->bhx", query, key_weight)[: len(states)] / query.shape[-1] ** 0.5  # W_kᵀ q
        scores = (key_query @ states.transpose(1, 2)).masked_fill(~mask.unsqueeze(1), -torch.inf)  # (B, H, L)
        mean_state = pad_pass(scores.softmax(-1) @ states)  # (PASS_SIZE, H, D): Σ p x
        return (torch.einsum("bhx,hdx->bhd", mean_state, value_weight) + value_bias).flatten(1)

    def _feed_forward(self, layer: str, states: Tensor, attended: Tensor) -> Tensor:
        """Compute a layer's output from its input and its attention, place by place: (…, D) twice → (…, D)."""
        attended = self._linear(attended, f"{layer}.attention.output.dense")
        states = self._layer_norm(states + attended, f"{layer}.attention.output.LayerNorm")
        inner = self._activation(self._linear(states, f"{layer}.intermediate.dense"))
        return self._layer_norm(states + self._linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _layer_norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, self._epsilon)


def _layer_name(number: int) -> str:
    return f"encoder.layer.{number}"


def _frozen_weights(config: ModelConfig, encoder: Encoder, seed: int) -> dict[str, Tensor]:
    """Return the encoder's weights by BERT's names.

    They are read from the encoder's file. If they are random, or the file has other names, transformers supplies them.
    """
    parts = [f"{_layer_name(layer)}.{part}" for layer in range(config.layers) for part in LAYER_PARTS]
    parts = ["embeddings.LayerNorm", *parts]
    names = [POSITIONS, TOKEN_TYPES, *(f"{part}.{kind}" for part in parts for kind in ("weight", "bias"))]
    if config.user_encoder_init == "pretrained":
        with safe_open(encoder.folder / WEIGHTS, framework="pt") as file:
            keys = {key.removeprefix("bert."): key for key in file.keys()}  # noqa: SIM118 - it is no mapping
            if keys.keys() >= set(names):
                return {name: file.get_tensor(keys[name]).float() for name in names}
    state = TwoTowerModel(config, encoder, seed).user.encoder.state_dict()
    by_name = {name.replace(".base.", "."): tensor for name, tensor in state.items()}
    return {name: by_name[name] for name in names}
