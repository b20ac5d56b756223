"""Vectors of items that come from pictures and from files, and what is said of those that are missing."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional as F

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.recsys.embeddings import MODALITY, embed_catalogue
from fedrec.recsys.encoders.joined import open_encoder
from fedrec.recsys.encoders.vectors import bring_vectors
from fedrec.recsys.recommender import Recommender
from fedrec.serving.engine import Engine
from fedrec.serving.refusals import UnanswerableError
from fedrec.serving.schema import Question
from tests.support.cli import Fedrec
from tests.support.tiny_models import save_image_model, save_text_model
from tests.support.toy_world import begun, small_config

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def data(toy: Path, tmp_path: Path) -> Path:
    return shutil.copytree(toy, tmp_path / "data")


# ---- pictures


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_image_model(tmp_path_factory.mktemp("models") / "clip"))


@pytest.fixture
def pictured(data: Path, tmp_path: Path) -> Catalogue:
    """The toy world, whose cooking films have red pictures and whose space films blue ones; three have none."""
    from PIL import Image

    catalogue, paths = Catalogue.load(data), []
    for row in range(len(catalogue)):
        path = tmp_path / f"{row}.png"
        colour = (250 - row, row, 0) if row < 12 else (0, row, 250 - row)
        Image.new("RGB", (9, 11), colour).save(path)
        paths.append(str(path))
    paths[3], paths[5] = "", str(tmp_path / "gone.png")
    Path(paths[7]).write_bytes(b"no picture")
    frame = catalogue.frame.with_columns(pl.Series("image", paths), pl.Series("cover", [None, *paths[1:]]))
    Catalogue(frame).save(data)
    return Catalogue.load(data)


def test_pictures_are_vectors_of_the_clip_model(pictured: Catalogue, clip: str, caplog) -> None:
    """Two pictures of a colour are near; items without one are counted, shown, and get the mean of the others."""
    from PIL import Image

    encoder = open_encoder(f"images:{clip}")
    with caplog.at_level(logging.WARNING):
        embedded = embed_catalogue(pictured, encoder)
    matrix = embedded.matrix
    reference = open_encoder(clip).model.encode(Image.open(pictured.frame["image"][0]), normalize_embeddings=True)  # type: ignore[union-attr]
    torch.testing.assert_close(matrix[0], torch.from_numpy(reference), atol=1e-5, rtol=0)
    there = np.setdiff1d(np.arange(24), [3, 5, 7])
    for row in (3, 5, 7):
        torch.testing.assert_close(matrix[row], F.normalize(matrix[there].mean(0), dim=0))
    assert matrix[0] @ matrix[1] > matrix[0] @ matrix[20]
    assert f"3 of 24 items have no readable picture, such as {pictured.ids[3]!r} (no path)" in caplog.text
    assert embedded.provenance[MODALITY].startswith(f"images:{clip} ")


def test_other_pictures_are_another_modality(pictured: Catalogue, clip: str, data: Path) -> None:
    """The fingerprint is of the pictures' bytes; a node reads the cached vectors, and needs no picture."""
    encoder = open_encoder(f"{MINILM},images:{clip}")
    first = embed_catalogue(pictured, encoder, data)
    for path in filter(None, pictured.frame["image"].to_list()):
        Path(path).unlink(missing_ok=True)
    assert embed_catalogue(pictured, encoder, data).provenance == first.provenance
    with pytest.raises(InputError, match="none of 24 items has a vector"):
        embed_catalogue(pictured, encoder)
    assert first.matrix.shape == (24, 384 + 12)


def test_the_column_of_pictures_can_be_named(pictured: Catalogue, clip: str, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        embed_catalogue(pictured, open_encoder(f"images:{clip}@cover"))
    assert f"4 of 24 items have no readable picture, such as {pictured.ids[0]!r}" in caplog.text
    with pytest.raises(InputError, match="no column 'photo', but item_id, title"):
        embed_catalogue(pictured, open_encoder(f"images:{clip}@photo"))


def test_a_model_that_reads_no_pictures_is_refused(pictured: Catalogue, tmp_path: Path) -> None:
    bert = save_text_model(tmp_path / "bert", "bert")
    with pytest.raises(InputError, match="reads no pictures; name a model such as CLIP"):
        embed_catalogue(pictured, open_encoder(f"images:{bert}"))


# ---- the user's own vectors


def own_vectors(rows: int = 24, width: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, width)) * 3


def write(path: Path, ids: list[str], vectors: np.ndarray) -> Path:
    if path.suffix == ".npz":
        np.savez(path, ids=np.array(ids), vectors=vectors.astype(np.float32))
    elif path.suffix == ".parquet":
        pl.DataFrame({"item_id": ids, "vector": vectors.tolist()}).write_parquet(path)
    else:
        columns = {f"v{place}": vectors[:, place] for place in range(vectors.shape[1])}
        pl.DataFrame({"item_id": ids} | columns).write_csv(path)
    return path


