"""Files that somebody else may have written: each fault is one line that names the file, and nothing hangs."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from fedrec.data.catalogue import FILE as CATALOGUE
from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.manifest import MANIFEST, read_manifest
from fedrec.data.shard import FOLDER, Shard
from fedrec.data.storage.reading import LARGEST, read_json, read_toml
from fedrec.data.user_ids import load_user_ids
from fedrec.federation import round_log
from fedrec.federation.checkpoint import STATE, State
from fedrec.federation.config import from_nested
from fedrec.recsys.card import CARD, load_card
from fedrec.recsys.embeddings import embed_catalogue
from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.evaluation.ranking import rank
from fedrec.recsys.model.lora import fingerprint
from fedrec.recsys.recommender import TOWERS, VECTORS, Recommender, load_adapter
from fedrec.serving.database import Database
from fedrec.serving.model_manager import ModelManager
from fedrec.serving.model_source import ModelSource
from fedrec.serving.settings import Settings
from fedrec.serving.store import Store
from fedrec.settings_file import read_settings
from tests.support.toy_world import small_config

READERS: Mapping[str, Callable[[Path], object]] = {
    CARD: lambda path: load_card(path.parent),
    MANIFEST: lambda path: read_manifest(path.parent),
    "table.json": lambda path: read_json(path, "mend it"),
    "settings.toml": lambda path: read_toml(path, "mend it"),
    "config.toml": lambda path: read_settings(path, []),
    "serve.toml": lambda path: Settings.read(path, {}),
    round_log.FILE: lambda path: round_log.read(path.parent),
    STATE: lambda path: State.load(path.parent),
    "shard/items.npy": lambda path: Shard.load(path.parent.parent),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_refused_at_once(name: str, kind: str, toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy / FOLDER, tmp_path / FOLDER)
    (path := tmp_path / name).unlink(missing_ok=True)
    (os.mkfifo if kind == "pipe" else os.mkdir)(path)
    with pytest.raises(InputError, match=rf"{name} is a {kind}, where a file belongs; "):
        READERS[name](path)


@pytest.mark.parametrize("name", [CARD, MANIFEST, "table.json", "settings.toml", "config.toml", "serve.toml"])
def test_a_table_of_a_terabyte_is_not_read(name: str, tmp_path: Path) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match=rf"{name} is larger than {LARGEST:,} bytes"):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", [CARD, MANIFEST, "table.json"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON"),
        ('{"a": NaN}', "is not JSON (NaN is no number of JSON)"),
        ('{"a": [-Infinity]}', "is not JSON (-Infinity is no number of JSON)"),
        ('{"a": 1e999}', "is not JSON (1e999 is no number of JSON)"),
        ('{"a": {"b": 1, "b": 2}}', "is not JSON (the key 'b' stands there twice)"),
        ("[" * 100_000, "is nested too deeply for JSON"),
        ("[]", "holds list where a table belongs"),
        ("null", "holds NoneType where a table belongs"),
        (b'{"a": "\xff"}', "is not JSON ('utf-8' codec"),
    ],
)
def test_what_is_no_json_table_is_refused(name: str, content: str | bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        READERS[name](tmp_path / name)
    assert f"{name} {says}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_before_a_table_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfrounds = 7\n")
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"rounds": 7}')
    assert read_toml(tmp_path / "a.toml", "") == read_json(tmp_path / "a.json", "") == {"rounds": 7}


def test_settings_that_are_nested_deeply_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(
        InputError, match=r"^`config` .*a\.toml is nested too deeply for TOML; mend it, or use `settings`$"
    ):
        read_settings(tmp_path / "a.toml", [])


# ---- a prepared folder


def changed(path: Path, **values: Any) -> None:
    """Change a JSON file: dotted names in place of dots have `__`; `...` removes one."""
    table = json.loads(path.read_text("utf-8"))
    for name, value in values.items():
        *outer, last = name.split("__")
        place = table
        for part in outer:
            place = place[part]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    path.write_text(json.dumps(table), "utf-8")


@pytest.fixture
def data(toy: Path, tmp_path: Path) -> Path:
    return shutil.copytree(toy, tmp_path / "data")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"catalogue_fingerprint": ...}, "has no catalogue_fingerprint; prepare the data again"),
        ({"min_events": "3"}, "min_events is '3', where a whole number belongs; prepare the data again"),
        ({"min_events": True}, "min_events is True, where a whole number belongs"),
        ({"split": ["leave"]}, "split is ['leave'], where text belongs"),
    ],
)
def test_a_manifest_of_other_types_is_refused(change: dict[str, Any], says: str, data: Path) -> None:
    changed(data / MANIFEST, **change)
    with pytest.raises(InputError) as caught:
        read_manifest(data)
    assert f"{MANIFEST}" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"item_id": pl.lit("film-bread")}, "holds the item 'film-bread' twice"),
        ({"item_id": pl.lit(None, pl.String)}, "row 1 has no item_id"),
        ({"title": pl.when(pl.col("item_id") != "film-soup").then("title")}, "row 2 has no title"),
        ({"text": pl.lit(None, pl.String)}, "row 1 has no text"),
        ({"item_id": pl.int_range(24)}, "item_id is of type Int64, not String"),
        ({"cold": pl.lit("no")}, "cold is of type String, not Boolean"),
        ({"cold": pl.lit(None, pl.Boolean)}, "row 1 has no cold"),
    ],
)
def test_a_catalogue_with_gaps_is_refused(change: dict[str, pl.Expr], says: str, data: Path) -> None:
    pl.read_parquet(data / CATALOGUE).with_columns(**change).write_parquet(data / CATALOGUE)
    with pytest.raises(InputError) as caught:
        Catalogue.load(data)
    assert f"{CATALOGUE}: {says}" in str(caught.value) or f"{CATALOGUE} {says}" in str(caught.value)


def test_a_catalogue_of_more_rows_than_memory_holds_is_not_read(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are alike take next to no room in a file."""
    pl.select(pl.repeat("a", 10_000_000).alias("item_id")).write_parquet(data / CATALOGUE)
    assert (data / CATALOGUE).stat().st_size < 200_000
    free = psutil.virtual_memory()._replace(available=100_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(InputError, match=r"catalogue\.parquet has 10,000,000 rows, more than memory can hold"):
        Catalogue.load(data)


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("starts", np.array([0, 3, 2]), "do not belong together"),
        ("items", np.zeros(5), "items.npy holds no list of whole numbers"),
        ("items", np.zeros((5, 1), dtype=np.int32), "items.npy holds no list of whole numbers"),
        ("salts", np.array(["a"]), "salts.npy holds no list of whole numbers"),
    ],
)
def test_an_array_of_another_kind_is_refused(name: str, values: np.ndarray, says: str, data: Path) -> None:
    np.save(data / FOLDER / f"{name}.npy", values)
    with pytest.raises(InputError, match=says):
        Shard.load(data)


