"""Large tables are read and gathered in parts, and give what small ones give, to the byte."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fedrec.data import histories, popularity, shard
from fedrec.data.dataset import Dataset
from fedrec.data.histories import count_rows
from fedrec.data.manifest import read_manifest
from fedrec.data.node_folders import prepare_node, write_public_folder
from fedrec.data.prepare import prepare_tables
from fedrec.data.readers import large_tables
from fedrec.data.readers.formats import TableFile
from fedrec.data.readers.large_tables import read_sound_events
from fedrec.data.readers.rules import Rules
from fedrec.data.readers.tables import Tables
from fedrec.data.shard import FILES
from fedrec.data.synthetic.random_tables import INTERACTIONS, ITEMS, SyntheticConfig, synthesise

WORLD = SyntheticConfig(users=60, items=600, interactions=600, seed=0)
COLUMNS = {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp"}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "tables"
    synthesise(WORLD, folder, lambda done, total: None)
    events = pl.read_csv(folder / INTERACTIONS, infer_schema=False)
    repeated = pl.concat([events, events.head(40), pl.DataFrame({"user_id": "lone", "item_id": "7", "timestamp": "9"})])
    repeated.write_csv(folder / INTERACTIONS)
    return folder


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read every table as a large one, and gather a few events and users at a time."""
    monkeypatch.setattr(large_tables, "LARGE", 0)
    monkeypatch.setattr(histories, "BLOCK", 50)
    monkeypatch.setattr(histories, "PART", 200)
    for module in (histories, shard, popularity):
        monkeypatch.setattr(module, "SLICE", 7)


def prepared(tables: Path, out: Path, name: str = INTERACTIONS) -> Path:
    columns = ("user_id", "item_id", "timestamp", ())
    prepare_tables(Tables(tables / name, tables / ITEMS, *columns), out, "large", rules=Rules(salts="by-id"))
    return out


def test_a_large_table_gives_the_folder_of_a_small_one(
    tables: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    small = prepared(tables, tmp_path / "small")
    request.getfixturevalue("in_parts")
    assert read_sound_events(TableFile(tables / INTERACTIONS), COLUMNS) is not None
    large = prepared(tables, tmp_path / "large")
    for file in (*FILES, "shard/users.parquet", "catalogue.parquet"):
        assert (small / file).read_bytes() == (large / file).read_bytes(), file
    assert read_manifest(small) == read_manifest(large)
    assert read_manifest(small)["repeats_dropped"] >= 40
    write_public_folder(Dataset.open(large), tmp_path / "public", {})
    own = Tables(tables / INTERACTIONS, None, "user_id", "item_id", "timestamp", ())
    node = prepare_node(tmp_path / "public", own, tmp_path / "node", lambda line: None)
    assert node["interactions"] == read_manifest(large)["interactions"]


@pytest.mark.parametrize(
    "row",
    [
        ("", "3", "5"),
        ("u", None, "5"),
        ("u", "3", "soon"),
        ("u", "3", "2024-01-01"),
        ("u", "3", "1.5"),
        ("u\x07", "3", "5"),
        ("u", "..", "5"),
    ],
    ids=repr,
)
@pytest.mark.usefixtures("in_parts")
def test_a_row_that_is_not_sound_is_left_to_the_reader_of_small_files(tmp_path: Path, row: tuple[str, ...]) -> None:
    good = [("u", str(item), str(item)) for item in range(5)]
    path = tmp_path / "log.csv"
    for rows, sound in ((good, True), ([*good, row], False)):
        pl.DataFrame(rows, schema=list(COLUMNS), orient="row").write_csv(path)
        found = read_sound_events(TableFile(path), COLUMNS)
        assert (found is not None) == sound
    assert read_sound_events(TableFile(path), COLUMNS | {"rating": "rating"}) is None


def test_rows_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "SLICE", 3)
    rows = np.array([5, 0, 2, 2, 1, 0, 0], dtype=np.uint32)
    assert count_rows(rows).tolist() == [3, 1, 2, 0, 0, 1]
    assert count_rows(rows[:3], 8).tolist() == [1, 0, 1, 0, 0, 1, 0, 0]
    assert count_rows(rows[:0]).tolist() == []
