"""The settings of the two-tower model."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict


@dataclass(frozen=True)
class ModelConfig:
    """The model's architecture. All nodes of a federation must agree on it."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    """The encoder of the items: an id on the Hugging Face hub, or a folder of its files; several with commas between
    them. `images:MODEL` reads pictures, `vectors:NAME` are your own vectors. The default one reads English texts."""
    prompt: str = ""
    """Text before every text that an encoder reads, such as "query: "; empty: the encoder's own prompts."""
    user_encoder: str = ""
    """The pretrained model whose first layers are in the user tower; empty: the first text encoder of `encoder`."""
    user_encoder_init: Literal["pretrained", "random"] = "pretrained"
    """Frozen weights of the user tower; random shows what the pretrained ones are worth."""
    layers: Annotated[int, Ge(1)] = 2
    """Layers of the user tower's encoder, from the bottom."""
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
