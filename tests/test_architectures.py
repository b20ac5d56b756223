"""User towers of every supported architecture: the law "alone", PEFT as the reference, and what answers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.recsys.encoders.find import resolve_encoder
from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.model.inference import InferenceModel
from fedrec.recsys.model.lora import Adapter, peft_config, to_peft
from fedrec.recsys.model.passes import PASS_SIZE
from fedrec.recsys.model.projection import input_projection
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.training.local_training import FitConfig
from fedrec.recsys.training.method import TwoTowerMethod
from tests.laws.method_laws import train_cohort
from tests.support.tiny_models import KINDS, TARGETS, save_image_model, save_json, save_text_model

ITEM_WIDTH = 24
"""E, beside the hidden width D = 16 of the tiny models."""


@pytest.fixture(scope="module", params=KINDS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return resolve_encoder(str(save_text_model(tmp_path_factory.mktemp("models") / request.param, request.param)))


def kind_of(base: Encoder) -> str:
    return str(base.config["model_type"])


def config_of(base: Encoder, **changes: object) -> ModelConfig:
    targets = tuple(TARGETS[kind_of(base)].split(","))
    small = ModelConfig(base.name, lora_targets=targets, lora_rank=2, item_rank=4, user_rank=4, history=8)
    return replace(small, **changes)  # type: ignore[arg-type]


def bent_adapter(model: TwoTowerModel) -> Adapter:
    generator = torch.Generator().manual_seed(1)
    return {name: t + 0.3 * torch.randn(t.shape, generator=generator) for name, t in model.adapter().items()}


def unit_vectors(*shape: int, seed: int = 2) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("item_width", [16, ITEM_WIDTH])
def test_alone(base: Encoder, shard: Shard, item_width: int) -> None:
    """A client gets the same update, to the bit, in cohorts of any size."""
    model = TwoTowerModel(config_of(base), base, 0, item_width)
    fit = FitConfig(local_steps=2, event_dropout=0.3, dropout=0.3, negatives=16, precision="float32")
    method = TwoTowerMethod(model, unit_vectors(24, item_width), np.arange(24), fit, 0, pooled=False, held_out=2)
    adapter, everyone = bent_adapter(model), np.arange(len(shard))
    alone = {user: train_cohort(method, adapter, shard, [user], {})[user] for user in everyone.tolist()}
    for size in (3, 12):
        for cohort in np.array_split(everyone, len(shard) // size):
            for user, (update, loss) in train_cohort(method, adapter, shard, cohort, {}).items():
                assert torch.equal(loss, alone[user][1])
                assert all(torch.equal(tensor, alone[user][0][name]) for name, tensor in update.items())
    for name in adapter:  # a history of one event has a softmax of one number, whose gradient is zero
        assert any(update[name].any() for update, _ in alone.values()), name


@pytest.mark.filterwarnings("ignore")  # of peft, on loading
def test_peft_gives_the_same_hidden_states(base: Encoder, tmp_path: Path) -> None:
    """`PeftModel.from_pretrained` reads the artifact's files, with positions that transformers counts itself."""
    from peft import PeftModel
    from transformers import AutoModel

    config = config_of(base)
    model = TwoTowerModel(config, base)
    adapter = bent_adapter(model)
    described = {"name": base.name, "revision": None}
    save_file(
        {name: tensor.contiguous() for name, tensor in to_peft(adapter).items()}, tmp_path / "adapter_model.safetensors"
    )
    save_json(tmp_path / "adapter_config.json", peft_config(config, described, 0, adapter))
    bare = AutoModel.from_pretrained(base.folder, attn_implementation="eager")
    reference = PeftModel.from_pretrained(bare, str(tmp_path)).eval()
    history = unit_vectors(1, 5, 16)
    mask = reference_mask(kind_of(base))
    with torch.no_grad():
        expected = reference(inputs_embeds=history, attention_mask=mask).last_hidden_state[:, -1]
    everything = torch.ones(1, 5, dtype=torch.bool)
    found, control = (
        InferenceModel(config, base, pairs, seed=0)._layers.last_states(history, everything)[:1]
        for pairs in (adapter, model.adapter())
    )
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    assert not torch.allclose(control, expected, atol=1e-3)  # without the pairs


def reference_mask(kind: str) -> object:
    """What transformers takes for a causal mask of five events, by its own documentation."""
    causal = torch.ones(5, 5, dtype=torch.bool).tril()[None, None]
    if kind.startswith("qwen"):
        return None  # they are causal themselves
    scores = torch.zeros(1, 1, 5, 5).masked_fill(~causal, -torch.inf)
    return {"full_attention": scores, "sliding_attention": scores} if kind == "modernbert" else scores


