"""Frames → a prepared folder: what is kept, in which order, who is told, and what a failure leaves behind."""

import hashlib
import os
import re
import signal
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.data.catalogue import FILE, Catalogue
from fedrec.data.errors import InputError
from fedrec.data.fingerprint import FILE as KEY
from fedrec.data.histories import BLOCK, Histories
from fedrec.data.histories import build_histories as gather
from fedrec.data.manifest import MANIFEST, PREPARED, read_manifest
from fedrec.data.prepare import Origin, prepare, prepare_tables, write_dataset
from fedrec.data.randomness import salt_of
from fedrec.data.readers.raw import Frames, open_root
from fedrec.data.readers.rules import Rules
from fedrec.data.readers.source import Source
from fedrec.data.readers.sources import source_named
from fedrec.data.readers.tables import Tables
from fedrec.data.shard import Shard
from fedrec.data.split import Split
from fedrec.data.storage.atomic_files import replaced_file, replaced_folder
from fedrec.data.synthetic import demo_films
from tests.support.toy_world import histories

Event = tuple[str, str, int]  # user, item, time


def frames(*events: Event, described: str = "abcde") -> Frames:
    """Events, and items `a`, `b`, … whose text is `about a`, `about b`, …"""
    items = [(item_id, item_id.upper(), f"about {item_id}") for item_id in described]
    return Frames(
        pl.DataFrame(events, schema=["user_id", "item_id", "timestamp"], orient="row"),
        pl.DataFrame(items, schema=["item_id", "title", "text"], orient="row"),
    )


def of_ann(items: str) -> list[Event]:
    """Ann's events with these items, one a second."""
    return [("ann", item_id, second) for second, item_id in enumerate(items)]


@pytest.mark.parametrize(
    ("events", "history"),
    [
        ([("ann", "a", 3), ("ann", "b", 1), ("ann", "c", 2)], "bca"),
        ([("ann", "a", 5), ("ann", "b", 5), ("ann", "c", 5), ("ann", "d", 5)], "abcd"),
        ([("ann", "d", 5), ("ann", "c", 5), ("ann", "b", 5), ("ann", "a", 5)], "dcba"),
        ([("ann", "c", 5), ("ann", "a", 5), ("ann", "d", 1), ("ann", "b", 5)], "dcab"),
    ],
)
def test_time_orders_and_ties_keep_file_order(events: list[Event], history: str, tmp_path: Path) -> None:
    write_dataset(frames(*events), tmp_path / "out", name="toy")
    assert histories(tmp_path / "out") == [history]


def test_ties_keep_file_order_in_a_long_file(tmp_path: Path) -> None:
    """Three times for 20,000 events: a sort that is stable only by luck on a short file is not on this one."""
    events = [("ann", f"i{number}", number * 7919 % 3) for number in range(20_000)]
    write_dataset(frames(*events), tmp_path / "out", name="toy")
    catalogue, shard = Catalogue.load(tmp_path / "out"), Shard.load(tmp_path / "out")
    ids = [item_id for second in range(3) for _, item_id, time in events if time == second]
    assert [catalogue.ids[row] for row in shard.items] == ids
    assert catalogue.ids[shard.held_out([0], "test")[0]] == ids[-1]


Row = tuple[int, int, float]  # user, item, time


def gathered(rows: list[Row]) -> dict[str, list[int]]:
    """The histories of interactions whose items are rows of the catalogue."""
    users, items, times = (np.array(column) for column in zip(*rows, strict=True))
    frame = pl.DataFrame({"user_id": pl.Series(users).cast(pl.String), "timestamp": times})
    found: Histories = gather(frame, items)
    return dict(
        zip(found.users, (part.tolist() for part in np.split(found.items, found.lengths.cumsum())), strict=False)
    )


def by_hand(rows: list[Row]) -> dict[str, list[int]]:
    """The same, event by event."""
    found: dict[str, dict[int, None]] = {}
    for user, item, _ in sorted(rows, key=lambda row: row[2]):
        found.setdefault(str(user), {}).setdefault(item)
    return {user: list(items) for user, items in found.items()}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=60))
def test_histories_are_those_found_event_by_event(rows: list[Row]) -> None:
    assert gathered(rows) == by_hand(rows)


