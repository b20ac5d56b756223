"""The item tower as a model of sentence-transformers gives the item vectors of texts."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedrec.data.errors import InputError
from fedrec.recsys.encoders.joined import JoinedEncoder
from fedrec.recsys.model.item_tower import ItemTower
from fedrec.recsys.recommender import Recommender
from fedrec.recsys.sentence_module import item_tower_layers, save_item_tower
from tests.support.cli import Fedrec, is_refused
from tests.support.tiny_models import TARGETS, save_text_model
from tests.support.toy_world import begun, small_config


@pytest.mark.parametrize("kind", ["gelu", "linear"])
def test_layers_without_a_residual_compute_the_item_tower(kind: str) -> None:
    """gelu(x) − gelu(−x) = x lets an embedding through a layer with a gelu."""
    config, generator = replace(small_config().model, item_tower=kind), torch.Generator().manual_seed(0)
    tower, embeddings = ItemTower(config, 6, generator), torch.randn(9, 6, generator=generator)
    adapter = {"item.down": torch.randn(4, 6, generator=generator), "item.up": torch.randn(6, 4, generator=generator)}
    tower.load_state_dict({name.removeprefix("item."): tensor.unsqueeze(0) for name, tensor in adapter.items()})
    features = {"sentence_embedding": embeddings}
    for layer in item_tower_layers(adapter, kind == "gelu"):
        features = layer(features)
    with torch.no_grad():
        found = torch.nn.functional.normalize(features["sentence_embedding"], dim=-1)
        torch.testing.assert_close(found, tower(embeddings.unsqueeze(0))[0], atol=2e-6, rtol=0)


@pytest.fixture(scope="module")
def folder(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentence")
    data = shutil.copytree(toy, folder / "data")
    model = save_text_model(folder / "model", "qwen3", {"document": "the ", "query": "the chef "})
    config = small_config(encoder=str(model), lora_targets=TARGETS["qwen3"], rounds=2)
    begun(folder / "run", data, config)
    return folder / "run"


@pytest.fixture
def trained(folder: Path) -> Recommender:
    return Recommender.load(folder)


def test_it_gives_the_item_vectors_without_fedrec(
    folder: Path, trained: Recommender, fedrec: Fedrec, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    asked = ("export", folder, "--to", "sentence-transformers", "--out", tmp_path / "tower", "--json")
    files = fedrec(*asked).answer["files"]
    assert {"modules.json", "model.safetensors"} <= set(files)
    assert "fedrec" not in (tmp_path / "tower" / "modules.json").read_text()
    opened, texts = SentenceTransformer(str(tmp_path / "tower"), device="cpu"), trained.catalogue.texts
    found = torch.from_numpy(opened.encode(texts))
    torch.testing.assert_close(found, trained.vectors, atol=1e-5, rtol=0)
    embeddings = trained.encoder.encode(texts)
    assert not torch.allclose(found, embeddings, atol=1e-3)  # the tower did learn something
    query = torch.from_numpy(opened.encode_query(["moon"]))
    torch.testing.assert_close(query, trained.query_vectors(["moon"]), atol=1e-5, rtol=0)


def test_an_occupied_folder_a_license_and_an_encoder_of_several_are_refused(
    folder: Path, trained: Recommender, fedrec: Fedrec, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    asked = ("export", folder, "--to", "sentence-transformers", "--out")
    is_refused(fedrec(*asked, tmp_path), "--out", "is not empty")
    is_refused(fedrec(*asked, "new", "--license", "mit"), "--license", "leave it out")
    joined = replace(trained)
    vars(joined)["encoder"] = JoinedEncoder((trained.encoder,))  # type: ignore[arg-type] - it is one text encoder
    with pytest.raises(InputError, match="is not one text encoder"):
        save_item_tower(joined, tmp_path / "tower")
