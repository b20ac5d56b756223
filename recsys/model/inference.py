"""Both towers as they were trained, to answer with: plain torch, the low-rank pairs merged into the frozen weights.

Training puts the pairs of many clients into transformers' own modules. Answering has one adapter and asks for the last
event alone, so the last layer here reads one place of each history; and it starts without transformers, whose import
takes longer than all the rest.
"""

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from fedrec.data.errors import InputError
from fedrec.recsys.embeddings import WEIGHTS, Encoder
from fedrec.recsys.model.lora import Adapter, merged
from fedrec.recsys.model.two_tower import (
    ACTIVATIONS,
    ItemTower,
    Model,
    ModelConfig,
    causal_mask,
    decayed_mean,
    position_ids,
)

PLACES, KIND = "embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight"
LAYER = (
    *(f"attention.self.{name}" for name in ("query", "key", "value")),
    *("attention.output.dense", "attention.output.LayerNorm"),
    *("intermediate.dense", "output.dense", "output.LayerNorm"),
)
"""The parts of a layer of BERT (Devlin et al. 2018, arXiv:1810.04805), each a weight and a bias."""

PASS = 8
"""Histories of a pass at most. Every product over their last places has so many rows, filled up with zeros, because
libraries add up a product of one row in another order than one of eight. So, within one thread, a history gets the same
vector, to the bit, in any pass."""