@pytest.mark.parametrize("unit", [1, 1_000_000_000_000, 0.001], ids=["seconds", "picoseconds", "a fraction"])
def test_histories_are_the_same_in_many_blocks(unit: float) -> None:
    """As they are in one block, for users of one event and for one who has more than a block of them."""
    rng = np.random.default_rng(0)
    users = np.minimum(rng.geometric(0.3, 6 * BLOCK) ** 4, rng.integers(10**6, size=6 * BLOCK))
    columns = users, rng.integers(3000, size=len(users)), rng.integers(10**6, size=len(users)) * unit
    rows: list[Row] = list(zip(*(column.tolist() for column in columns), strict=True))
    assert gathered(rows) == by_hand(rows)


@pytest.mark.parametrize(
    ("split", "history", "held_out"),
    [("train", "abc", "d"), ("validation", "abc", "d"), ("test", "abcd", "e")],
)
def test_the_last_event_is_the_test_item_and_the_one_before_the_validation_item(
    split: str, history: str, held_out: str, tmp_path: Path
) -> None:
    write_dataset(frames(*of_ann("abcde")), tmp_path / "out", name="toy")
    shard = Shard.load(tmp_path / "out")
    assert shard.history(0, split).tolist() == ["abcde".index(item_id) for item_id in history]
    assert shard.held_out([0], split).tolist() == ["abcde".index(held_out)]


@pytest.mark.parametrize(
    ("events", "history", "repeats"),
    [
        (of_ann("abcd"), "abcd", 0),
        (of_ann("abac"), "abc", 1),
        (of_ann("aabbbc"), "abc", 3),
        ([("ann", "a", 9), ("ann", "b", 2), ("ann", "c", 3), ("ann", "a", 1)], "abc", 1),  # first in time, not in file
        ([*of_ann("abc"), ("ann", "c", 2)], "abc", 1),  # an exact duplicate
    ],
)
def test_the_first_of_repeats_is_kept(events: list[Event], history: str, repeats: int, tmp_path: Path) -> None:
    manifest = write_dataset(frames(*events), tmp_path / "out", name="toy")
    assert histories(tmp_path / "out") == [history]
    assert (manifest.interactions, manifest.repeats_dropped) == (len(history), repeats)


def test_repeats_are_kept_where_a_split_counts_them(tmp_path: Path) -> None:
    bob = [("bob", item_id, 0) for item_id in "aaa"]
    manifest = write_dataset(frames(*of_ann("abcbb"), *bob), tmp_path / "out", name="toy", split=Split(repeats=True))
    assert histories(tmp_path / "out") == ["abcbb", "aaa"]
    assert (manifest.interactions, manifest.repeats_dropped) == (5 + 3, 0)
    assert manifest.split == Split(repeats=True).description != Split().description


def test_users_with_few_events_are_dropped_and_counted(tmp_path: Path) -> None:
    """Repeats count once: Bob's three events are two items. Users stand in the order of their ids."""
    bob, eve, zoe = (
        [(user, item_id, 0) for item_id in items] for user, items in [("bob", "aba"), ("eve", "a"), ("zoe", "cab")]
    )
    events, by_id = frames(*zoe, *bob, *eve, *of_ann("abc")), Rules(salts="by-id")
    manifest = write_dataset(events, tmp_path / "out", name="toy", rules=by_id)
    assert (manifest.users, manifest.short_users_dropped, manifest.repeats_dropped) == (2, 2, 1)
    assert manifest.interactions == 3 + 3
    assert histories(tmp_path / "out") == ["abc", "cab"]
    assert Shard.load(tmp_path / "out").salts.tolist() == [salt_of("ann"), salt_of("zoe")]


def test_min_events_decides_who_is_short(tmp_path: Path) -> None:
    bob = [("bob", item_id, 0) for item_id in "abc"]
    manifest = write_dataset(frames(*of_ann("abcd"), *bob), tmp_path / "out", name="toy", rules=Rules(min_events=4))
    assert (manifest.users, manifest.short_users_dropped, manifest.min_events) == (1, 1, 4)


@pytest.mark.parametrize("items", ["ab", ""])
def test_nothing_left_is_refused(items: str, tmp_path: Path) -> None:
    given = frames(*of_ann("abc"))._replace(interactions=frames(*of_ann("abc")).interactions.head(len(items)))
    with pytest.raises(InputError, match="toy: no user has 3 events"):
        write_dataset(given, tmp_path / "out", name="toy")
    assert list(tmp_path.iterdir()) == []


