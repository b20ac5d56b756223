"""What is exported of a run: the files, the model card, and a model on the hub and back."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import fedrec as library
from fedrec.data.errors import InputError
from fedrec.exports.public_model import MODEL_CARD, PUBLIC
from fedrec.federation.privacy.ledger import FILE as LEDGER
from fedrec.federation.training_run import RUN
from fedrec.recsys.portable import PortableUserModel
from fedrec.recsys.recommender import Recommender
from tests.support.cli import Fedrec, is_refused
from tests.support.closed_form import hybrid_of
from tests.support.hub_server import TOKEN, Hub, serving_hub

HISTORY = ["film-bread", "film-soup"]
TOWERS = {
    *("README.md", "card.json", "metrics.json", "catalogue.parquet", "item_vectors.safetensors"),
    *("towers.safetensors", "adapter_config.json", "adapter_model.safetensors"),
}


@pytest.fixture(scope="module")
def hybrid(run: Path, toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hybrid with all files that training leaves: also sums, marks of users and the state of the server."""
    out = hybrid_of(run, toy, tmp_path_factory.mktemp("runs") / "hybrid", "stacked text")
    for name in ("metrics.json", "rounds.jsonl", "state.safetensors"):
        shutil.copy(run / name, out)
    (out / "statistics").mkdir()
    for name in ("total", "members", "node-1", "node-2"):
        (out / "statistics" / f"{name}.safetensors").write_bytes(b"sums of users")
    return out


def metadata(folder: Path) -> dict:
    """Read the YAML at the beginning of a model card."""
    return yaml.safe_load((folder / MODEL_CARD).read_text("utf-8").split("---")[1])