def test_only_the_first_layers_are_adapted(base: Encoder, tmp_path: Path) -> None:
    """Of a tower of one layer, PEFT's config names the first layer of the whole model."""
    model = TwoTowerModel(config_of(base, layers=1), base)
    found = peft_config(model.config, {"name": base.name, "revision": None}, 0, model.adapter())
    assert found["layers_to_transform"] == [0]
    assert all(f".{found['layers_pattern']}.0." in name for name in to_peft(model.adapter()))


@pytest.mark.parametrize("item_width", [16, ITEM_WIDTH])
def test_what_answers_gives_the_vectors_of_what_was_trained(base: Encoder, item_width: int) -> None:
    """In any company a history gets the same vector, to the bit; and padding changes it by rounding alone."""
    config = config_of(base)
    model = TwoTowerModel(config, base, 0, item_width)
    adapter = bent_adapter(model)
    towers = InferenceModel(config, base, adapter, seed=0)
    vectors, lengths = unit_vectors(PASS_SIZE + 3, 8, item_width), 1 + torch.arange(PASS_SIZE + 3) % 8
    mask = torch.arange(8) >= 8 - lengths.unsqueeze(1)
    found = towers.user_vectors(vectors, mask)
    torch.testing.assert_close(found, model.user_vectors(adapter, vectors, mask), atol=2e-6, rtol=0)
    for rows in ([0], [9, 2], [7, 1, 10, 3]):
        assert torch.equal(towers.user_vectors(vectors[rows], mask[rows]), found[rows])
    short = towers.user_vectors(vectors[2:3, -3:], mask[2:3, -3:])  # a history of three events, without its padding
    torch.testing.assert_close(short, found[2:3], atol=2e-6, rtol=0)


def test_the_past_does_not_see_the_future(base: Encoder) -> None:
    model = TwoTowerModel(config_of(base), base)
    vectors = unit_vectors(2, 6, 16)
    vectors[1, :3] = vectors[0, :3]
    with torch.no_grad():
        states = model.user.hidden_states(vectors, torch.ones(2, 6, dtype=torch.bool))
    torch.testing.assert_close(states[0, :3], states[1, :3])
    assert not torch.allclose(states[0, 3:], states[1, 3:], atol=1e-3)


def test_random_weights_are_those_of_the_seed(base: Encoder) -> None:
    first, again, other = (
        TwoTowerModel(config_of(base, user_encoder_init="random"), base, seed).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items())


def test_a_projection_keeps_lengths_and_angles_on_average() -> None:
    """Random signs: the same on every machine, none if the widths are equal, and inner products within 1/√D."""
    assert input_projection(24, 24) is None
    matrix = input_projection(384, 256)
    assert matrix is not None
    assert matrix.abs().unique().tolist() == [1 / 16]
    assert torch.equal(matrix, input_projection(384, 256))  # type: ignore[arg-type]
    vectors = unit_vectors(50, 384)
    before, after = vectors @ vectors.T, (vectors @ matrix.T) @ (vectors @ matrix.T).T
    assert float((after - before).std()) == pytest.approx(1 / 16, rel=0.15)
    assert abs(float((after - before).mean())) < 0.01


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layers": 3}, "has 1 to 2"),
        ({"history": 65}, "history = 65; .* reads"),
        ({"lora_targets": ("nothing",)}, "'nothing' is no linear layer here; choose from"),
    ],
)
def test_what_a_model_cannot_give_is_refused(base: Encoder, changes: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        TwoTowerModel(config_of(base, **changes), base)


def test_a_model_of_another_kind_is_refused_with_what_is_supported(tmp_path: Path) -> None:
    clip = resolve_encoder(str(save_image_model(tmp_path / "clip")))
    with pytest.raises(InputError, match=r"is a 'clip' model; .* bert, roberta, .*qwen3: set user_encoder to one"):
        TwoTowerModel(ModelConfig(clip.name), clip)


def test_a_local_window_bounds_the_history(tmp_path: Path) -> None:
    """ModernBERT's local layers read 32 / 2 events back, so no history may be longer."""
    base = resolve_encoder(str(save_text_model(tmp_path / "modern", "modernbert")))
    assert json.loads((base.folder / "config.json").read_text())["local_attention"] == 32
    TwoTowerModel(config_of(base, history=16), base)
    with pytest.raises(InputError, match=r"history = 17; .* reads 16"):
        TwoTowerModel(config_of(base, history=17), base)
