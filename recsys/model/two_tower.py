"""The two towers: items from frozen text embeddings, users from a pretrained transformer that reads item vectors."""

import copy
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal
from weakref import WeakKeyDictionary

import torch
from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from fedrec.data.errors import InputError
from fedrec.recsys.embeddings import Encoder, quiet
from fedrec.recsys.hardware import parallel_map
from fedrec.recsys.model.lora import Adapter, Stack, inject, kaiming_uniform, stacked
from fedrec.recsys.model.per_client_ops import GELU_INPUT_SCALE, candidate_scores, client_linear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ACTIVATIONS = {"gelu": F.gelu, "gelu_new": partial(F.gelu, approximate="tanh"), "relu": F.relu, "silu": F.silu}
"""By the names of an encoder's config, those that it may have inside."""


@dataclass(frozen=True)
class ModelConfig:
    """What the model is. All who take part in a federation must agree on it."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    """The text encoder: an id on the Hugging Face hub, or a folder of its files. The default one reads English."""
    user_encoder_init: Literal["pretrained", "random"] = "pretrained"
    """Frozen weights of the user tower; random shows what the pretrained ones are worth."""
    layers: Annotated[int, Ge(1)] = 2
    """Layers of the encoder, from the bottom, in the user tower."""
    lora_rank: Annotated[int, Ge(1)] = 8
    """Rank of the LoRA matrices in the user tower."""
    lora_alpha: Annotated[float, Gt(0)] = 16.0
    """LoRA's change is scaled by this over the rank."""
    lora_targets: tuple[str, ...] = ("query", "value")
    """Last names of the linear layers that LoRA adapts, with commas between them."""
    item_tower: Literal["gelu", "linear"] = "gelu"
    """With or without a non-linearity inside the adapter of the items."""
    item_rank: Annotated[int, Ge(1)] = 64
    """Width of the item tower's adapter."""
    user_rank: Annotated[int, Ge(1)] = 32
    """Width of the head that turns the encoder's output into a user vector."""
    recency: Annotated[float, Gt(0), Le(1)] = 0.6
    """Weight of an event in a user's mean, against the one after it."""
    history: Annotated[int, Ge(1)] = 50
    """Most recent events that the user tower reads."""
    temperature: Annotated[float, Gt(0)] = 0.07
    """The loss compares cosines divided by it."""