def test_only_what_is_public_leaves_a_run(hybrid: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    """Control: the run has the private files."""
    private = {"state.safetensors", "rounds.jsonl", "statistics/total.safetensors", "statistics/members.safetensors"}
    there = {path.relative_to(hybrid).as_posix() for path in hybrid.rglob("*") if path.is_file()}
    assert private < there
    assert any(name.startswith("statistics/node-") for name in there)
    answer = fedrec("export", hybrid, "--to", "folder", "--out", tmp_path / "out", "--json").answer
    exported = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")}
    assert exported == set(answer["files"]) == {*TOWERS, "closed_form.safetensors"}


def test_every_file_of_a_run_is_either_public_or_private() -> None:
    """A new file of a run is not exported before somebody has decided that it may be."""
    private = {"rounds.jsonl", "state.safetensors", "index.faiss", "index.json"}
    statistics = {name for name in RUN.patterns if name.startswith("statistics/")}
    assert set(RUN.patterns) == {*PUBLIC} | private | statistics


def test_an_exported_model_answers_like_the_run(hybrid: Path, run: Path, tmp_path: Path) -> None:
    for source in (hybrid, run):
        library.load(source).export(tmp_path / source.name)
        ours, theirs = library.load(source), library.load(tmp_path / source.name)
        assert ours.recommend(history=HISTORY, k=5).equals(theirs.recommend(history=HISTORY, k=5))
        assert theirs.metrics == ours.metrics
        assert theirs.rounds.is_empty()


def test_the_model_card_says_what_the_run_says(hybrid: Path, tmp_path: Path) -> None:
    run = library.load(hybrid)
    run.export(tmp_path / "out", license="apache-2.0")
    about, text = metadata(tmp_path / "out"), (tmp_path / "out" / MODEL_CARD).read_text("utf-8")
    assert (about["license"], about["library_name"]) == ("apache-2.0", "fedrec")
    assert {"recommendation", "federated-learning"} <= set(about["tags"])
    assert not {"differential-privacy", "secure-aggregation"} & set(about["tags"])
    assert about["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    (model,) = about["model-index"]
    found = {metric["type"]: metric["value"] for metric in model["results"][0]["metrics"]}
    assert found["ndcg@10"] == run.metrics["test"]["ndcg@10"]
    assert set(found) <= set(about["metrics"])
    assert f"# {run.card['model_version']}" in text
    assert "without differential privacy" in text
    assert f"| {run.metrics['test']['ndcg@10']:.4f} |" in text
    assert "{{" not in text


def test_the_model_card_tells_the_guarantee_of_a_private_run(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, source := tmp_path / "run")
    card = json.loads((source / "card.json").read_text())
    spent = {"spent": {"epsilon": 2.5, "delta": 1e-5}, "relation": "one user more or less"}
    card["privacy"] = spent | {"rounds": 4, "statistics": 1}
    card["encoder"] |= {"name": "/home/ann/encoder"}
    (source / "card.json").write_text(json.dumps(card))
    (source / LEDGER).write_text("{}")
    (source / "metrics.json").write_text("{}")
    files = library.load(source).export(tmp_path / "out")
    about, text = metadata(tmp_path / "out"), (tmp_path / "out" / MODEL_CARD).read_text("utf-8")
    assert LEDGER in files
    assert "differential-privacy" in about["tags"]
    assert not {"base_model", "metrics", "model-index"} & about.keys()
    assert "ε = 2.5" in text
    assert "Nothing was measured" in text


def test_an_export_replaces_an_earlier_one_and_nothing_else(run: Path, tmp_path: Path, fedrec: Fedrec) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    is_refused(fedrec("export", run, "--to", "folder", "--out", tmp_path / "mine"), "--out", "choose another")
    for _ in range(2):
        library.load(run).export(tmp_path / "out")
    (tmp_path / "out" / "letter.txt").write_text("dear")
    is_refused(fedrec("export", run, "--to", "folder", "--out", tmp_path / "out"), "letter.txt", "move it away")
    is_refused(fedrec("export", run, "--to", "folder", "--out", run / "out"), "lies in the run")
    is_refused(fedrec("export", run, "--to", "folder", "--out", "new", "--public"), "--public", "leave it out")


# ---- the hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub of its own on this machine, as `HF_ENDPOINT`, `HF_HUB_CACHE` and `HF_TOKEN` would name it."""
    from huggingface_hub import constants

    with serving_hub() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", found.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found


def test_a_model_goes_to_the_hub_and_comes_back(hub: Hub, hybrid: Path, fedrec: Fedrec) -> None:
    answer = fedrec("export", hybrid, "--to", "hub", "--out", "ann/films", "--license", "mit", "--json").answer
    stored = hub.repositories["ann/films"]
    assert stored.private
    assert answer["files"] == [f"{hub.url}/ann/films/commit/{stored.commit}"]
    assert set(stored.files) == {*TOWERS, "closed_form.safetensors"}
    assert 'fedrec.load("hf://ann/films")' in stored.files[MODEL_CARD].decode()
    stored.files["notes.pkl"] = b"what nobody asked for"
    ours, theirs = library.load(hybrid), library.load("hf://ann/films")
    assert not (theirs.folder / "notes.pkl").exists()
    assert ours.recommend(history=HISTORY, k=5).equals(theirs.recommend(history=HISTORY, k=5))
    by_command = fedrec("recommend", "hf://ann/films", "--history", ",".join(HISTORY), "-k", "3", "--json").answer
    assert [item["item_id"] for item in by_command["items"]] == ours.recommend(history=HISTORY, k=3)[
        "item_id"
    ].to_list()
    at = library.load(f"hf://ann/films@{stored.commit}")
    assert at.folder == theirs.folder


def test_a_model_is_public_if_asked_for(hub: Hub, run: Path) -> None:
    library.load(run).export("ann/open", to="hub", public=True)
    assert not hub.repositories["ann/open"].private


def test_what_the_hub_refuses_is_one_line(hub: Hub, run: Path, fedrec: Fedrec, monkeypatch: pytest.MonkeyPatch) -> None:
    is_refused(fedrec("recommend", "hf://ann/nothing", "--query", "x"), "hf://ann/nothing", "hf auth whoami")
    is_refused(fedrec("recommend", "hf://nothing", "--query", "x"), "hf://USER/NAME")
    is_refused(fedrec("export", run, "--to", "hub", "--out", "a b c"), "cannot be published", "check the name")
    monkeypatch.setenv("HF_TOKEN", "hf_of-a-stranger")
    is_refused(fedrec("export", run, "--to", "hub", "--out", "ann/films"), "cannot be published", "hf auth whoami")
    assert hub.repositories == {}


def test_an_unfinished_run_is_not_exported(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, source := tmp_path / "run")
    card = json.loads((source / "card.json").read_text())
    (source / "card.json").write_text(json.dumps(card | {"finished": False}))
    with pytest.raises(InputError, match="has not finished"):
        library.load(source).export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- the user's side for devices


RAGGED = (0, 1, 2, 7, 8, 9, 30, 3)
"""Lengths of histories: empty, shorter and longer than what either half reads, which is 8 events and 21."""


def ragged_histories() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(24, size=length) for length in RAGGED]


@pytest.mark.parametrize("whole", [True, False], ids=["hybrid", "towers"])
def test_the_portable_model_computes_the_same_user_vectors(hybrid: Path, run: Path, whole: bool) -> None:
    recommender = Recommender.load(hybrid if whole else run)
    portable = PortableUserModel(recommender.towers, recommender.closed_form)
    expected = recommender.user_vectors(recommender.items.read, ragged_histories())
    padded, mask = _padded(ragged_histories(), recommender.items.read.numpy())
    found = portable(torch.from_numpy(padded), torch.from_numpy(mask))
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    assert not found[0].any()


@pytest.mark.long
@pytest.mark.parametrize("whole", [True, False], ids=["hybrid", "towers"])
def test_onnx_computes_the_same_user_vectors(hybrid: Path, run: Path, whole: bool, tmp_path: Path) -> None:
    """Ragged histories in one batch and alone, longer than what either half reads, and empty; numpy does the rest."""
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    source = hybrid if whole else run
    library.load(source).export(tmp_path / "device", to="onnx")
    recommender, device = Recommender.load(source), tmp_path / "device"
    events, candidates = (np.load(device / f"{name}_vectors.npy") for name in ("event", "candidate"))
    session = runtime.InferenceSession(device / "user_model.onnx")
    histories = ragged_histories()
    expected = recommender.user_vectors(recommender.items.read, histories).numpy()
    for some in (slice(None), slice(0, 1), slice(6, 7)):
        padded, mask = _padded(histories[some], events)
        (found,) = session.run(None, {"vectors": padded, "mask": mask})
        np.testing.assert_allclose(found, expected[some], atol=2e-6)
    scores = found @ candidates.T
    ((best, _),) = recommender.recommend(recommender.user_vector(histories[6]), 1)
    assert scores[0].argmax() == best
    assert json.loads((device / "items.json").read_text("utf-8"))[best]["item_id"] == recommender.catalogue.ids[best]
    meta = session.get_modelmeta().custom_metadata_map
    assert meta == {"model_version": recommender.version, "events_read": str(recommender.length)}


def _padded(histories: list[np.ndarray], events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors of right-aligned histories, and the mask of their events."""
    length = max(1, *map(len, histories)) if len(histories) > 1 else max(1, len(histories[0]))
    vectors, mask = np.zeros((len(histories), length, events.shape[1]), "f4"), np.zeros((len(histories), length), bool)
    for row, history in enumerate(histories):
        if len(history):
            vectors[row, -len(history) :], mask[row, -len(history) :] = events[history], True
    return vectors, mask