def test_histories_that_do_not_rise_are_refused(data: Path) -> None:
    path = data / FOLDER / "starts.npy"
    bounds = np.load(path)
    for wrong in (np.where(bounds == bounds[1], bounds[2] + 1, bounds), np.where(bounds == 0, 1, bounds)):
        np.save(path, wrong)
        with pytest.raises(InputError, match=r"starts\.npy: a history has no event to train on"):
            Shard.load(data)


@pytest.mark.parametrize("row", [-5, 24, 2**31 - 1])
def test_a_row_of_no_item_is_refused_and_hides_nobodys_items(row: int, data: Path) -> None:
    """Also where it is older than what a model reads of a history."""
    items = np.load(data / FOLDER / "items.npy")
    items[0] = row
    np.save(data / FOLDER / "items.npy", items)
    with pytest.raises(InputError, match="the histories name items that the catalogue lacks; prepare the data again"):
        rank(lambda histories: torch.zeros(len(histories), 24), Shard.load(data), range(12), "test")


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (["a"] * 11, "names 11 users, and the histories are of 12"),
        ([None] * 12, "its user_id is not text throughout"),
        (list(range(12)), "its user_id is not text throughout"),
    ],
)
def test_users_of_another_shard_are_refused(ids: list[Any], says: str, data: Path) -> None:
    pl.DataFrame({"user_id": ids}).write_parquet(data / FOLDER / "users.parquet")
    with pytest.raises(InputError, match=rf"users\.parquet.* {says}; prepare the data again"):
        load_user_ids(data)


