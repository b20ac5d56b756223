"""The transformers whose layers the user tower can drive: how each gets the order of events, and what it may read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedrec.data.errors import InputError


def _as_booleans(mask: Tensor) -> Tensor:
    return mask.unsqueeze(1)  # (B, 1, L, L)


def _by_kind_of_layer(mask: Tensor) -> dict[str, Tensor]:
    """Give layers with a local window the same mask: `Architecture.longest` lets no history be longer than a window."""
    return dict.fromkeys(("full_attention", "sliding_attention"), mask.unsqueeze(1))


def _as_scores(mask: Tensor) -> Tensor:
    scores = torch.zeros(mask.shape, device=mask.device)  # to be added to the attention scores
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).unsqueeze(1)


def _window(config: Any) -> int | None:
    """Return the number of events that a layer with a local window reads; None if no layer has one."""
    local = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    return int(config.sliding_window) if local else None


@dataclass(frozen=True)
class Architecture:
    """How to drive the layers of one type of transformer by vectors in place of words, causally."""

    mask: Callable[[Tensor], Any] = _as_booleans  # (B, L, L) booleans → what the model takes as its mask
    offset: Callable[[Any], int] = lambda config: 0  # config → the position of the first event
    pooled: bool = True  # the model has a pooling layer on top, which is left out
    own_attention: bool = False  # the model computes attention by itself

    def longest(self, config: Any) -> int:
        """Return the number of events of the longest history that a model with this config reads."""
        positions = int(config.max_position_embeddings) - self.offset(config)
        return min(positions, _window(config) or positions)


_BEHIND_PADDING = Architecture(offset=lambda config: config.pad_token_id + 1)
_ROTARY = Architecture(mask=_by_kind_of_layer, pooled=False)

ARCHITECTURES = {
    "bert": Architecture(),
    "roberta": _BEHIND_PADDING,
    "xlm-roberta": _BEHIND_PADDING,
    "mpnet": Architecture(mask=_as_scores, offset=lambda config: 2, own_attention=True),
    "modernbert": _ROTARY,
    "qwen2": _ROTARY,
    "qwen3": _ROTARY,
}
"""The supported architectures, by the `model_type` of their config: BERT and MiniLM, RoBERTa, XLM-R (E5, BGE-M3),
MPNet, ModernBERT, Qwen2 and Qwen3."""


def architecture_of(name: str, config: Any) -> Architecture:
    """Return how a model is driven. Raises `InputError`, which names what is supported, if it cannot be."""
    if config.model_type not in ARCHITECTURES:
        raise InputError(
            f"encoder {name!r} is a {config.model_type!r} model; the user tower reads the layers of "
            f"{', '.join(ARCHITECTURES)}: set user_encoder to one of these"
        )
    return ARCHITECTURES[config.model_type]
