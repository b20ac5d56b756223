"""The two-tower model: both towers as one module, run with one adapter per client."""

import copy
import threading
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.hardware import parallel_map
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.model.item_tower import Candidates, ItemTower
from fedrec.recsys.model.lora import Adapter, Stack, stacked
from fedrec.recsys.model.user_tower import UserTower


class TwoTowerModel(nn.Module):
    """Both towers. The parameters that require a gradient are the adapter; all others are frozen and never sent.

    `encoder` is the user tower's. `seed` determines the adapter's initial values and, if the user encoder is random,
    the frozen weights. `item_width` is E; without it, item vectors are as wide as the encoder's hidden states.
    """

    def __init__(self, config: ModelConfig, encoder: Encoder, seed: int = 0, item_width: int | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)  # always the CPU's: the same numbers on any device
        self.config = config
        self.user = UserTower(config, encoder, generator, item_width)
        self.item = ItemTower(config, self.user.item_width, generator)

    def adapter(self) -> Adapter:
        """Return a copy of the initial adapter, without the client axis, on the CPU."""
        return {name: p.detach()[0].to("cpu", copy=True) for name, p in self.named_parameters() if p.requires_grad}

    def forward(
        self, events: Tensor, read: Tensor, items: Tensor, candidates: Candidates, dropout_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Score the next event and each client's candidates, after each event but the last.

        events: (C, B, L+1, E) text embeddings; read: (C, B, L+1) True for events that the user tower reads;
        items: (N, E) text embeddings, and K candidates of each client among them; dropout_mask: (C, B, L, D).
        Returns the next event's scores (C, B, L) and the candidates' (C, B, L, K).
        """
        clients, examples, length, width = events.shape
        vectors = self.item(events.reshape(clients, -1, width)).view(-1, length, width)  # (C·B, L+1, E)
        users = self.user(vectors[:, :-1], read.flatten(0, 1)[:, :-1], dropout_mask)  # (C·B, L, E)
        following = (users * vectors[:, 1:]).sum(-1)  # (C·B, L)
        others = self.item.candidate_scores(users.reshape(clients, -1, width), items, candidates)  # (C, B·L, K)
        shape = (clients, examples, length - 1)
        return (
            following.view(shape) / self.config.temperature,
            others.view(*shape, -1) / self.config.temperature,
        )

    def functional_forward(self, stack: Stack, tower: str, *inputs: Any) -> Any:
        """Run the tower `item` or `user`, or the whole model (""), with the parameters of a stack in place of its own.

        `functional_call` swaps the parameters inside the module during the call, so threads must not share a module:
        each runs its own copy of it, around the same tensors.
        """
        parameters = {name.removeprefix(f"{tower}."): t for name, t in stack.items() if name.startswith(tower)}
        return functional_call(_thread_local_copy(self).get_submodule(tower), parameters, inputs)

    def item_vectors(self, adapter: Adapter, embeddings: Tensor, block: int = 8192) -> Tensor:
        """Compute unit item vectors of text embeddings, in blocks: (n, E) → (n, E)."""
        stack = stacked(adapter, 1)

        @torch.inference_mode()
        def block_vectors(part: Tensor) -> Tensor:
            return self.functional_forward(stack, "item", part.unsqueeze(0))[0]

        return torch.cat(list(parallel_map(block_vectors, embeddings.split(block))))

    @torch.inference_mode()
    def user_vectors(self, adapter: Adapter, vectors: Tensor, mask: Tensor) -> Tensor:
        """Compute unit user vectors after the last event of right-aligned histories: (B, L, E), (B, L) → (B, E)."""
        return self.functional_forward(stacked(adapter, 1), "user", vectors, mask)[:, -1]


_COPIES = threading.local()
"""The copies of the calling thread: `_COPIES.by_model` maps a model to this thread's copy, as long as it exists."""


def _thread_local_copy(model: TwoTowerModel) -> TwoTowerModel:
    """Return this thread's copy of the model: new modules around the same tensors."""
    if not hasattr(_COPIES, "by_model"):
        _COPIES.by_model = WeakKeyDictionary[TwoTowerModel, TwoTowerModel]()
    if model not in _COPIES.by_model:
        # deepcopy takes an object from its memo instead of copying it: with the tensors there, only modules are copied
        memo = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        _COPIES.by_model[model] = copy.deepcopy(model, memo)
    return _COPIES.by_model[model]
