"""Tiny, randomly initialised models of every architecture, saved as sentence-transformers has them on the hub."""

import json
from pathlib import Path
from typing import Any

import torch

from fedrec.recsys.encoders.text import quiet_loading

WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("the", "bread", "soup", "butter", "pasta", "cake", "oven", "kitchen", "chef", "salad"),
    *("rocket", "moon", "orbit", "comet", "galaxy", "star", "cooking", "space"),
)
"""The vocabulary: as it stands, the padding is 0."""

SMALL = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 4}

KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"pad_token_id": 1},
    "xlm-roberta": {"pad_token_id": 1},
    "mpnet": {"pad_token_id": 1},
    "modernbert": {"local_attention": 32, "global_attn_every_n_layers": 3},
    "qwen2": GROUPED,
    "qwen3": GROUPED,
}
"""The `model_type` of each text model, and what its config has beside `SMALL`."""

TARGETS = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta"), "query,value"),
    "mpnet": "q,v",
    "modernbert": "Wqkv,Wo",
    **dict.fromkeys(("qwen2", "qwen3"), "q_proj,v_proj"),
}
"""The linear layers that LoRA adapts, by the names that each kind has for them."""


def save_text_model(folder: Path, kind: str, prompts: dict[str, str] | None = None, pooling: str = "mean") -> Path:
    """Save a text encoder of hidden width 16 and two layers; `pooling` may be several modes, joined by +."""
    from transformers import AutoConfig, AutoModel

    with quiet_loading(), torch.random.fork_rng():
        config = AutoConfig.for_model(kind, **SMALL | KINDS[kind])
        torch.manual_seed(len(kind))
        AutoModel.from_config(config).save_pretrained(folder)
    save_tokenizer(folder)
    modes = pooling.split("+")
    save_json(
        folder / "1_Pooling" / "config.json",
        {"embedding_dimension": 16, "pooling_mode": modes if len(modes) > 1 else pooling},
    )
    kinds = {"": "base.modules.transformer.Transformer", "1_Pooling": "sentence_transformer.modules.pooling.Pooling"}
    listed = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.{kind}"}
        for place, (path, kind) in enumerate(kinds.items())
    ]
    save_json(folder / "modules.json", listed)
    save_json(folder / "config_sentence_transformers.json", {"prompts": prompts or {}})
    return folder


def save_image_model(folder: Path) -> Path:
    """Save a CLIP whose pictures have 8 × 8 pixels, and whose vectors are 12 wide."""
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = tower | {"vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": 3, "pad_token_id": 0}
    seen = tower | {"image_size": 8, "patch_size": 4}
    save_tokenizer(folder)
    with quiet_loading(), torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(CLIPConfig(text_config=text, vision_config=seen, projection_dim=12)).save_pretrained(folder)
        pictures = CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
        CLIPProcessor(image_processor=pictures, tokenizer=AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """Save a tokenizer that knows each of `WORDS` by its place."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokens.normalizer, tokens.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    marks = [("[CLS]", 2), ("[SEP]", 3)]
    tokens.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=tokens, model_max_length=32, **special).save_pretrained(folder)


def save_json(path: Path, content: Any) -> None:
    """Write JSON into a folder that is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")
