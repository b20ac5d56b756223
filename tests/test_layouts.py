"""Datasets in the layouts of RecBole, RecTools and LensKit, in files as these libraries write them."""

import json
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

import fedrec as library
from fedrec.data.errors import InputError
from fedrec.data.readers.layouts import read_layout
from tests.support.cli import Fedrec, is_refused
from tests.support.toy_world import histories

EVENTS = [(user, item, place) for user in "uvw" for place, item in enumerate("abcd" if user == "u" else "dcba")]
TITLES = {"a": "Apple pie", "b": "Bread", "c": "Comet", "d": "Dough"}


def write_recbole(folder: Path) -> Path:
    """Write atomic files; the rating is a field that nothing here reads, and the last item has no genre."""
    folder.mkdir()
    rows = "".join(f"{user}\t{item}\t4.0\t{place}\n" for user, item, place in EVENTS)
    (folder / "shop.inter").write_text(f"user_id:token\titem_id:token\trating:float\ttimestamp:float\n{rows}", "utf-8")
    items = "".join(f"{item}\tfood sweet\t{title}\n" for item, title in TITLES.items())
    (folder / "shop.item").write_text(f"item_id:token\tgenre:token_seq\tmovie_title:token_seq\n{items}", "utf-8")
    return folder


def write_rectools(folder: Path) -> Path:
    """Write interactions, and features with a row for each value."""
    folder.mkdir()
    rows = [{"user_id": u, "item_id": i, "weight": 1.0, "datetime": datetime(2024, 1, 1 + t)} for u, i, t in EVENTS]
    pl.DataFrame(rows).write_csv(folder / "interactions.csv")
    values = [(i, "title", title) for i, title in TITLES.items()] + [
        (i, "genre", g) for i in TITLES for g in ("x", "y")
    ]
    pl.DataFrame(values, schema=["id", "feature", "value"], orient="row").write_csv(folder / "features.csv")
    return folder


def write_lenskit(folder: Path) -> Path:
    """Write what `lenskit.data.Dataset.save` writes, in version 2025.3 of its format."""
    folder.mkdir()
    users, items = sorted({user for user, _, _ in EVENTS}), list(TITLES)
    schema = {"version": "2025.3", "name": "shop", "default_interaction": "purchase"}
    schema |= {"entities": {"item": {}, "user": {}}, "relationships": {"purchase": {"interaction": True}}}
    (folder / "schema.json").write_text(json.dumps(schema), "utf-8")
    pl.DataFrame({"user_id": users}).write_parquet(folder / "user.parquet")
    genres = pl.Series([["x", "y"], ["x"], None, []], dtype=pl.List(pl.String))
    described = {"item_id": items, "genres": genres, "title": list(TITLES.values())}
    pl.DataFrame(described).write_parquet(folder / "item.parquet")
    rows = [
        {"user_num": users.index(u), "item_num": items.index(i), "timestamp": datetime(2024, 1, 1 + t)}
        for u, i, t in EVENTS
    ]
    numbered = pl.DataFrame(rows, schema_overrides={"user_num": pl.Int32, "item_num": pl.Int32})
    numbered.write_parquet(folder / "purchase.parquet")
    return folder


@pytest.mark.parametrize("layout", ["recbole", "rectools", "lenskit"])
def test_the_same_dataset_in_every_layout(layout: str, tmp_path: Path, fedrec: Fedrec) -> None:
    source = {"recbole": write_recbole, "rectools": write_rectools, "lenskit": write_lenskit}[layout](tmp_path / "in")
    tables = [source / "interactions.csv", "--items", source / "features.csv"] if layout == "rectools" else [source]
    asked = ("data", "import", *tables, "--layout", layout, "--name", "shop", "--json", "--out", tmp_path / "out")
    assert fedrec(*asked).answer["users"] == 3
    assert sorted(histories(tmp_path / "out")) == ["abcd", "dcba", "dcba"]
    dataset = library.Dataset.open(tmp_path / "out")
    assert dict(zip(dataset.catalogue.ids, dataset.catalogue.titles, strict=True)) == TITLES
    assert "x" in dataset.catalogue.texts[0] or "food sweet" in dataset.catalogue.texts[0]
    assert sorted(dataset.users) == ["u", "v", "w"]


def test_atomic_files_by_name_without_times_and_items(tmp_path: Path) -> None:
    (tmp_path / "one.inter").write_text("user_id:token\titem_id:token\nu\ta\nu\tb\nu\tc\n", "utf-8")
    (tmp_path / "two.inter").write_text("user_id:token\titem_id:token\nu\tz\n", "utf-8")
    found = read_layout("recbole", tmp_path / "one.inter")
    assert found.events["item_id"].to_list() == ["a", "b", "c"]
    assert found.items is None
    with pytest.raises(InputError, match="2: one, two; name the file itself"):
        read_layout("recbole", tmp_path)
    shop = library.import_dataset(tmp_path / "one.inter", layout="recbole", name="shop", out=tmp_path / "out")
    assert histories(shop.folder) == ["abc"]


def test_what_is_no_such_dataset_is_named(tmp_path: Path, fedrec: Fedrec) -> None:
    (table := tmp_path / "events.csv").write_text("user,item,datetime\nu,a,2024-01-01\n", "utf-8")
    asked = ("data", "import", table, "--name", "shop", "--layout")
    is_refused(fedrec(*asked, "rectools"), "lacks the column 'user_id'", "user, item, datetime")
    is_refused(fedrec(*asked, "lenskit"), "no dataset that LensKit has saved", "schema.json")
    is_refused(fedrec(*asked, "recbole"), "events.inter")
    is_refused(fedrec(*asked, "lenskit", "--items", table), "--items", "leave it out")
    with pytest.raises(InputError, match="recbole, rectools, lenskit"):
        read_layout("csv", table)
    with pytest.raises(InputError, match="not a frame"):
        library.import_dataset(pl.DataFrame(), layout="rectools", name="shop")