class InferenceModel:
    """Nothing of it changes, so threads may share it. Its vectors differ from `Model`'s by rounding alone."""

    def __init__(self, config: ModelConfig, encoder: Encoder, adapter: Adapter, seed: int) -> None:
        described = encoder.described
        self.length = config.history  # most recent events that it reads
        self._layers, self._recency = config.layers, config.recency
        self._heads, self._epsilon = described["num_attention_heads"], described["layer_norm_eps"]
        self._activation = ACTIVATIONS[described["hidden_act"]]
        if config.history > described["max_position_embeddings"]:
            raise InputError(f"history = {config.history}; {encoder.name} reads {described['max_position_embeddings']}")
        weights = merged(_frozen(config, encoder, seed), adapter, config.lora_alpha / config.lora_rank)
        for layer in range(config.layers):  # one product in place of three
            for kind in ("weight", "bias"):
                parts = [weights.pop(f"encoder.layer.{layer}.{name}.{kind}") for name in LAYER[:3]]
                weights[f"encoder.layer.{layer}.attention.self.{kind}"] = torch.cat(parts)
        self._weights = weights
        self._down, self._up = adapter["user.down"], adapter["user.up"]
        self._item = ItemTower(config, len(self._up), torch.Generator())
        self._item.load_state_dict({name: adapter[f"item.{name}"].unsqueeze(0) for name in ("down", "up")})

    @torch.inference_mode()
    def item_vectors(self, embeddings: Tensor) -> Tensor:
        """Unit item vectors of text embeddings: (n, E) → (n, E)."""
        return self._item(embeddings.unsqueeze(0))[0]

    @torch.inference_mode()
    def user_vectors(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Unit user vectors after the last event of right-aligned histories: (B, L, E), (B, L) → (B, E)."""
        passes = zip(vectors.split(PASS), mask.split(PASS), strict=True)
        return torch.cat([self._user_vectors(*histories) for histories in passes])

    def _user_vectors(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """The same of one pass of at most `PASS` histories."""
        count = len(vectors)
        if mask.shape[1] < PASS:  # histories so short that one alone has fewer rows than a product of eight
            vectors, mask = _filled(vectors), _filled(mask)
        learned = F.linear(F.linear(self._read(vectors, mask), self._down), self._up)[: len(vectors)]  # (B, E)
        return F.normalize(decayed_mean(vectors, mask, self._recency, last=1)[:, 0] + learned, dim=-1)[:count]

    def _read(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """What the encoder makes of the last events of a pass, and of the rows that fill it up: (PASS, D)."""
        states = vectors + F.embedding(position_ids(mask), self._weights[PLACES]) + self._weights[KIND][0]
        states, may = self._normed(states, "embeddings.LayerNorm"), causal_mask(mask)  # (B, L, D), (B, L, L)
        *before, last = (f"encoder.layer.{layer}" for layer in range(self._layers))
        for layer in before:
            states = self._after(layer, states, self._attention(layer, states, may))
        return self._after(last, _filled(states[:, -1]), self._last_attention(last, states, may[:, -1]))

    def _attention(self, layer: str, states: Tensor, may: Tensor) -> Tensor:
        """What each place reads of those that it may: (B, L, D), (B, L, L) → (B, L, D)."""
        parts = self._linear(states, f"{layer}.attention.self").chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self._heads, -1)).transpose(1, 2) for part in parts)  # (B, H, L, d)
        return F.scaled_dot_product_attention(query, key, value, may.unsqueeze(1)).transpose(1, 2).flatten(-2)

    def _last_attention(self, layer: str, states: Tensor, may: Tensor) -> Tensor:
        """What the last place reads of those that it may: (B, L, D), (B, L) → (PASS, D).

        One place asks, so no keys and values are made of the others: W_k moves over to the query, W_v to what is read.
        A key's bias is the same for all places, and softmax does not see it.
        """
        weight, bias = (self._weights[f"{layer}.attention.self.{kind}"] for kind in ("weight", "bias"))
        to_query, to_key, to_value = weight.unflatten(0, (3, self._heads, -1))  # (H, d, D) each
        query_bias, _, value_bias = bias.unflatten(0, (3, self._heads, -1))  # (H, d)
        query = torch.einsum("bx,hdx->bhd", _filled(states[:, -1]), to_query) + query_bias
        asked = torch.einsum("bhd,hdx->bhx", query, to_key)[: len(states)] / query.shape[-1] ** 0.5
        scores = (asked @ states.transpose(1, 2)).masked_fill(~may.unsqueeze(1), -torch.inf)  # (B, H, L)
        read = _filled(scores.softmax(-1) @ states)  # (PASS, H, D)
        return (torch.einsum("bhx,hdx->bhd", read, to_value) + value_bias).flatten(1)

    def _after(self, layer: str, states: Tensor, read: Tensor) -> Tensor:
        """What a layer makes of states and of what they read, place by place: (…, D) twice → (…, D)."""
        read = self._linear(read, f"{layer}.attention.output.dense")
        states = self._normed(states + read, f"{layer}.attention.output.LayerNorm")
        inner = self._activation(self._linear(states, f"{layer}.intermediate.dense"))
        return self._normed(states + self._linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _normed(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, self._epsilon)


def _filled(rows: Tensor) -> Tensor:
    """Rows of a pass and zeros below them: (B, …) → (PASS, …)."""
    return torch.cat([rows, rows.new_zeros(PASS - len(rows), *rows.shape[1:])])


def _frozen(config: ModelConfig, encoder: Encoder, seed: int) -> dict[str, Tensor]:
    """The encoder's weights by BERT's names: from the file; where drawn, or of older names, from transformers."""
    parts = ["embeddings.LayerNorm", *(f"encoder.layer.{n}.{part}" for n in range(config.layers) for part in LAYER)]
    names = [PLACES, KIND, *(f"{part}.{kind}" for part in parts for kind in ("weight", "bias"))]
    if config.user_encoder_init == "pretrained":
        with safe_open(encoder.folder / WEIGHTS, framework="pt") as file:
            keys = {key.removeprefix("bert."): key for key in file.keys()}  # noqa: SIM118 - it is no mapping
            if keys.keys() >= set(names):
                return {name: file.get_tensor(keys[name]).float() for name in names}
    state = Model(config, encoder, seed).user.encoder.state_dict()
    found = {name.replace(".base.", "."): tensor for name, tensor in state.items()}
    return {name: found[name] for name in names}