def test_items_without_description_are_known_by_their_id(tmp_path: Path) -> None:
    manifest = write_dataset(frames(*of_ann("axbya"), described="ab"), tmp_path / "out", name="toy")
    catalogue = Catalogue.load(tmp_path / "out")
    assert manifest.items_without_description == 2
    assert catalogue.ids == ["a", "b", "x", "y"]
    assert catalogue.titles == ["A", "B", "x", "y"]
    assert catalogue.texts == ["about a", "about b", "x", "y"]
    assert histories(tmp_path / "out") == ["axby"]


def test_items_described_twice_are_listed_once(tmp_path: Path) -> None:
    write_dataset(frames(*of_ann("abc"), described="abcab"), tmp_path / "out", name="toy")
    assert Catalogue.load(tmp_path / "out").ids == ["a", "b", "c"]


def test_items_that_nobody_has_stay_in_the_catalogue(tmp_path: Path) -> None:
    manifest = write_dataset(frames(*of_ann("abc")), tmp_path / "out", name="toy")
    assert (manifest.items, Catalogue.load(tmp_path / "out").ids) == (5, ["a", "b", "c", "d", "e"])


def test_manifest_says_how_it_was_made(tmp_path: Path) -> None:
    events = frames(*of_ann("abxa"), ("bob", "a", 1), described="ab")
    manifest = write_dataset(events, tmp_path / "out", name="toy", origin=Origin("a shelf", "0" * 32, "A. Author"))
    texts = b"a\x1fabout a\x1eb\x1fabout b\x1ex\x1fx\x1e"
    assert asdict(manifest) == {
        "name": "toy",
        "users": 1,
        "items": 3,
        "interactions": 3,
        "events_read": 5,
        "bad_rows": 0,
        "other_events_dropped": 0,
        "rating_dropped": 0,
        "dates_dropped": 0,
        "repeats_dropped": 1,
        "short_users_dropped": 1,
        "long_users_dropped": 0,
        "core_dropped": 0,
        "split_dropped": 0,
        "training_only_users": 0,
        "ranked_users": {"validation": 1, "test": 1},
        "time_range": [0, 3],
        "steps": [
            {"step": "usable rows", "users": 2, "items": 3, "events": 5},
            {"step": "without repeats", "users": 2, "items": 3, "events": 4},
            {"step": "users of at least 3 events", "users": 1, "items": 3, "events": 3},
            {"step": "split: leave-one-out", "users": 1, "items": 3, "events": 3},
        ],
        "items_without_description": 1,
        "items_without_text": 0,
        "items_described_twice": 0,
        "bad_item_rows": 0,
        "item_columns_dropped": 0,
        "popularity": "counted",
        "cold_items": 0,
        "min_events": 3,
        "rules": {
            **{"max_events": None, "times": True, "event_column": None, "keep_events": []},
            **{"min_rating": None, "rating_column": "rating", "since": None, "until": None},
            **{"user_core": 0, "item_core": 0},
        },
        "split": Split().description,
        "split_rule": {"rule": "leave-one-out", "repeats": False},
        "split_asked": {"rule": "leave-one-out", "repeats": False},
        "catalogue_fingerprint": hashlib.sha256(texts).hexdigest(),
        "source": "a shelf",
        "source_md5": "0" * 32,
        "citation": "A. Author",
        "text_columns": [],
    }
    assert read_manifest(tmp_path / "out") == asdict(manifest)