@pytest.mark.parametrize(
    "wrong", [torch.zeros(24, 7), torch.zeros(23, 384), torch.full((24, 384), torch.nan), torch.zeros(24, 384).double()]
)
def test_embeddings_of_another_shape_or_kind_are_made_anew(
    wrong: torch.Tensor, data: Path, encoder: Encoder, embeddings: torch.Tensor
) -> None:
    (cache,) = data.glob("embeddings-*.safetensors")
    catalogue = Catalogue.load(data)
    save_file({"matrix": wrong}, cache, metadata=embed_catalogue(catalogue, encoder, data).provenance)
    assert torch.equal(embed_catalogue(catalogue, encoder, data).matrix, embeddings)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "config.json is missing"),
        ("[]", "config.json holds list where a table belongs"),
        ('{"hidden_act": "gelu"}', "config.json has no layer_norm_eps"),
        ('{"hidden_act": 7}', "config.json: hidden_act is 7, where text belongs"),
    ],
)
def test_an_encoder_without_its_config_is_refused(content: str | None, says: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content, "utf-8")
    broken = Encoder("mine", "local", "0", tmp_path)
    with pytest.raises(InputError, match=rf"{says}; fetch the encoder again"):
        _ = broken.architecture
    with pytest.raises(InputError, match=r"^encoder 'mine' cannot be opened"):
        broken.encode(["a"])


# ---- a run


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"config": []}, "config is [], where a table belongs"),
        ({"config__model": ...}, "has no config.model"),
        ({"data": "toy"}, "has no data.name"),
        ({"seed": "0"}, "seed is '0', where a whole number belongs"),
        ({"encoder__sha256": ...}, "has no encoder.sha256"),
        ({"fingerprints": {}}, "has no fingerprints.adapter"),
        ({"model_version": 7}, "model_version is 7, where text belongs"),
        ({"config__model__layers": "two"}, "config.model.layers = 'two': input should be a valid integer"),
        ({"config__model__later": 1}, "config.model.later is not known; the run is of a later version"),
        ({"config__model__layers": 10**9}, "the adapter has 1 layers, not 1000000000 as the card states"),
        ({"config__model__item_rank": 10**9}, "item.down of the adapter has the shape (4, 384), and not (1000000000, "),
        ({"config__model__lora_rank": 3}, "lora_A of the adapter has the shape (2, 384), and not (3, 384) as the card"),
    ],
)
def test_a_card_that_tells_something_else_is_refused(change: dict[str, Any], says: str, copied: Path) -> None:
    changed(copied / CARD, **change)
    with pytest.raises(InputError) as caught:
        Recommender.load(copied)
    assert says in str(caught.value)
    assert str(caught.value).endswith("copy the run again")


def forged(run: Path, vectors: torch.Tensor | None = None, **towers: torch.Tensor) -> None:
    """Put other tensors into a run, and their fingerprints into its card."""
    save_file({"vectors": vectors} if vectors is not None else load_file(run / VECTORS), run / VECTORS)
    save_file(load_file(run / TOWERS) | {name.replace("_", "."): t for name, t in towers.items()}, run / TOWERS)
    prints = {"adapter": load_adapter(run), "item_vectors": load_file(run / VECTORS)}
    changed(run / CARD, fingerprints={name: fingerprint(tensors) for name, tensors in prints.items()})


