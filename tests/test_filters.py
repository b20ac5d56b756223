"""Filters of events, users and items: what each leaves, in which order, and what the manifest tells of it."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.data.catalogue import Catalogue
from fedrec.data.core import find_core
from fedrec.data.errors import InputError
from fedrec.data.histories import Histories
from fedrec.data.manifest import Manifest
from fedrec.data.moments import as_moment, as_number
from fedrec.data.prepare import write_dataset
from fedrec.data.readers.raw import Frames
from fedrec.data.readers.reading_report import ReadingReport
from fedrec.data.readers.rules import Rules
from fedrec.data.split import Split

DAY = 86_400
NEW_YEAR = 1_704_067_200  # 2024-01-01 in UTC

CORE = st.integers(0, 4)

CHAIN = {"ann": "abpq", "ben": "abpq", "cleo": "bcpq", "dan": "cdpq", "eve": "depq", "fay": "epq"}
"""Fay has three events: without her nobody but Eve has e, without e Eve has three, and so on, up to Cleo."""


def prepared(rows: list[tuple], folder: Path, rules: Rules, split: Split = Split()) -> Manifest:  # noqa: B008
    """A dataset of events (user, item, time, rating), whose items have a text."""
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "rating"], orient="row")
    ids = sorted(set(events["item_id"]))
    items = pl.DataFrame({"item_id": ids, "title": ids, "text": [f"about {item_id}" for item_id in ids]})
    return write_dataset(Frames(events, items), folder / "out", name="toy", rules=rules, split=split)


def of_words(words: dict[str, str]) -> list[tuple]:
    return [(user, item, time, 5.0) for user, word in words.items() for time, item in enumerate(word)]


def histories_of(words: list[str]) -> Histories:
    rows = np.array(["abcdefpq".index(letter) for word in words for letter in word], dtype=np.uint32)
    return Histories(pl.Series(map(str, range(len(words)))), np.array([len(word) for word in words]), rows)


def left(manifest: Manifest) -> list[tuple[str, int, int, int]]:
    return [(step["step"], step["users"], step["items"], step["events"]) for step in manifest.steps]


# ---- k-core


def test_a_core_takes_as_many_passes_as_it_needs(tmp_path: Path) -> None:
    """23 events; each pass but the last takes one user's, or one item's: Fay, e, Eve, d, Dan, c, Cleo."""
    kept, passes = find_core(histories_of(list(CHAIN.values())), 4, 2)
    assert (passes, int(kept.sum())) == (7, 8)
    assert kept.tolist() == [True] * 8 + [False] * (23 - 8)
    manifest = prepared(of_words(CHAIN), tmp_path, Rules(user_core=4, item_core=2))
    assert (manifest.users, manifest.items, manifest.core_dropped) == (2, 4, 23 - 8)
    assert Catalogue.load(tmp_path / "out").ids == ["a", "b", "p", "q"]
    assert left(manifest)[:2] == [
        ("usable rows", 6, 7, 23),
        ("core: 4 events of a user, 2 of an item", 2, 4, 8),
    ]


def test_one_pass_leaves_no_core() -> None:
    """The control: after one pass Eve still has e, which only she has."""
    rest = histories_of([word for user, word in CHAIN.items() if user != "fay"])
    assert (np.bincount(rest.items)[rest.items] < 2).sum() == 1


def core_by_hand(words: list[str], user_core: int, item_core: int) -> list[str]:
    while True:
        counts = {letter: sum(word.count(letter) for word in words) for letter in "abcdef"}
        rest = ["".join(x for x in word if counts[x] >= item_core) if len(word) >= user_core else "" for word in words]
        if rest == words:
            return words
        words = rest


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("abcdef", min_size=1, max_size=6), min_size=1, max_size=8), st.tuples(CORE, CORE))
def test_a_core_is_that_found_by_hand(words: list[str], least: tuple[int, int]) -> None:
    kept, _ = find_core(histories_of(words), *least)
    marks = iter(kept)
    found = ["".join(letter for letter in word if next(marks)) for word in words]
    assert found == core_by_hand(words, *least)


def test_an_empty_core_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`item_core=7`: no event is left after 1 passes; give smaller"):
        prepared(of_words({"ann": "abc", "ben": "abc"} | {"cleo": "abcd"}), tmp_path, Rules(item_core=7))


def test_a_core_of_users_alone_leaves_the_catalogue(tmp_path: Path) -> None:
    manifest = prepared(of_words(CHAIN), tmp_path, Rules(user_core=4))
    assert (manifest.users, manifest.items, manifest.core_dropped) == (5, 7, 3)


# ---- ratings, dates, bots


def test_low_ratings_are_left_out_and_so_are_events_without_one(tmp_path: Path) -> None:
    ratings = {"a": 5.0, "b": 4.0, "c": 3.9, "d": None, "e": 4.5, "f": 5.0}
    rows = [("ann", item, time, rating) for time, (item, rating) in enumerate(ratings.items())]
    manifest = prepared(rows, tmp_path, Rules(min_rating=4))
    assert (manifest.interactions, manifest.rating_dropped, manifest.events_read) == (4, 2, 6)
    assert left(manifest)[1] == ("rating 4 or more", 1, 4, 4)


def test_ratings_that_are_not_there_or_not_as_high_are_refused(tmp_path: Path) -> None:
    rows = of_words({"ann": "abc"})
    with pytest.raises(InputError, match=r"`min_rating=6`: the highest rating is 5\.0; give a lower one"):
        prepared(rows, tmp_path, Rules(min_rating=6))
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "rating"], orient="row").drop("rating")
    items = pl.DataFrame({"item_id": ["a"], "title": ["a"], "text": ["a"]})
    with pytest.raises(InputError, match=r"`min_rating=4`: these events have no ratings; leave it out"):
        write_dataset(Frames(events, items), tmp_path / "out", name="toy", rules=Rules(min_rating=4))


@pytest.mark.parametrize(
    ("since", "until", "kept"),
    [
        ("2024-01-02", None, "bcde"),
        ("2024-01-02", "2024-01-05", "bcd"),
        (NEW_YEAR + DAY, NEW_YEAR + 4 * DAY, "bcd"),
        (str(NEW_YEAR + DAY), None, "bcde"),
        (None, "2024-01-04T00:00:01+00:00", "abcd"),
        (None, "2024-01-04T00:59:59+01:00", "abc"),
    ],
)
def test_dates_are_kept_from_the_first_to_before_the_second(
    since: str | float | None, until: str | float | None, kept: str, tmp_path: Path
) -> None:
    rows = [("ann", item, NEW_YEAR + day * DAY, 5.0) for day, item in enumerate("abcde")]
    manifest = prepared(rows, tmp_path, Rules(since=since, until=until))
    assert (manifest.interactions, manifest.dates_dropped) == (len(kept), 5 - len(kept))
    assert manifest.time_range == [
        as_moment(NEW_YEAR + DAY * "abcde".index(end), NEW_YEAR) for end in (kept[0], kept[-1])
    ]


@pytest.mark.parametrize(
    ("moment", "latest", "says"),
    [
        ("2024-01-01", 500, "these events have numbers for times, the latest is 500; give a number"),
        ("2024", NEW_YEAR, "the times of these events are dates; give one, as 2024-12-31"),
        ("last week", NEW_YEAR, "is no number and no ISO date"),
    ],
)
def test_a_moment_that_cannot_be_compared_is_refused(moment: str, latest: int, says: str) -> None:
    with pytest.raises(InputError, match=f"`since` = .*{says}"):
        as_number(moment, latest, "since")


@settings(max_examples=50, deadline=None)
@given(st.integers(10**8, 4 * 10**9), st.sampled_from([1, 10**3, 10**6]))
def test_a_moment_is_told_and_read_without_loss(seconds: int, unit: int) -> None:
    moment = as_moment(seconds * unit + unit // 2, seconds * unit)
    assert isinstance(moment, str)
    assert as_number(moment, seconds * unit, "since") == seconds * unit + unit // 2


@pytest.mark.parametrize("number", [-(10**18), 1e300, 10**9 + 0.5])
def test_a_number_that_is_no_date_stays_a_number(number: float) -> None:
    assert as_moment(number, max(number, 10**9)) == number


def test_bots_leave_before_the_core_is_counted(tmp_path: Path) -> None:
    """Without the bot, c has one event, and is in no core; with it, three users would have it."""
    words = {"ann": "abx", "ben": "abx", "bot": "abcdex", "cleo": "abcx"}
    manifest = prepared(of_words(words), tmp_path, Rules(max_events=5, item_core=2))
    assert left(manifest)[1:3] == [
        ("users of at most 5 events", 3, 4, 10),
        ("core: 0 events of a user, 2 of an item", 3, 3, 9),
    ]
    kept = prepared(of_words(words), tmp_path, Rules(item_core=2))
    assert left(kept)[1] == ("core: 0 events of a user, 2 of an item", 4, 4, 14)


def test_repeats_count_once_in_a_core(tmp_path: Path) -> None:
    words = {"ann": "abxc", "ben": "abxcc", "cleo": "abxddd"}
    manifest = prepared(of_words(words), tmp_path, Rules(item_core=2))
    assert left(manifest)[1:3] == [
        ("without repeats", 3, 5, 12),
        ("core: 0 events of a user, 2 of an item", 3, 4, 11),
    ]
    repeated = prepared(of_words(words), tmp_path, Rules(item_core=2), Split(repeats=True))
    assert left(repeated)[1] == ("core: 0 events of a user, 2 of an item", 3, 5, 15)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"user_core": -1}, "`user_core=-1`: give a number of events"),
        ({"times": False, "since": 1}, "`since` and `until` need times"),
    ],
)
def test_filters_that_cannot_be_are_refused(rules: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Rules(**rules)


def test_rules_are_recorded_for_nodes(tmp_path: Path) -> None:
    rules = Rules(min_rating=4, rating_column="stars", since="0", user_core=3, item_core=1)
    manifest = prepared(of_words({"ann": "abc"}), tmp_path, rules)
    assert Rules.from_manifest({"min_events": 3, "rules": manifest.rules}) == rules
    assert Rules.from_manifest({"min_events": 4}) == Rules(min_events=4)


def test_a_strict_preparation_allows_the_filters_that_were_asked_for(tmp_path: Path) -> None:
    rules, report = Rules(user_core=4, item_core=2, strict=True), ReadingReport(strict=True)
    events = pl.DataFrame(of_words(CHAIN), schema=["user_id", "item_id", "timestamp", "rating"], orient="row")
    items = pl.DataFrame({"item_id": list("abcdepq")}).with_columns(
        title="item_id", text=pl.format("no. {}", "item_id")
    )
    write_dataset(Frames(events, items), tmp_path / "out", name="toy", rules=rules, report=report)