@pytest.mark.parametrize(
    ("content", "says"), [(None, "is not a prepared dataset"), ("{", "is not JSON"), ("\x00", "is not JSON")]
)
def test_a_missing_or_broken_manifest_is_refused(content: str | None, says: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(InputError, match=says):
        read_manifest(tmp_path)


# ---- prepare: from a zip or folder by name


TINY = replace(source_named("ml-latest-small"), name="tiny", url="https://example.org/tiny.zip")
GOOD = "1,a,5.0,10\n1,b,4.0,11\n1,c,3.5,12\n"
BAD = "1,a,5.0,10\n1,b,good,11\n"


def pack(path: Path, ratings: str) -> Path:
    """A zip in the layout of `TINY`."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/movies.csv", "movieId,title,genres\na,A (1990),X\nb,B (1991),X\nc,C (1992),X\n")
        archive.writestr("tiny/ratings.csv", f"userId,movieId,rating,timestamp\n{ratings}")
    return path


def attempt(source: Source, out: Path, given: Path) -> list[str]:
    """Prepare, and return the warnings."""
    warnings: list[str] = []
    prepare(source, out, given, lambda done, total: None, warnings.append)
    return warnings


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_prepare_records_where_the_data_came_from(tmp_path: Path) -> None:
    given = pack(tmp_path / "given.zip", GOOD)
    assert attempt(TINY, tmp_path / "out", given) == []
    manifest = read_manifest(tmp_path / "out")
    assert (manifest["name"], manifest["source"]) == ("tiny", "given.zip")
    assert manifest["source_md5"] == hashlib.md5(given.read_bytes()).hexdigest()
    assert "doi:10.1145/2827872" in manifest["citation"]
    assert sorted(contents(tmp_path / "out")) == [
        "catalogue.parquet",
        "manifest.json",
        "shard/fingerprint.key",
        "shard/items.npy",
        "shard/salts.npy",
        "shard/starts.npy",
        "shard/users.parquet",
    ]


@pytest.mark.parametrize(
    ("columns", "texts"),
    [
        (("title",), ["A", "B", "C", "D"]),
        (("genres", "title"), ["X, Y. A", "X. B", "X. C", "D"]),
        (("year",), ["1990", "1991", "1992", "D"]),
    ],
)
def test_text_is_of_the_columns_asked_for(columns: tuple[str, ...], texts: list[str], tmp_path: Path) -> None:
    """Film D has neither year nor genre: its title stands for it."""
    with zipfile.ZipFile(tmp_path / "given.zip", "w") as archive:
        films = "movieId,title,genres\na,A (1990),X|Y\nb,B (1991),X\nc,C (1992),X\nd,D,(no genres listed)\n"
        archive.writestr("movies.csv", films)
        archive.writestr("ratings.csv", f"userId,movieId,rating,timestamp\n{GOOD}")
    attempt(replace(TINY, texts=columns), tmp_path / "out", tmp_path / "given.zip")
    assert Catalogue.load(tmp_path / "out").texts == texts
    assert read_manifest(tmp_path / "out")["text_columns"] == list(columns)


def test_text_of_a_column_that_is_none_is_refused(tmp_path: Path) -> None:
    given = pack(tmp_path / "given.zip", GOOD)
    with pytest.raises(InputError, match="`text`: 'plot' is no column of the items; choose from title, year, genres"):
        attempt(replace(TINY, texts=("title", "plot")), tmp_path / "out", given)
    assert not (tmp_path / "out").exists()


def test_a_failed_prepare_leaves_nothing(tmp_path: Path) -> None:
    given = pack(tmp_path / "given.zip", BAD)
    with pytest.raises(InputError, match=r"ratings\.csv line 3: rating 'good'"):
        attempt(TINY, tmp_path / "prepared" / "out", given)
    assert list(tmp_path.iterdir()) == [given]


@pytest.mark.parametrize("ratings", [BAD, "1,a,5.0,10\n"])
def test_a_failed_prepare_keeps_the_earlier_one(ratings: str, tmp_path: Path) -> None:
    attempt(TINY, tmp_path / "out", pack(tmp_path / "given.zip", GOOD))
    before = contents(tmp_path)
    given = pack(tmp_path / "given.zip", ratings)
    with pytest.raises(InputError):
        attempt(TINY, tmp_path / "out", given)
    assert contents(tmp_path) == before | {"given.zip": given.read_bytes()}


def test_a_second_prepare_takes_the_place_of_the_first(tmp_path: Path) -> None:
    attempt(TINY, tmp_path / "out", pack(tmp_path / "given.zip", GOOD))
    attempt(TINY, tmp_path / "out", pack(tmp_path / "given.zip", GOOD + GOOD.replace("1,", "2,")))
    assert histories(tmp_path / "out") == ["abc", "abc"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given.zip", "out"]


def fill_folder(out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")


@pytest.mark.parametrize("fill", [fill_folder, lambda out: out.write_text("years of work")], ids=["folder", "file"])
def test_an_out_that_holds_something_else_is_refused(fill: Callable[[Path], object], tmp_path: Path) -> None:
    fill(tmp_path / "out")
    given = pack(tmp_path / "given.zip", GOOD)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"`out` .*out exists and is no prepared dataset; choose another folder"):
        attempt(TINY, tmp_path / "out", given)
    assert contents(tmp_path) == before


def test_an_empty_out_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    attempt(TINY, tmp_path / "out", pack(tmp_path / "given.zip", GOOD))
    assert histories(tmp_path / "out") == ["abc"]


def test_a_copy_that_differs_from_the_published_one_is_told(tmp_path: Path) -> None:
    given = pack(tmp_path / "given.zip", GOOD)
    md5 = hashlib.md5(given.read_bytes()).hexdigest()
    (warning,) = attempt(replace(TINY, md5="0" * 32), tmp_path / "other", given)
    assert warning == f"{given} has MD5 {md5}, not the publisher's {'0' * 32}; going on with your copy"
    assert attempt(replace(TINY, md5=md5), tmp_path / "same", given) == []
    other, same = contents(tmp_path / "other"), contents(tmp_path / "same")
    assert (other.pop(KEY)[:8], same.pop(KEY)) == (b"private ", b"published tiny\n")
    assert other.pop("shard/salts.npy") != same.pop("shard/salts.npy"), (
        "what nobody can look up has no salts that a guess of an id gives away"
    )
    assert other == same


def crash_in_folder(out: Path) -> None:
    with replaced_folder(out, PREPARED.check) as folder:
        (folder / "half").write_text("half")
        raise OSError("disk full")


def crash_in_file(out: Path) -> None:
    with replaced_file(out / MANIFEST) as path:
        path.write_text("half")
        raise OSError("disk full")


@pytest.mark.parametrize("crash", [crash_in_folder, crash_in_file])
def test_a_crash_while_writing_leaves_what_was_and_no_rest(crash: Callable[[Path], None], tmp_path: Path) -> None:
    write_dataset(frames(*of_ann("abc")), tmp_path / "out", name="toy")
    before = contents(tmp_path)
    with pytest.raises(OSError, match="disk full"):
        crash(tmp_path / "out")
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "half").write_text("half")
    write_dataset(frames(*of_ann("abc")), tmp_path / "out", name="toy")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def killed_while_it_writes(path: Path) -> None:
    with replaced_file(path) as partial:
        partial.with_name(".tmpAbCdEf").write_text("half")  # as safetensors does
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_writer_of_a_file_left_is_swept(tmp_path: Path) -> None:
    """Also what it had beside the file that it was given."""
    process = get_context("spawn").Process(target=killed_while_it_writes, args=(tmp_path / "state",))
    process.start()
    process.join()
    assert len(list(tmp_path.rglob("*"))) == 4  # its lock, its folder, and the two files in it
    with replaced_file(tmp_path / "state") as path:
        path.write_text("whole")
    assert [(path.name, path.read_text()) for path in tmp_path.rglob("*")] == [("state", "whole")]


# ---- prepare: from anyone's own tables


def own_tables(place: Path, events: str, items: str | None = None) -> Tables:
    (place / "log.csv").write_text(f"who,what,when\n{events}")
    if items is not None:
        (place / "things.csv").write_text(f"what,name,about\n{items}")
    return Tables(place / "log.csv", place / "things.csv" if items is not None else None, "who", "what", "when", ())


def test_own_tables_are_prepared(tmp_path: Path) -> None:
    tables = own_tables(tmp_path, "bob,b,2\nbob,a,1\nbob,x,3\nann,a,7\n", "a,Ant,small\nb,Bee,busy\n")
    manifest = prepare_tables(tables, tmp_path / "out", "mine")
    assert histories(tmp_path / "out") == ["abx"]
    assert Catalogue.load(tmp_path / "out").texts == ["Ant. small", "Bee. busy", "x"]
    assert (manifest.name, manifest.source, manifest.short_users_dropped) == ("mine", "log.csv", 1)
    assert manifest.source_md5 == hashlib.md5(tables.interactions.read_bytes()).hexdigest()
    assert manifest.items_without_description == 1


def test_own_tables_without_items_are_known_by_their_ids(tmp_path: Path) -> None:
    prepare_tables(own_tables(tmp_path, "bob,b,2\nbob,a,1\nbob,c,3\n"), tmp_path / "out", "mine")
    catalogue = Catalogue.load(tmp_path / "out")
    assert catalogue.ids == catalogue.titles == catalogue.texts == ["b", "a", "c"]  # as they appear
    assert histories(tmp_path / "out") == ["abc"]


def test_own_tables_that_are_wrong_leave_what_was(tmp_path: Path) -> None:
    prepare_tables(own_tables(tmp_path, "bob,b,2\nbob,a,1\nbob,c,3\n"), tmp_path / "out", "mine")
    before = contents(tmp_path / "out")
    with pytest.raises(InputError, match=r"log\.csv line 3: time 'noon'"):
        prepare_tables(own_tables(tmp_path, "bob,b,2\nbob,a,noon\n"), tmp_path / "out", "mine")
    assert contents(tmp_path / "out") == before
    fill_folder(tmp_path / "other")
    with pytest.raises(InputError, match="is no prepared dataset; choose another folder"):
        prepare_tables(own_tables(tmp_path, "bob,b,2\n"), tmp_path / "other", "mine")


# ---- the generated source


@pytest.fixture(scope="module")
def demo_frames() -> Frames:
    source = source_named("demo")
    return source.read(open_root(Path()))


def test_demo_is_large_enough_and_clean(demo_frames: Frames) -> None:
    interactions, items = demo_frames
    assert items.height >= 600
    assert interactions["user_id"].n_unique() >= 500
    assert items["item_id"].n_unique() == items["title"].n_unique() == items.height
    assert interactions.select("user_id", "item_id").is_duplicated().sum() == 0
    assert set(interactions["item_id"]) <= set(items["item_id"])
    assert int(interactions.group_by("user_id").len()["len"].min()) >= 8  # pyright: ignore[reportArgumentType]


def test_demo_is_the_same_twice(demo_frames: Frames) -> None:
    interactions, items = source_named("demo").read(open_root(Path()))
    assert interactions.equals(demo_frames.interactions)
    assert items.equals(demo_frames.items)


def test_demo_with_another_seed_is_another_world() -> None:
    one, two = (demo_films.generate(demo_films.DemoConfig(films=30, users=5, seed=seed)) for seed in (1, 2))
    assert not one[0].equals(two[0])
    assert not one[1].equals(two[1])


def test_demo_texts_hold_no_ids(demo_frames: Frames) -> None:
    known = set(demo_frames.items["item_id"]) | set(demo_frames.interactions["user_id"])
    words = {word for text in demo_frames.items["text"] for word in re.findall(r"\w+", text)}
    assert len(words) > 1000
    assert not words & known


# ---- the catalogue


LETTERS = Catalogue(frames(*of_ann("abc"), described="abc").items)


def test_rows_follow_the_order_asked() -> None:
    assert LETTERS.rows(["c", "a", "a"]).tolist() == [2, 0, 0]
    assert LETTERS.rows(iter("b")).tolist() == [1]
    assert LETTERS.rows([]).tolist() == []
    assert ("a" in LETTERS, "z" in LETTERS, 0 in LETTERS) == (True, False, False)


def test_unknown_ids_are_named() -> None:
    with pytest.raises(InputError, match=r"item 'x', 'y' is not in the catalogue of 3 items; its ids look like 'a'"):
        LETTERS.rows(["a", "x", "b", "y"])


@pytest.mark.parametrize(
    "other",
    [
        LETTERS.frame.with_columns(text=pl.col("text").str.replace("about c", "about C")),
        LETTERS.frame.with_columns(item_id=pl.col("item_id").str.replace("c", "d")),
        LETTERS.frame.reverse(),
        LETTERS.frame.head(2),
    ],
    ids=["text", "id", "order", "fewer"],
)
def test_fingerprint_tells_catalogues_apart(other: pl.DataFrame) -> None:
    assert Catalogue(other).fingerprint != LETTERS.fingerprint


def test_fingerprint_is_of_ids_and_texts_alone(tmp_path: Path) -> None:
    LETTERS.save(tmp_path)
    assert Catalogue.load(tmp_path).fingerprint == LETTERS.fingerprint
    assert Catalogue(LETTERS.frame.with_columns(year=1990)).fingerprint == LETTERS.fingerprint


def test_a_missing_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"catalogue\.parquet is missing; copy it back"):
        Catalogue.load(tmp_path)


@pytest.mark.parametrize("keep", [0, 3, 100, -1, -20])
def test_a_damaged_catalogue_is_refused(keep: int, tmp_path: Path) -> None:
    LETTERS.save(tmp_path)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"catalogue\.parquet cannot be read"):
        Catalogue.load(tmp_path)


def test_a_flipped_byte_raises_nothing_but_input_error(tmp_path: Path) -> None:
    LETTERS.save(tmp_path)
    path = tmp_path / FILE
    whole, refused = path.read_bytes(), 0
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            Catalogue.load(tmp_path)
        except InputError:
            refused += 1
    assert refused > len(whole) / 5 / 4


@pytest.mark.parametrize("column", ["item_id", "title", "text"])
def test_a_catalogue_without_a_column_is_refused(column: str, tmp_path: Path) -> None:
    Catalogue(LETTERS.frame.drop(column)).save(tmp_path)
    with pytest.raises(InputError, match=f"lacks the column '{column}'"):
        Catalogue.load(tmp_path)