class ItemTower(nn.Module):
    """Item vector = unit(e + up · gelu(4 · down · e)): the text embedding, bent by a low-rank adapter.

    The tower called linear does without the gelu.
    """

    def __init__(self, config: ModelConfig, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.curved = config.item_tower == "gelu"
        self.down = kaiming_uniform((config.item_rank, width), generator)
        self.up = nn.Parameter(torch.zeros(1, width, config.item_rank))

    def forward(self, e: Tensor) -> Tensor:  # (C, n, E) → (C, n, E)
        low = GELU_INPUT_SCALE * client_linear(e, self.down)
        return F.normalize(e + client_linear(F.gelu(low) if self.curved else low, self.up), dim=-1)

    def candidate_scores(self, u: Tensor, e: Tensor, rows: Tensor) -> Tensor:
        """u · forward(e[rows]) for unit vectors u and each client's rows: (C, M, E), (N, E), (C, K) → (C, M, K)."""
        return candidate_scores(u, e, rows, self.down, self.up, self.curved)


class UserTower(nn.Module):
    """User vector = unit(mean of the item vectors so far + up · down · h), h from the pretrained encoder.

    The mean weighs recent events more. The first layers of the encoder read the history's item vectors as input
    embeddings, causally. As `up` starts at zero, an untrained tower recommends by text neighbours, and training learns
    what to add to that.
    """

    def __init__(self, config: ModelConfig, encoder: Encoder, generator: torch.Generator) -> None:
        super().__init__()
        self.encoder = _frozen(config, encoder, generator)
        self.width = self.encoder.config.hidden_size
        self.recency = config.recency
        inject(self.encoder, config.lora_targets, config.lora_rank, config.lora_alpha, generator)
        self.down = kaiming_uniform((config.user_rank, self.width), generator)
        self.up = nn.Parameter(torch.zeros(1, self.width, config.user_rank))

    def forward(self, vectors: Tensor, mask: Tensor, kept: Tensor | None = None) -> Tensor:
        """(C·B, L, E), (C·B, L), factors of the states (C, B, L, D) → (C·B, L, E)."""
        clients = self.up.shape[0]
        hidden = self._read(vectors, mask).reshape(clients, -1, self.width)  # (C, B·L, D)
        hidden = hidden if kept is None else hidden * kept.view_as(hidden)
        learned = client_linear(client_linear(hidden, self.down), self.up)  # (C, B·L, E)
        mean = decayed_mean(vectors, mask, self.recency)
        return F.normalize(mean + learned.view_as(mean), dim=-1)

    def _read(self, vectors: Tensor, mask: Tensor) -> Tensor:
        may = causal_mask(mask).unsqueeze(1)
        return self.encoder(
            inputs_embeds=vectors, attention_mask=may, position_ids=position_ids(mask)
        ).last_hidden_state


def decayed_mean(vectors: Tensor, mask: Tensor, recency: float, last: int | None = None) -> Tensor:
    """Means of the vectors up to each of the last l, or of all, weighed by `recency` to the power of the events after.

    (B, L, E), (B, L) → (B, l, E).
    """
    length = mask.shape[-1]
    places = torch.arange(length, device=mask.device)
    ends = places[length - (last or length) :]
    ages = ends[:, None] - places
    weights = (recency**ages).tril(length - len(ends)) * mask.unsqueeze(1)  # (B, l, L)
    with torch.autocast(mask.device.type, enabled=False):
        return (weights / weights.sum(-1, keepdim=True).clamp(min=1)).to(vectors) @ vectors


def causal_mask(mask: Tensor) -> Tensor:
    """What each place of right-aligned histories may read: itself and the events before it. (B, L) → (B, L, L)."""
    length = mask.shape[-1]
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)  # padding reads itself: no empty softmax
    return (causal & mask.unsqueeze(1)) | itself


def position_ids(mask: Tensor) -> Tensor:
    """Each event's position, counted from the first event, so that padding moves nobody: (B, L) → (B, L)."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def attention(
    layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Attention for transformers: (B, H, L, d) thrice, mask (B, 1, L, L) → (B, L, H, d).

    On a processor in float32 at least: there its backward pass in bfloat16 takes five times as long.
    """
    if query.device.type == "cpu":
        query, key, value = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (query, key, value))
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(query, key, value, mask, scale=scaling).transpose(1, 2), None


def _frozen(config: ModelConfig, encoder: Encoder, generator: torch.Generator) -> "PreTrainedModel":
    """The encoder's first layers, with its own weights or with random ones in their place."""
    from transformers import AttentionInterface, AutoConfig, AutoModel

    AttentionInterface.register(attention.__name__, attention)

    with quiet():
        described: Any = AutoConfig.from_pretrained(encoder.folder)
        if described.model_type != "bert":
            raise InputError(f"encoder {encoder.name!r} is a {described.model_type!r} model; the user tower needs BERT")
        if described.hidden_act not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise InputError(f"encoder {encoder.name!r}: hidden_act = {described.hidden_act!r} is none of {known}")
        if not 1 <= config.layers <= described.num_hidden_layers:
            raise InputError(f"layers = {config.layers}; {encoder.name} has 1 to {described.num_hidden_layers}")
        if config.history > described.max_position_embeddings:
            raise InputError(f"history = {config.history}; {encoder.name} reads {described.max_position_embeddings}")
        model = AutoModel.from_pretrained(
            encoder.folder,
            num_hidden_layers=config.layers,
            add_pooling_layer=False,
            attn_implementation=attention.__name__,
        )
    if config.user_encoder_init == "random":
        _redraw(model, described.initializer_range, generator)
    return model.eval().requires_grad_(False)


