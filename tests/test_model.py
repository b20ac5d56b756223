"""The towers, their low-rank parts, and PEFT as the reference."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.training_run import open_run, train
from fedrec.recsys.embeddings import embed_catalogue
from fedrec.recsys.encoders.find import KnownWeights, resolve_encoder
from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.model.item_tower import Candidates
from fedrec.recsys.model.lora import StackedLinear, from_peft, is_lora, stacked, to_peft
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.recommender import Recommender
from tests.support.toy_world import small_config


def test_stacked_linear_is_each_clients_own_low_rank_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = StackedLinear(nn.Linear(5, 3), rank=2, alpha=4.0, generator=generator)
    down, up = torch.randn(4, 2, 5), torch.randn(4, 3, 2)
    x = torch.randn(4, 7, 5)
    together = torch.func.functional_call(layer, {"lora_A": down, "lora_B": up}, (x,))
    for client in range(4):
        weight = layer.base.weight + (4.0 / 2) * up[client] @ down[client]
        torch.testing.assert_close(together[client], F.linear(x[client], weight, layer.base.bias))


def test_an_untrained_model_recommends_by_text_neighbours(model: TwoTowerModel, embeddings: Tensor) -> None:
    """Item vectors start as the text embeddings, and a user vector as the mean of them, recent ones weighing more."""
    vectors = model.item_vectors(model.adapter(), embeddings)
    torch.testing.assert_close(vectors, embeddings, atol=1e-6, rtol=0)
    history = vectors[None, [3, 5, 8]]
    user = model.user_vectors(model.adapter(), history, torch.ones(1, 3, dtype=torch.bool))
    mean = 0.6**2 * history[:, 0] + 0.6 * history[:, 1] + history[:, 2]
    torch.testing.assert_close(user, F.normalize(mean, dim=-1), atol=1e-6, rtol=0)


def test_cosines_of_some_rows_are_those_of_their_vectors(
    model: TwoTowerModel, bent: dict[str, Tensor], embeddings: Tensor
) -> None:
    users = F.normalize(torch.randn(1, 5, embeddings.shape[1], generator=torch.Generator().manual_seed(2)), dim=-1)
    vectors = model.item_vectors(bent, embeddings)  # (N, E)
    tower = copy.deepcopy(model.item)
    with torch.no_grad():
        tower.down.copy_(bent["item.down"])
        tower.up.copy_(bent["item.up"])
        rows = torch.arange(len(embeddings)).flip(0)
        torch.testing.assert_close(
            tower.candidate_scores(users, embeddings, Candidates(rows[None], (1,), (0,))),
            users @ vectors[rows].T,
            atol=2e-6,
            rtol=0,
        )


def test_the_past_does_not_see_the_future(model: TwoTowerModel, bent: dict[str, Tensor], embeddings: Tensor) -> None:
    """A user vector after the t-th event is the same whatever comes later."""
    vectors = model.item_vectors(bent, embeddings)
    mask = torch.ones(1, 6, dtype=torch.bool)
    user = {name.removeprefix("user."): t for name, t in stacked(bent, 1).items() if name.startswith("user.")}
    with torch.no_grad():
        whole = torch.func.functional_call(model.user, user, (vectors[None, [0, 3, 5, 7, 9, 11]], mask))
        other = torch.func.functional_call(model.user, user, (vectors[None, [0, 3, 5, 20, 21, 22]], mask))
    torch.testing.assert_close(whole[:, :3], other[:, :3])
    assert not torch.allclose(whole[:, 3:], other[:, 3:], atol=1e-3)


def test_padding_changes_no_user_vector(model: TwoTowerModel, bent: dict[str, Tensor], embeddings: Tensor) -> None:
    vectors = model.item_vectors(bent, embeddings)[None, [2, 4, 6]]
    short = model.user_vectors(bent, vectors, torch.ones(1, 3, dtype=torch.bool))
    padded = torch.cat([torch.randn(1, 5, vectors.shape[-1]), vectors], dim=1)
    mask = torch.tensor([[False] * 5 + [True] * 3])
    torch.testing.assert_close(model.user_vectors(bent, padded, mask), short, atol=1e-6, rtol=0)


def test_peft_names_round_trip(bent: dict[str, Tensor]) -> None:
    lora = to_peft(bent)
    assert "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight" in lora
    assert from_peft(lora) == {name: tensor for name, tensor in bent.items() if is_lora(name)}


@pytest.mark.filterwarnings("ignore")  # of peft and transformers, on loading
def test_peft_itself_loads_the_artifact_and_agrees(run: Path, encoder: Encoder) -> None:
    """The folder opens with `PeftModel.from_pretrained`, which computes what our user tower computes."""
    from peft import PeftModel
    from transformers import AutoModel

    recommender = Recommender.load(run)
    history = recommender.vectors[None, [0, 1, 2, 15, 16]]
    mask = torch.ones(1, 5, dtype=torch.bool)
    layers = recommender.card["config"]["model"]["layers"]
    base = AutoModel.from_pretrained(encoder.folder, num_hidden_layers=layers, add_pooling_layer=False)
    reference = PeftModel.from_pretrained(base, str(run)).eval()
    causal = torch.ones(5, 5, dtype=torch.bool).tril()[None, None]
    with torch.no_grad():
        hidden = reference(inputs_embeds=history, attention_mask=causal).last_hidden_state[:, -1]
    adapter = recommender.adapter
    learned = hidden @ adapter["user.down"].T @ adapter["user.up"].T
    ours = recommender.model.user_vectors(adapter, history, mask)
    weights = torch.tensor([0.6**4, 0.6**3, 0.6**2, 0.6, 1.0])
    mean = weights / weights.sum() @ history[0]
    torch.testing.assert_close(ours, F.normalize(mean + learned, dim=-1), atol=1e-5, rtol=0)
    assert any(tensor.any() for name, tensor in recommender.adapter.items() if name.endswith("lora_B"))


def test_a_random_base_is_the_same_architecture_with_weights_of_the_seed(encoder: Encoder) -> None:
    pretrained, random, again, other = (
        TwoTowerModel(small_config(user_encoder_init=base).model, encoder, seed)
        for base, seed in (("pretrained", 0), ("random", 0), ("random", 0), ("random", 1))
    )
    shapes = {name: tensor.shape for name, tensor in pretrained.state_dict().items()}
    assert {name: tensor.shape for name, tensor in random.state_dict().items()} == shapes
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in random.state_dict().items())
    assert not any(p.requires_grad for name, p in random.named_parameters() if name not in random.adapter())
    for name, tensor in random.named_parameters():
        if name in random.adapter():
            continue
        if "LayerNorm" in name:
            assert (tensor == float(name.endswith("weight"))).all(), name
        elif name.endswith("bias"):
            assert not tensor.any(), name
        else:
            assert float(tensor.std()) == pytest.approx(0.02, rel=0.05), name
            assert not torch.equal(tensor, pretrained.get_parameter(name)), name
            assert not torch.equal(tensor, other.get_parameter(name)), name


@pytest.mark.parametrize("seed", [0, 7])
def test_a_run_on_a_random_base_is_answered_on_the_same(toy: Path, embeddings: Tensor, tmp_path: Path, seed) -> None:
    run = open_run(
        tmp_path / "run", Dataset.open(toy), small_config(user_encoder_init="random", seed=seed, rounds=2), resume=False
    )
    train(LocalGrid.over(run.setup), run)
    recommender = Recommender.load(tmp_path / "run")
    trained_on, served = run.setup.model, recommender.model
    assert all(torch.equal(tensor.cpu(), served.state_dict()[name]) for name, tensor in trained_on.state_dict().items())
    named = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"].endswith(f"(random weights, seed {seed})")
    assert named["revision"] is None
    assert recommender.card["config"]["model"]["user_encoder_init"] == "random"


def test_nothing_trained_or_sent_grows_with_the_catalogue(model: TwoTowerModel) -> None:
    sizes = {name: tuple(tensor.shape) for name, tensor in model.adapter().items()}
    assert sizes["item.down"] == (4, 384)
    assert sum(int(np.prod(shape)) for shape in sizes.values()) == 4 * 384 * 4 + 2 * (2 * 384 + 384 * 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layers": 7}, "1 to 6"),
        ({"history": 600}, "reads 512"),
        ({"lora_targets": ("query", "kye")}, "'kye' is no linear layer here; choose from dense, key, query, value"),
        ({"lora_targets": ()}, "lora_targets"),
    ],
)
def test_a_model_the_encoder_cannot_give_is_refused(encoder: Encoder, change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        TwoTowerModel(ModelConfig(**change), encoder)  # type: ignore[arg-type]


def test_other_weights_than_the_pinned_are_refused(encoder: Encoder, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not the weights")
    monkeypatch.setitem(
        resolve_encoder.__wrapped__.__globals__["KNOWN_WEIGHTS"], str(tmp_path), KnownWeights("main", encoder.sha256)
    )
    with pytest.raises(InputError, match="is pinned"):
        resolve_encoder(str(tmp_path))


def test_embeddings_are_made_once_per_texts_and_weights(catalogue, encoder: Encoder, tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    first = embed_catalogue(catalogue, encoder, tmp_path, lambda done, total: reports.append((done, total)), block=10)
    assert reports == [(10, 24), (20, 24), (24, 24)]
    again = embed_catalogue(catalogue, encoder, tmp_path, lambda done, total: reports.append((done, total)))
    assert len(reports) == 3
    assert torch.equal(first.matrix, again.matrix)
    torch.testing.assert_close(first.matrix.norm(dim=1), torch.ones(24))


@pytest.mark.parametrize("name", ["towers.safetensors", "adapter_model.safetensors", "item_vectors.safetensors"])
def test_tensors_of_another_run_are_refused(run: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(run, tmp_path / "run")
    tensors = {key: tensor + 1 for key, tensor in load_file(run / name).items()}
    save_file(tensors, tmp_path / "run" / name)
    with pytest.raises(InputError, match="is not the one that card"):
        Recommender.load(tmp_path / "run")