NAN = torch.full((24, 384), torch.nan)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"vectors": NAN}, "vectors holds 9,216 numbers that are not finite"),
        ({"vectors": torch.zeros(23, 384)}, "for 24 items"),
        ({"vectors": torch.zeros(24)}, "for 24 items"),
        ({"vectors": torch.zeros(24, 384).double()}, r"vectors is of torch.float64, not torch.float32"),
        ({"vectors": torch.zeros(24, 7)}, r"item.down of the adapter has the shape \(4, 384\), and not \(4, 7\)"),
        ({"item_up": torch.full((384, 4), torch.inf)}, "item.up holds 1,536 numbers that are not finite"),
        ({"item_up": torch.zeros(384, 5)}, r"item.up of the adapter has the shape \(384, 5\), and not \(384, 4\)"),
        ({"more_up": torch.zeros(1)}, r"more.up of the adapter has the shape \(1,\), and not None"),
    ],
)
def test_tensors_that_are_no_models_are_refused(tensors: dict[str, Any], says: str, copied: Path) -> None:
    forged(copied, **tensors)
    with pytest.raises(InputError, match=says):
        Recommender.load(copied)


def test_a_reload_of_a_broken_run_leaves_the_old_one_answering(copied: Path) -> None:
    live = ModelManager([ModelSource(lambda: Recommender.load(copied))], Store(Database.open(None)))
    (before,) = live.reload()
    forged(copied, NAN)
    with pytest.raises(InputError, match="not finite"):
        live.reload()
    assert live.engine is before


def test_ids_of_an_old_catalogue_that_cannot_be_asked_for_are_told(
    copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame = pl.read_parquet(copied / CATALOGUE)
    Catalogue(frame.with_columns(item_id=pl.col("item_id").replace("film-soup", ".."))).save(copied)
    changed(copied / CARD, data__catalogue_fingerprint=Catalogue.load(copied).fingerprint)
    assert Recommender.load(copied).catalogue.row("..") == 1
    (told,) = caplog.messages
    assert "1 items have ids that cannot be asked for by a URL; '..' is '.' or '..', which no URL can carry" in told


# ---- what a run in progress leaves


def test_a_line_of_the_log_that_is_damaged_is_named_unless_it_is_the_last(tmp_path: Path) -> None:
    (tmp_path / round_log.FILE).write_text('{"round": 1}\n{"round": 2}\n{"rou', "utf-8")
    assert round_log.read(tmp_path) == [{"round": 1}, {"round": 2}]
    for line in ("{", "[]", '{"turn": 2}', "\x00" * 100):
        (tmp_path / round_log.FILE).write_text(f'{{"round": 1}}\n{line}\n{{"round": 3}}\n', "utf-8")
        with pytest.raises(InputError, match=r"rounds\.jsonl line 2 is no round .*; remove the line$"):
            round_log.read(tmp_path)


@pytest.mark.parametrize(
    ("part", "tensor", "says"),
    [
        ("adapter", torch.tensor([torch.nan, 1.0]), "adapter/a is not of finite numbers of torch.float32"),
        ("momentum", torch.zeros(2), "momentum/a is not of finite numbers of torch.float64"),
        ("best", torch.zeros(3), "best has other names or shapes than the adapter"),
    ],
)
def test_a_state_that_no_training_leaves_is_refused(part: str, tensor: torch.Tensor, says: str, tmp_path: Path) -> None:
    State.start({"a": torch.zeros(2)}, small_config().server).save(tmp_path)
    with_numbers = {"numbers": json.dumps({"round": 0, "best_round": 0, "best_score": -1.0, "run": "r", "roster": ""})}
    save_file(load_file(tmp_path / STATE) | {f"{part}/a": tensor}, tmp_path / STATE, metadata=with_numbers)
    with pytest.raises(InputError, match=says):
        State.load(tmp_path)


@pytest.mark.parametrize("metadata", [None, {}, {"numbers": "[]"}, {"numbers": '{"turn": 1}'}, {"numbers": "[" * 9999}])
def test_a_state_without_its_numbers_is_refused(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    State.start({"a": torch.zeros(2)}, small_config().server).save(tmp_path)
    save_file(load_file(tmp_path / STATE), tmp_path / STATE, metadata=metadata)
    with pytest.raises(InputError, match=rf"{STATE}.*; train again into another folder"):
        State.load(tmp_path)


@pytest.mark.parametrize("nested", [{"model": []}, {"fit": 3}, {"seed": None}])
def test_a_config_of_other_types_is_refused(nested: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"^setting {next(iter(nested))} = "):
        from_nested(nested)