@pytest.mark.parametrize("ending", ["parquet", "csv", "npz"])
def test_own_vectors_are_kept_in_unit_length_with_counts_of_the_rest(data: Path, tmp_path: Path, ending: str) -> None:
    catalogue, vectors = Catalogue.load(data), own_vectors()
    ids = ["unknown", *reversed(catalogue.ids[2:])]
    brought = bring_vectors(write(tmp_path / f"mine.{ending}", ids, vectors[:23]), catalogue, data)
    assert (brought.name, brought.width, brought.matched, brought.unknown, brought.missing) == (
        "vectors:mine",
        5,
        22,
        1,
        2,
    )
    assert (brought.unknown_example, brought.missing_example) == ("unknown", catalogue.ids[0])
    matrix = embed_catalogue(catalogue, open_encoder("vectors:mine", folder=data)).matrix
    expected = torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).float()
    torch.testing.assert_close(matrix[2:], expected[1:23].flip(0))
    torch.testing.assert_close(matrix[:2], F.normalize(matrix[2:].mean(0), dim=0).expand(2, -1))


def test_a_node_with_other_vectors_has_another_hash(data: Path, tmp_path: Path) -> None:
    catalogue, shas = Catalogue.load(data), []
    for vectors in (own_vectors(), own_vectors(), own_vectors() + 1):
        bring_vectors(write(tmp_path / "mine.npz", catalogue.ids, vectors), catalogue, data)
        shas.append(open_encoder("vectors:mine", folder=data).sha256)
    assert shas[0] == shas[1] != shas[2]


def test_vectors_of_another_catalogue_are_refused(data: Path, tmp_path: Path) -> None:
    catalogue = Catalogue.load(data)
    bring_vectors(write(tmp_path / "mine.npz", catalogue.ids, own_vectors()), catalogue, data)
    other = Catalogue(catalogue.frame.with_columns(text=pl.col("text") + "!"))
    with pytest.raises(InputError, match="is of another catalogue; bring the vectors again"):
        embed_catalogue(other, open_encoder("vectors:mine", folder=data))


IDS = [f"film-{word}" for word in ("bread", "soup")]
BAD = {
    "twice": ({"item_id": [IDS[0]] * 2, "a": [1.0, 2.0]}, "has the id 'film-bread' twice"),
    "not finite": ({"item_id": IDS, "a": [1.0, float("nan")]}, "1 vectors hold a number that is missing.* 'film-soup'"),
    "missing": ({"item_id": IDS, "a": [1.0, None]}, "1 vectors hold a number that is missing.* 'film-soup'"),
    "zeros": ({"item_id": IDS, "a": [0.0, 1.0]}, "1 vectors are all zeros, such as that of 'film-bread'"),
    "widths": ({"item_id": IDS, "a": [[1.0], [1.0, 2.0]]}, "the vector of 'film-.*numbers, and others have"),
    "no ids": ({"sku": IDS, "a": [1.0, 2.0]}, "has the columns sku, a; name the ids item_id"),
    "text": ({"item_id": IDS, "a": ["x", "y"]}, "the column 'a' is no number"),
    "other ids": ({"item_id": ["1", "2"], "a": [1.0, 2.0]}, "none of its 2 ids is in the catalogue, such as '1'"),
    "no numbers": ({"item_id": IDS}, "holds no vectors"),
    "two lists": ({"item_id": IDS, "a": [[1.0], [2.0]], "b": [[1.0], [2.0]]}, "keep one column of lists"),
}


@pytest.mark.parametrize(("columns", "says"), BAD.values(), ids=BAD)
def test_a_file_that_holds_no_vectors_is_refused(
    columns: dict[str, list], says: str, data: Path, tmp_path: Path
) -> None:
    pl.DataFrame(columns).write_parquet(tmp_path / "mine.parquet")
    with pytest.raises(InputError, match=says):
        bring_vectors(tmp_path / "mine.parquet", Catalogue.load(data), data)
    assert not list(data.glob("vectors-*"))


def test_the_command_brings_vectors_and_a_run_is_trained_on_them(fedrec: Fedrec, data: Path, tmp_path: Path) -> None:
    """A run of vectors alone answers by items; it reads no texts, and says so."""
    catalogue = Catalogue.load(data)
    file = write(tmp_path / "mine.csv", ["gone", *catalogue.ids[:-1]], own_vectors())
    done = fedrec("data", "embed", data, "--vectors", file)
    assert "vectors of ids that are not in the catalogue: 1, such as 'gone'" in done.err
    assert f"items without a vector: 1 of 24, such as {catalogue.ids[-1]!r}; they get the mean" in done.err
    assert "5 numbers each, by vectors:mine" in done.out
    found = json.loads(fedrec("data", "embed", data, "--encoder", f"{MINILM},vectors:mine", "--json").out)
    assert found["width"] == 384 + 5
    config = small_config(encoder="vectors:mine", user_encoder=MINILM, rounds=1, validate_every=1)
    engine = Engine.from_recommender(begun(tmp_path / "run", data, config)).warm_up()
    engine.load_text_encoder()
    assert len(engine.recommend(Question(history=[catalogue.ids[0]], k=3)).items) == 3
    with pytest.raises(UnanswerableError, match="the encoder of this model, vectors:mine, reads none"):
        engine.recommend(Question(query="soup"))
    assert Recommender.load(tmp_path / "run").vectors.shape == (24, 5)
    refused = fedrec("data", "embed", data, "--vectors", tmp_path / "none.csv")
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "--vectors" in refused.err
