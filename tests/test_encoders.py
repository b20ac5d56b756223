"""Encoders of texts: their prompts, pooling and width, several of them joined, and what a node must share."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.federation import wire
from fedrec.recsys.card import CARD
from fedrec.recsys.embeddings import Embeddings, embed_catalogue
from fedrec.recsys.encoders.find import resolve_encoder
from fedrec.recsys.encoders.joined import describe_encoder, encoder_of_card, open_encoder, open_user_encoder
from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.recommender import Recommender
from tests.support.tiny_models import TARGETS, save_json, save_text_model
from tests.support.toy_world import begun, small_config

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
PROMPTS = {"query": "the chef ", "document": "the oven "}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT without prompts, and a Qwen3 with prompts and the last token's pooling."""
    folder = tmp_path_factory.mktemp("models")
    save_text_model(folder / "plain", "bert")
    save_text_model(folder / "prompted", "qwen3", PROMPTS, pooling="lasttoken")
    return folder


def hidden_states(folder: Path, text: str) -> torch.Tensor:
    """Compute the last hidden states of a text, without sentence-transformers."""
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        return AutoModel.from_pretrained(folder)(tokens["input_ids"]).last_hidden_state[0]


def test_pooling_and_prompts_are_the_models_own(models: Path) -> None:
    """An item's text gets the prompt for documents, a question that for queries; each is pooled as the files say."""
    plain, prompted = (resolve_encoder(str(models / name)) for name in ("plain", "prompted"))
    expected = {
        "bread soup": hidden_states(models / "plain", "bread soup").mean(0),
        "the oven moon": hidden_states(models / "prompted", "the oven moon")[-1],
        "the chef moon": hidden_states(models / "prompted", "the chef moon")[-1],
    }
    found = plain.encode(["bread soup"]), prompted.encode(["moon"]), prompted.encode_queries(["moon"])
    for ours, theirs in zip(found, expected.values(), strict=True):
        torch.testing.assert_close(ours[0], F.normalize(theirs, dim=0), atol=1e-6, rtol=0)
    assert torch.equal(plain.encode(["moon"]), plain.encode_queries(["moon"]))


def test_the_setting_prompt_stands_before_every_text(models: Path) -> None:
    prompted = open_encoder(str(models / "prompted"), prompt="star ")
    expected = F.normalize(hidden_states(models / "prompted", "star moon")[-1], dim=0)
    for found in (prompted.encode(["moon"]), prompted.encode_queries(["moon"])):
        torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("pooling", "width"), [("mean", 16), ("cls", 16), ("cls+max", 32)])
def test_the_width_is_that_of_the_vectors(tmp_path: Path, pooling: str, width: int) -> None:
    """It is read from the files, without opening the model, if they tell it."""
    encoder = resolve_encoder(str(save_text_model(tmp_path / "model", "bert", pooling=pooling)))
    assert encoder.width == width
    assert encoder.loaded == (width > 16)
    assert encoder.encode(["moon"]).shape == (1, width)


def test_a_recipe_is_of_all_that_decides_a_vector_beside_the_weights(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "plain", tmp_path / "other")
    save_json(tmp_path / "other" / "1_Pooling" / "config.json", {"embedding_dimension": 16, "pooling_mode": "cls"})
    plain, other = resolve_encoder(str(models / "plain")), resolve_encoder(str(tmp_path / "other"))
    assert plain.sha256 == other.sha256
    assert len({plain.recipe, other.recipe, replace(plain, prompt="the ").recipe}) == 3
    assert not resolve_encoder(MINILM).recipe  # its revision is pinned, so earlier runs and caches stay valid
    assert replace(resolve_encoder(MINILM), prompt="the ").recipe


