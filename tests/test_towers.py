"""The towers that answer give the vectors of those that were trained."""

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from fedrec.data.errors import InputError
from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.hardware import parallel_map
from fedrec.recsys.model.inference import PASS_SIZE, InferenceModel
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.two_tower import TwoTowerModel
from tests.support.toy_world import small_config

TYPICAL = {"layers": 2, "lora_targets": "query,key,value,dense"}


def bent(model: TwoTowerModel) -> Adapter:
    generator = torch.Generator().manual_seed(1)
    return {name: t + 0.1 * torch.randn(t.shape, generator=generator) for name, t in model.adapter().items()}


def histories() -> tuple[Tensor, Tensor]:
    """Four right-aligned ones, of 1, 3, 5 and 8 events, with anything where there is none."""
    vectors = F.normalize(torch.randn(4, 8, 384, generator=torch.Generator().manual_seed(2)), dim=-1)
    return vectors, torch.arange(8) >= 8 - torch.tensor([[1], [3], [5], [8]])


def copied(encoder: Encoder, folder: Path) -> Encoder:
    """The encoder in a folder of its own, to be changed."""
    folder.mkdir()
    (folder / "config.json").write_text((encoder.folder / "config.json").read_text())
    return replace(encoder, folder=folder)


def agree(model: TwoTowerModel, towers: InferenceModel, adapter: Adapter) -> None:
    """With the model in double precision: in single, its own rounding is as large as what is allowed."""
    vectors, mask = histories()
    exact, doubled = copy.deepcopy(model).double(), {name: tensor.double() for name, tensor in adapter.items()}
    expected = exact.user_vectors(doubled, vectors.double(), mask), exact.item_vectors(doubled, vectors[3].double())
    found = towers.user_vectors(vectors, mask), towers.item_vectors(vectors[3])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 8, 9, 17, 50])
def test_a_history_gets_the_same_bits_in_any_pass(encoder: Encoder, length: int) -> None:
    config = replace(small_config().model, layers=2, history=50)
    towers = InferenceModel(config, encoder, bent(TwoTowerModel(config, encoder, seed=0)), seed=0)
    generator = torch.Generator().manual_seed(length)
    vectors = F.normalize(torch.randn(PASS_SIZE + 3, length, 384, generator=generator), dim=-1)
    mask = torch.arange(length) >= torch.arange(PASS_SIZE + 3).unsqueeze(1) % length

    def read(rows: list[int]) -> Tensor:
        return next(parallel_map(lambda rows: towers.user_vectors(vectors[rows], mask[rows]), [rows]))

    alone = torch.cat([read([row]) for row in range(PASS_SIZE + 3)])
    for rows in ([4, 1], [2, 7, 0, 5, 3], list(range(PASS_SIZE)), list(reversed(range(PASS_SIZE + 3)))):
        assert torch.equal(read(rows), alone[rows])


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": 1},
        TYPICAL,
        TYPICAL | {"layers": 3, "lora_alpha": 3.0},
        TYPICAL | {"item_tower": "linear", "recency": 1.0},
        TYPICAL | {"user_encoder_init": "random"},
    ],
)
def test_they_give_the_vectors_of_the_trained_model(encoder: Encoder, changes: dict[str, object]) -> None:
    config, seed = small_config(**changes).model, 3
    model = TwoTowerModel(config, encoder, seed)
    adapter = bent(model)
    agree(model, InferenceModel(config, encoder, adapter, seed), adapter)
    with pytest.raises(AssertionError):
        agree(model, InferenceModel(config, encoder, model.adapter(), seed), adapter)


@pytest.mark.parametrize("names", ["bert.", "gamma"])
def test_weights_under_older_names_are_the_same(encoder: Encoder, tmp_path: Path, names: str) -> None:
    config = small_config(**TYPICAL).model
    older = copied(encoder, tmp_path / "encoder")
    weights = load_file(encoder.folder / "model.safetensors")
    if names == "gamma":
        weights = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in weights.items()
        }
    else:
        weights = {f"{names}{name}": tensor for name, tensor in weights.items()}
    save_file(weights, older.folder / "model.safetensors", metadata={"format": "pt"})
    model = TwoTowerModel(config, encoder)
    adapter = bent(model)
    agree(model, InferenceModel(config, older, adapter, 0), adapter)


def test_an_encoder_of_another_kind_inside_is_refused_when_it_is_to_be_trained(
    encoder: Encoder, tmp_path: Path
) -> None:
    other = copied(encoder, tmp_path / "encoder")
    described = (other.folder / "config.json").read_text().replace('"gelu"', '"mish"')
    (other.folder / "config.json").write_text(described)
    with pytest.raises(InputError, match="hidden_act = 'mish' is none of gelu"):
        TwoTowerModel(small_config().model, other)


def test_answering_by_history_needs_no_transformers(run: Path) -> None:
    """Its import takes longer than all else that a server does until it is ready."""
    code = (
        "import sys, pathlib; from fedrec.recsys.recommender import Recommender;"
        "from fedrec.serving.engine import Engine;"
        f"engine = Engine.from_recommender(Recommender.load(pathlib.Path({str(run)!r}))).warm_up();"
        "assert not engine.reads_texts and not {'transformers', 'sentence_transformers'} & set(sys.modules);"
        "engine.load_text_encoder(); assert engine.reads_texts"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
