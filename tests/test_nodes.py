"""A federation's folders: dealt so that each node holds its own users and nothing else, and opens alone."""

import json
import shutil
import stat
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from torch import Tensor

from fedrec.data.catalogue import Catalogue
from fedrec.data.manifest import read_manifest
from fedrec.data.node_folders import SERVER
from fedrec.data.randomness import salt_of
from fedrec.data.shard import Shard
from fedrec.data.user_ids import load_user_ids
from fedrec.federation.node import Node
from tests.support.cli import Fedrec, is_refused
from tests.support.toy_world import events_by_salt, small_config, toy_interactions

PEOPLE = [f"person-{user:02d}" for user in range(12)]


def node_folders(out: Path) -> list[Path]:
    return sorted(out.glob("node-*"))


def dealt(out: Path) -> list[list[str]]:
    return [load_user_ids(folder).to_list() for folder in node_folders(out)]


def test_every_user_is_on_one_node_with_the_same_history(toy: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    done = fedrec("node", "split", toy, "--nodes", 5, "--out", "out", "--salt", "keep", "--json")
    assert (done.code, done.err) == (0, "")
    folders = list(node_folders(tmp_path / "out"))
    assert [node["folder"] for node in json.loads(done.out)["nodes"]] == [f"out/{folder.name}" for folder in folders]
    assert [node["users"] for node in json.loads(done.out)["nodes"]] == [3, 3, 2, 2, 2]
    shards = [Shard.load(folder) for folder in folders]
    assert events_by_salt(Shard.load(toy)) == {
        salt: items for shard in shards for salt, items in events_by_salt(shard).items()
    }
    assert sorted(user for users in dealt(tmp_path / "out") for user in users) == PEOPLE
    for folder, shard in zip(folders, shards, strict=True):
        manifest = read_manifest(folder)
        assert manifest["users"] == len(shard)
        assert manifest["interactions"] == len(shard.items)
        assert [salt_of(user) for user in load_user_ids(folder)] == shard.salts.tolist()


def test_a_nodes_folder_opens_with_nothing_else_in_reach(
    toy: Path, embeddings: Tensor, fedrec: Fedrec, tmp_path: Path
) -> None:
    fedrec("node", "split", toy, "--nodes", 2, "--out", "out")
    (folder := tmp_path / "alone").parent.mkdir(exist_ok=True)
    shutil.move(tmp_path / "out" / "node-1", folder)
    shutil.rmtree(tmp_path / "out")
    node = Node.open(folder, small_config())
    assert len(node.shard) == 6
    assert np.array_equal(node.setup.embeddings.matrix, embeddings)


def test_the_servers_folder_tells_of_nobody(toy: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    fedrec("node", "split", toy, "--nodes", 2, "--out", "out")
    server = tmp_path / "out" / SERVER
    assert Catalogue.load(server).fingerprint == Catalogue.load(toy).fingerprint
    assert not (server / "shard").exists()
    assert not {"users", "interactions", "repeats_dropped"} & read_manifest(server).keys()
    held = b"".join(path.read_bytes() for path in server.rglob("*") if path.is_file())
    assert not [user for user in PEOPLE if user.encode() in held]


def test_what_is_private_only_its_owner_can_read(toy: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    fedrec("node", "split", toy, "--nodes", 2, "--out", "out")
    for folder in node_folders(tmp_path / "out"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in (folder / "shard").iterdir()} == {0o600}


def test_uneven_shares_are_drawn_by_the_seed(toy: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    asked = ["node", "split", toy, "--nodes", 4, "--dirichlet", 0.2]
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        fedrec(*asked, "--seed", seed, "--out", out)
    assert dealt(tmp_path / "a") == dealt(tmp_path / "b") != dealt(tmp_path / "c")
    sizes = [len(users) for users in dealt(tmp_path / "a")]
    assert (sum(sizes), min(sizes)) == (12, 1)
    assert max(sizes) > 3


def test_shares_are_drawn_by_a_seed_of_any_length_and_come_out_even_at_the_largest(
    toy: Path, fedrec: Fedrec, tmp_path: Path
) -> None:
    done = fedrec("node", "split", toy, "--nodes", 2, "--dirichlet", "1e6", "--seed", 2**200, "--out", "out")
    assert (done.code, done.err) == (0, "")
    assert sum(len(users) for users in dealt(tmp_path / "out")) == 12


def test_a_node_for_each_value_of_a_column(toy: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    taste = ["cooks" if user < 6 else "flies" for user in range(12)]
    pl.DataFrame({"who": PEOPLE, "taste": taste}).write_csv(tmp_path / "people.csv")
    asked = ["node", "split", toy, "--by", "people.csv", "--user-column", "who", "--column", "taste", "--out", "out"]
    done = fedrec(*asked)
    assert "taste cooks" in done.out
    assert dealt(tmp_path / "out") == [PEOPLE[:6], PEOPLE[6:]]
    shutil.rmtree(tmp_path / "out")
    pl.DataFrame({"who": PEOPLE[1:], "taste": taste[1:]}).write_csv(tmp_path / "people.csv")
    is_refused(fedrec(*asked), "people.csv: user 'person-00' has no taste")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--nodes", "13"], ["--nodes 13", "12 users"]),
        ([], ["--nodes", "--by"]),
        (["--nodes", "2", "--by", "people.csv"], ["--nodes", "--by"]),
        (["--by", "people.csv"], ["--column"]),
        (["--by", "absent.csv", "--column", "taste"], ["absent.csv is no file"]),
        *((["--nodes", "2", "--dirichlet", x], [f"--dirichlet {x}: give a number"]) for x in ("0", "-1", "inf", "nan")),
        (["--nodes", "2", "--dirichlet", "1e308"], ["--dirichlet 1e+308", "1,000,000 at most"]),
        (["--nodes", "0"], ["--nodes", "0"]),
    ],
)
def test_a_split_that_cannot_be_is_refused(
    toy: Path, fedrec: Fedrec, tmp_path: Path, options: list[str], words
) -> None:
    is_refused(fedrec("node", "split", toy, "--out", "out", *options), *words)
    assert not (tmp_path / "out").exists()


def test_a_split_does_not_overwrite(toy: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    is_refused(fedrec("node", "split", toy, "--nodes", 2, "--out", "out"), "--out out is not empty")
    is_refused(fedrec("node", "split", tmp_path, "--nodes", 2, "--out", "new"), "is not a prepared dataset")


# ---- a node's own table


@pytest.fixture
def public(toy: Path, fedrec: Fedrec, tmp_path: Path) -> Path:
    fedrec("node", "split", toy, "--nodes", 1, "--out", "split")
    return tmp_path / "split" / SERVER


def own(folder: Path, *users: int) -> Path:
    """The events of some users, as a node's own table."""
    path = folder / "events.csv"
    toy_interactions().filter(pl.col("user_id").is_in([PEOPLE[user] for user in users])).write_csv(path)
    return path


def test_a_node_prepares_its_own_table(toy: Path, public: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    done = fedrec("node", "prepare", "--catalogue", public, "--interactions", own(tmp_path, 3, 7), "--out", "node")
    assert (done.code, done.err) == (0, "")
    shard, whole = Shard.load(tmp_path / "node"), Shard.load(toy)
    assert load_user_ids(tmp_path / "node").to_list() == [PEOPLE[3], PEOPLE[7]]
    for row, user in enumerate((3, 7)):
        assert shard.history(row).tolist() == whole.history(user).tolist()
    assert not set(shard.salts.tolist()) & set(whole.salts.tolist()), "a guess of the id is no guess of the salt"


def test_salts_stay_when_a_node_prepares_again(public: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    asked = ["node", "prepare", "--catalogue", public, "--interactions", tmp_path / "events.csv", "--out", "node"]
    own(tmp_path, 3, 7)
    fedrec(*asked)
    before = Shard.load(tmp_path / "node").salts.tolist()
    own(tmp_path, 1, 3, 7)
    fedrec(*asked)
    after = Shard.load(tmp_path / "node").salts.tolist()
    assert len(after) == 3
    assert after[1:] == before


def test_events_that_the_catalogue_does_not_know_are_counted(public: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    path = own(tmp_path, 3)
    path.write_text(path.read_text() + "person-03,film-sponge,9000\nperson-50,film-bread,1\n")
    done = fedrec("node", "prepare", "--catalogue", public, "--interactions", path, "--out", "node")
    assert "catalogue lacks, left out: 1 of 12; its ids look like 'film-sponge', the catalogue's like" in done.err
    assert "users with fewer than 3 events, left out: 1 of 2" in done.err
    assert read_manifest(tmp_path / "node")["unknown_events_dropped"] == 1
    assert len(Shard.load(tmp_path / "node")) == 1


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("user_id,item_id,timestamp\na,x,1\n", ["events.csv: none of its items", "'x'", "'film-bread'"]),
        ("user_id,item_id,timestamp\na,film-bread,1\n", ["no user has 3 events"]),
        ("user,item_id,timestamp\na,film-bread,1\n", ["has no column 'user_id'", "--user-column"]),
    ],
)
def test_a_table_that_cannot_be_a_nodes_is_refused(
    public: Path, fedrec: Fedrec, tmp_path: Path, table: str, words: list[str]
) -> None:
    (tmp_path / "events.csv").write_text(table)
    asked = ["node", "prepare", "--catalogue", public, "--interactions", "events.csv", "--out", "node"]
    is_refused(fedrec(*asked), *words)
    assert not (tmp_path / "node").exists()
