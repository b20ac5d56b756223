"""The item tower behind its text encoder, as a model of sentence-transformers: text in, item vector out."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fedrec.data.errors import InputError
from fedrec.data.storage.atomic_files import replaced_folder
from fedrec.data.storage.contents import refuse_occupied
from fedrec.recsys.encoders.text import Encoder, quiet_loading
from fedrec.recsys.model.item_tower import GELU_INPUT_SCALE
from fedrec.recsys.recommender import Recommender

if TYPE_CHECKING:
    from sentence_transformers.base.modules import Dense

DOCUMENT = "document"
"""The name that sentence-transformers gives the prompt before an item's text."""


def save_item_tower(recommender: Recommender, out: Path) -> None:
    """Write a folder of which `SentenceTransformer(out).encode(texts)` gives the item vectors of texts.

    It needs sentence-transformers alone to be opened. The model's prompt for documents, or a setting `prompt`, stands
    before texts; `encode_query` embeds questions. Raises `InputError` if `out` is occupied, or if the items' encoder is
    not one text encoder.
    """
    refuse_occupied(out)
    encoder = recommender.encoder
    if not isinstance(encoder, Encoder):
        raise InputError(f"encoder {encoder.name!r} is not one text encoder: its item tower does not read texts alone")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize

    tower = item_tower_layers(recommender.adapter, recommender.model_config.item_tower == "gelu")
    text_model = copy.deepcopy(encoder.model)  # whose modules sentence-transformers moves and renames
    prompts = {name: encoder.prompt or prompt or "" for name, prompt in text_model.prompts.items()}
    with quiet_loading(), replaced_folder(out, refuse_occupied) as folder:
        modules = [*text_model, Normalize(), *tower, Normalize()]
        whole = SentenceTransformer(modules=modules, device="cpu", prompts=prompts, default_prompt_name=DOCUMENT)
        whole.save(str(folder), create_model_card=False)


def item_tower_layers(adapter: dict[str, Tensor], gelu: bool) -> "list[Dense]":
    """Return e + up · gelu(4 · down · e) as layers without a residual: of the adapter's `item.down` and `item.up`.

    Since gelu(x) − gelu(−x) = x, the first layer's gelu also lets e itself through, as the difference of two parts.
    """
    down, up = GELU_INPUT_SCALE * adapter["item.down"], adapter["item.up"]
    itself = torch.eye(len(up))
    if not gelu:
        return [_dense(itself + up @ down, nn.Identity())]
    return [
        _dense(torch.cat([down, itself, -itself]), nn.GELU()),
        _dense(torch.cat([up, itself, -itself], dim=1), nn.Identity()),
    ]


def _dense(weight: Tensor, activation: nn.Module) -> "Dense":
    from sentence_transformers.base.modules import Dense

    outputs, inputs = weight.shape
    return Dense(inputs, outputs, bias=False, activation_function=activation, init_weight=weight.contiguous())
