"""Salts are random unless asked otherwise: a guess of ids finds no ticket. They stay when data are prepared again."""

from pathlib import Path

import polars as pl
import pytest

from fedrec.data.randomness import salt_of, ticket_of
from fedrec.data.shard import Shard
from fedrec.data.user_ids import load_user_ids
from tests.support.cli import Fedrec
from tests.support.toy_world import toy_interactions

PEOPLE = [f"person-{user:02d}" for user in range(12)]


def found_by_guess(folder: Path, guesses: int = 1000) -> int:
    """How many tickets of a folder an attacker knows who derives one from each id that is likely."""
    guessed = {ticket_of(salt_of(f"person-{number:02d}")) for number in range(guesses)}
    return len(guessed & set(Shard.load(folder).tickets().tolist()))


@pytest.fixture
def events(tmp_path: Path) -> Path:
    toy_interactions().write_csv(path := tmp_path / "events.csv")
    return path


def imported(fedrec: Fedrec, events: Path, out: str, *more: object) -> Path:
    done = fedrec("data", "import", events, "--name", "toy", "--out", out, *more)
    assert done.code == 0, done.err
    return events.parent / out


def salts_by_id(folder: Path) -> dict[str, int]:
    return dict(zip(load_user_ids(folder).to_list(), Shard.load(folder).salts.tolist(), strict=True))


def test_a_guess_of_ids_finds_nobody_who_was_imported(events: Path, fedrec: Fedrec) -> None:
    assert found_by_guess(imported(fedrec, events, "random")) == 0
    assert found_by_guess(imported(fedrec, events, "guessable", "--salt", "by-id")) == 12, "the attack works"


def test_a_guess_of_ids_finds_nobody_on_a_node(toy: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    for rule, found in (("random", 0), ("keep", 12)):
        fedrec("node", "split", toy, "--nodes", 2, "--out", rule, "--salt", rule)
        assert sum(found_by_guess(tmp_path / rule / f"node-{number}") for number in range(2)) == found, rule


def test_a_split_keeps_random_salts(events: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    """So a federation of real nodes learns the model that `fedrec train` learns from the folder."""
    whole = salts_by_id(imported(fedrec, events, "data"))
    fedrec("node", "split", "data", "--nodes", 2, "--out", "split")
    assert whole == salts_by_id(tmp_path / "split" / "node-0") | salts_by_id(tmp_path / "split" / "node-1")


def test_an_import_in_place_keeps_salts_and_gives_new_users_new_ones(events: Path, fedrec: Fedrec) -> None:
    log = toy_interactions()
    log.filter(pl.col("user_id") != PEOPLE[3]).write_csv(events)
    before = salts_by_id(imported(fedrec, events, "data"))
    log.write_csv(events)
    after = salts_by_id(imported(fedrec, events, "data"))
    assert set(after) - set(before) == {PEOPLE[3]}
    assert before.items() <= after.items()
    assert len(set(after.values())) == 12
    assert not before.items() & salts_by_id(imported(fedrec, events, "elsewhere")).items()


def test_salts_of_an_old_folder_that_ids_give_away_are_replaced_with_a_word(events: Path, fedrec: Fedrec) -> None:
    imported(fedrec, events, "data", "--salt", "by-id")
    done = fedrec("data", "import", events, "--name", "toy", "--out", "data")
    assert "salts derived from users' ids, which give away tickets, replaced by random ones: 12 of 12" in done.err
    assert found_by_guess(events.parent / "data") == 0


def test_a_damaged_folder_is_imported_again_with_a_word(events: Path, fedrec: Fedrec) -> None:
    (imported(fedrec, events, "data") / "shard" / "users.parquet").write_bytes(b"no table")
    done = fedrec("data", "import", events, "--name", "toy", "--out", "data")
    assert done.code == 0
    assert "users.parquet is missing or damaged" in done.err
    assert "its users get new salts" in done.err