def _redraw(module: nn.Module, std: float, generator: torch.Generator) -> None:
    """Draw all weights anew as BERT's begin: normal with that standard deviation, no biases, norms that do nothing.

    Devlin et al. 2018, arXiv:1810.04805; the published code's `initializer_range` is 0.02.
    """
    for layer in module.modules():
        if isinstance(layer, nn.LayerNorm):
            nn.init.ones_(layer.weight)
        elif isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=std, generator=generator)
        if isinstance(layer, nn.LayerNorm | nn.Linear):
            nn.init.zeros_(layer.bias)


class Model(nn.Module):
    """Both towers. The parameters that require a gradient are the adapter; the rest is frozen and never travels.

    From `seed` come the adapter's start and, where it is random, the frozen base.
    """

    def __init__(self, config: ModelConfig, encoder: Encoder, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)  # always of the processor: the same draws on any device
        self.config = config
        self.user = UserTower(config, encoder, generator)
        self.item = ItemTower(config, self.user.width, generator)

    def adapter(self) -> Adapter:
        """The adapter as it starts: a fresh copy without the client axis, on the processor, as all that travels."""
        return {name: p.detach()[0].to("cpu", copy=True) for name, p in self.named_parameters() if p.requires_grad}

    def forward(
        self, events: Tensor, read: Tensor, items: Tensor, rows: Tensor, kept: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores of the next event and of each client's candidates, after each event but the last.

        events: (C, B, L+1, E) text embeddings; read: (C, B, L+1) which of them the user tower reads; items: (N, E), of
        which rows: (C, K) are candidates; kept: (C, B, L, D) factors of what the user tower's head reads.
        Returns the next event's scores (C, B, L) and the candidates' (C, B, L, K).
        """
        clients, examples, length, width = events.shape
        vectors = self.item(events.reshape(clients, -1, width)).view(-1, length, width)  # (C·B, L+1, E)
        users = self.user(vectors[:, :-1], read.flatten(0, 1)[:, :-1], kept)  # (C·B, L, E)
        following = (users * vectors[:, 1:]).sum(-1)  # (C·B, L)
        others = self.item.candidate_scores(users.reshape(clients, -1, width), items, rows)  # (C, B·L, K)
        shape = (clients, examples, length - 1)
        return (
            following.view(shape) / self.config.temperature,
            others.view(*shape, -1) / self.config.temperature,
        )

    def under(self, stack: Stack, part: str, *inputs: Tensor | None) -> Any:
        """The model, or its part `item` or `user`, with the parameters of a stack in place of its own.

        They are swapped inside the modules, so each thread has modules of its own, around the same frozen weights.
        """
        own = {name.removeprefix(f"{part}."): t for name, t in stack.items() if name.startswith(part)}
        return functional_call(_thread_local_copy(self).get_submodule(part), own, inputs)

    def item_vectors(self, adapter: Adapter, embeddings: Tensor, block: int = 8192) -> Tensor:
        """Unit item vectors of text embeddings: (n, E) → (n, E), in blocks."""
        stack = stacked(adapter, 1)

        @torch.inference_mode()
        def vectors(part: Tensor) -> Tensor:
            return self.under(stack, "item", part.unsqueeze(0))[0]

        return torch.cat(list(parallel_map(vectors, embeddings.split(block))))

    @torch.inference_mode()
    def user_vectors(self, adapter: Adapter, vectors: Tensor, mask: Tensor) -> Tensor:
        """Unit user vectors after the last event of right-aligned histories: (B, L, E), (B, L) → (B, E)."""
        return self.under(stacked(adapter, 1), "user", vectors, mask)[:, -1]


_REPLICAS = threading.local()


def _thread_local_copy(model: Model) -> Model:
    """This thread's copy of the modules; all tensors are shared."""
    if not hasattr(_REPLICAS, "of"):
        _REPLICAS.of = WeakKeyDictionary[Model, Model]()
    if model not in _REPLICAS.of:
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        _REPLICAS.of[model] = copy.deepcopy(model, shared)
    return _REPLICAS.of[model]
