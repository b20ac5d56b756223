"""The trained towers for inference: plain torch, with the low-rank pairs merged into the frozen weights.

Training puts the pairs of many clients into transformers' own modules. Inference has one adapter and needs the user
vector after the last event only, so the last layer computes one place of each history. It does not import
transformers, whose import takes longer than everything else at start.

Shapes: B histories of a pass, L events of a history, E embedding, D hidden states, H heads of width d.
"""

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from fedrec.data.errors import InputError
from fedrec.recsys.embeddings import WEIGHTS, Encoder
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.model.item_tower import ItemTower
from fedrec.recsys.model.lora import Adapter, merge_adapter
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.model.user_tower import ACTIVATIONS, causal_mask, decayed_mean, position_ids

POSITIONS, TOKEN_TYPES = "embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight"
QUERY_KEY_VALUE = tuple(f"attention.self.{name}" for name in ("query", "key", "value"))
LAYER_PARTS = (
    *QUERY_KEY_VALUE,
    *("attention.output.dense", "attention.output.LayerNorm"),
    *("intermediate.dense", "output.dense", "output.LayerNorm"),
)
"""The parts of a layer of BERT (Devlin et al. 2018, arXiv:1810.04805). Each has a weight and a bias."""

PASS_SIZE = 8
"""Maximum histories of a pass. Every product over their last places has so many rows, padded with zeros, because
libraries add up a product of one row in another order than one of eight. So, within one thread, a history gets the same
vector, to the bit, in any pass."""


class InferenceModel:
    """Both towers with one adapter. It is immutable, so threads may share it.

    Its vectors differ from those of `TwoTowerModel` by rounding alone. Raises `InputError` if the encoder does not
    read histories of the config's length.
    """

    def __init__(self, config: ModelConfig, encoder: Encoder, adapter: Adapter, seed: int) -> None:
        bert = encoder.architecture
        self.length = config.history  # most recent events that it reads
        self._layers, self._recency = config.layers, config.recency
        self._heads, self._epsilon = bert["num_attention_heads"], bert["layer_norm_eps"]
        self._activation = ACTIVATIONS[bert["hidden_act"]]
        if config.history > bert["max_position_embeddings"]:
            raise InputError(f"history = {config.history}; {encoder.name} reads {bert['max_position_embeddings']}")
        weights = merge_adapter(_frozen_weights(config, encoder, seed), adapter, config.lora_alpha / config.lora_rank)
        for layer in range(config.layers):  # one product in place of three
            for kind in ("weight", "bias"):
                parts = [weights.pop(f"encoder.layer.{layer}.{name}.{kind}") for name in QUERY_KEY_VALUE]
                weights[f"encoder.layer.{layer}.attention.self.{kind}"] = torch.cat(parts)
        self._weights = weights
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
            vectors, mask = _pad_pass(vectors), _pad_pass(mask)
        learned = F.linear(F.linear(self._encode_last(vectors, mask), self._down), self._up)[: len(vectors)]  # (B, E)
        return F.normalize(decayed_mean(vectors, mask, self._recency, last=1)[:, 0] + learned, dim=-1)[:count]

    def traceable_user_vectors(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Compute what `user_vectors` does, up to rounding, by the same operations for any B and L.

        A tracer that writes the model in another format can follow it. (B, L, E), (B, L) → (B, E).
        """
        states, attention_mask = self._embed(vectors, mask), causal_mask(mask)
        for layer in (f"encoder.layer.{number}" for number in range(self._layers)):
            states = self._feed_forward(layer, states, self._attention(layer, states, attention_mask))
        learned = F.linear(F.linear(states[:, -1], self._down), self._up)  # (B, E)
        ages = mask.shape[1] - 1 - torch.arange(mask.shape[1])
        weights = self._recency**ages * mask  # (B, L), as `decayed_mean` weighs the events before the last place
        mean = (weights.unsqueeze(1) @ vectors).squeeze(1) / weights.sum(-1, keepdim=True).clamp(min=1)
        return F.normalize(mean + learned, dim=-1)

    def _embed(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Compute the input of the encoder's first layer: (B, L, E), (B, L) → (B, L, D)."""
        states = vectors + F.embedding(position_ids(mask), self._weights[POSITIONS]) + self._weights[TOKEN_TYPES][0]
        return self._layer_norm(states, "embeddings.LayerNorm")

    def _encode_last(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Compute the encoder's hidden states of the last events, padded to a whole pass: (PASS_SIZE, D)."""
        states, attention_mask = self._embed(vectors, mask), causal_mask(mask)  # (B, L, D), (B, L, L)
        *lower, last = (f"encoder.layer.{layer}" for layer in range(self._layers))
        for layer in lower:
            states = self._feed_forward(layer, states, self._attention(layer, states, attention_mask))
        attended = self._last_attention(last, states, attention_mask[:, -1])
        return self._feed_forward(last, _pad_pass(states[:, -1]), attended)

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
        query = torch.einsum("bx,hdx->bhd", _pad_pass(states[:, -1]), query_weight) + query_bias
        key_query = torch.einsum("bhd,hdx->bhx", query, key_weight)[: len(states)] / query.shape[-1] ** 0.5  # W_kᵀ q
        scores = (key_query @ states.transpose(1, 2)).masked_fill(~mask.unsqueeze(1), -torch.inf)  # (B, H, L)
        mean_state = _pad_pass(scores.softmax(-1) @ states)  # (PASS_SIZE, H, D): Σ p x
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


def _pad_pass(rows: Tensor) -> Tensor:
    """Append rows of zeros up to a whole pass: (B, …) → (PASS_SIZE, …)."""
    return torch.cat([rows, rows.new_zeros(PASS_SIZE - len(rows), *rows.shape[1:])])


def _frozen_weights(config: ModelConfig, encoder: Encoder, seed: int) -> dict[str, Tensor]:
    """Return the encoder's weights by BERT's names.

    They are read from the encoder's file. If they are random, or the file has other names, transformers supplies them.
    """
    parts = [f"encoder.layer.{layer}.{part}" for layer in range(config.layers) for part in LAYER_PARTS]
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