def test_embeddings_of_another_pooling_or_prompt_are_kept_beside(
    models: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    plain = resolve_encoder(str(models / "plain"))
    for encoder in (plain, replace(plain, prompt="the ")):
        first = embed_catalogue(catalogue, encoder, tmp_path).matrix
        assert torch.equal(first, encoder.encode(catalogue.texts))
        again = embed_catalogue(catalogue, encoder, tmp_path, lambda done, total: pytest.fail("it was embedded again"))
        assert torch.equal(again.matrix, first)
    assert len(list(tmp_path.glob("embeddings-*.safetensors"))) == 2


@pytest.mark.parametrize("name", ["recipe", "user_encoder"])
def test_a_node_with_another_recipe_or_user_encoder_is_left_out(name: str) -> None:
    ours, theirs = ({"catalogue": "c", "sha256": "s", name: value} for value in ("a", "b"))
    tickets = np.arange(3, dtype=np.uint64)
    assert wire.decode_census(wire.encode_census(tickets, ours), ours).tolist() == [0, 1, 2]  # the control
    for other in (theirs, {"catalogue": "c", "sha256": "s"}):
        with pytest.raises(ValueError, match=f"its {name} is"):
            wire.decode_census(wire.encode_census(tickets, other), ours)


def test_several_encoders_are_one_after_the_other_and_weigh_the_same(models: Path, catalogue: Catalogue) -> None:
    names = [str(models / "plain"), MINILM]
    joined, parts = open_encoder(" , ".join(names)), [resolve_encoder(name) for name in names]
    matrix = embed_catalogue(catalogue, joined).matrix
    expected = torch.cat([part.encode(catalogue.texts) for part in parts], dim=1) / 2**0.5
    torch.testing.assert_close(matrix, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(joined.encode_queries(["moon"]).norm(dim=1), torch.ones(1))
    assert (joined.name, joined.width) == (",".join(names), 16 + 384)
    assert Embeddings.provenance_of(catalogue, joined)["sha256"] not in {part.sha256 for part in parts}
    assert open_user_encoder("", joined.name) == parts[0]
    assert encoder_of_card(describe_encoder(joined)) == joined


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("a,,b", "a name is empty"),
        (f"{MINILM},{MINILM}", "is there twice"),
        ("vectors:mine", "there are no such vectors in any prepared folder"),
    ],
)
def test_a_list_of_encoders_that_is_none_is_refused(names: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        open_encoder(names)


def test_a_user_tower_needs_a_text_encoder_or_a_name() -> None:
    assert open_user_encoder(MINILM, "vectors:mine").name == MINILM
    with pytest.raises(InputError, match="user_encoder is empty, and encoder = 'vectors:mine' has no text encoder"):
        open_user_encoder("", "vectors:mine")


def test_a_run_of_other_encoders_from_training_to_its_answers(models: Path, toy: Path, tmp_path: Path) -> None:
    """Texts by one model with a prompt, histories by another one of another width."""
    data, user_encoder = shutil.copytree(toy, tmp_path / "data"), save_text_model(tmp_path / "modern", "modernbert")
    settings = {"encoder": f"{models / 'prompted'},{models / 'plain'}", "prompt": "the ", "rounds": 2}
    settings |= {"user_encoder": str(user_encoder), "lora_targets": TARGETS["modernbert"]}
    trained = begun(tmp_path / "run", data, small_config(**settings))
    assert trained.card["user_encoder"]["name"] == str(user_encoder)
    assert [part["width"] for part in trained.card["encoder"]["parts"]] == [16, 16]
    assert any(tensor.any() for name, tensor in trained.adapter.items() if name.endswith("lora_B"))
    again = Recommender.load(tmp_path / "run")
    new = again.new_items([trained.catalogue.texts[3]]).searched
    torch.testing.assert_close(new[0], again.vectors[3], atol=1e-5, rtol=0)  # an item's text gives the item's vector
    assert again.query_vectors(["moon"]).shape == (1, 32)
    assert len(again.recommend(again.user_vector([0, 1]), k=3)) == 3
    save_json(user_encoder / "added.json", {})
    resolve_encoder.cache_clear()
    with pytest.raises(InputError, match=r"user_encoder .* has other files than the run was trained on"):
        _ = Recommender.load(tmp_path / "run").towers


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"name": "vectors:a"}, "has no encoder.sha256"),
        ({"name": "vectors:a", "sha256": "0"}, "has no encoder.revision"),
    ],
)
def test_a_card_with_a_part_that_is_described_wrongly_is_refused(part: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=f"{CARD} {says}"):
        encoder_of_card({"name": "vectors:a", "sha256": "0", "parts": [part]})


def test_an_encoder_is_the_same_whatever_its_model_is_asked(
    encoder: Encoder, embeddings: torch.Tensor, catalogue
) -> None:
    """The default encoder has no prompts: items and questions are encoded alike, as ever."""
    reference = encoder.model.encode(catalogue.texts[:8], normalize_embeddings=True)
    assert np.array_equal(encoder.encode(catalogue.texts[:8]).numpy(), reference)
    assert np.array_equal(encoder.encode_queries(catalogue.texts[:8]).numpy(), reference)
