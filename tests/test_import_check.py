"""`fedrec data import --check`: what would be refused, left out or is odd, with counts and examples, and no file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import fedrec as library
from fedrec.data.check import Check, check_tables
from fedrec.data.readers.lines import TextFormat
from fedrec.data.readers.rules import Rules
from fedrec.data.readers.tables import Tables
from fedrec.data.split import LEAVE_ONE_OUT, Split, TimeCuts

EVENTS = """user_id,item_id,timestamp,rating
ann,1,2026-03-01,5
ann,2,2026-03-02,4
ann,3,2026-03-03,4
ann,4,2026-03-04,-1
Ann,4,2026-03-04,3
bob,1,2026-03-01,5
bob,x9,2026-03-02,99
bob,2.0,2236-03-02,99
bob,2,2026-03-12,1
bob,2,2026-03-12,
,2,2026-03-12,1
eve,3,soon,1
"""
"""Twelve events: one without a user, one without a time, one repeat, two users in two spellings."""

ITEMS = """item_id,name,price,since
1,Nail,2.5,2026-01-01
2,Nail,2.75,2025-01-01
3,,3,
4,Glue,,2024-05-06T10:00
"""


def check(folder: Path, events: str = EVENTS, items: str | None = ITEMS, share: float = 0.2, **rules: Any) -> Check:
    """Check these tables; a `share` of their rows may be bad."""
    (folder / "events.csv").write_text(events)
    (folder / "items.csv").write_text(items or "")
    described, texts = (folder / "items.csv", ("name",)) if items else (None, ())
    names = ("user_id", "item_id", "timestamp")
    tables = Tables(folder / "events.csv", described, *names, texts, text_format=TextFormat(bad_rows=share))
    return check_tables(tables, "shop", LEAVE_ONE_OUT, Rules(**rules))


def has(lines: tuple[str, ...], *parts: str) -> bool:
    return any(all(part in line for part in parts) for line in lines)


def test_a_check_tells_of_everything_with_counts_and_examples(tmp_path: Path) -> None:
    found = check(tmp_path)
    assert found.passed
    assert found.kept == "2 users, 6 items, 8 interactions; ranked: 2 for validation and 2 for test"
    assert has(found.left_out, "bad rows, left out: 2 of 12", "events.csv line 12: user_id is empty")
    assert has(found.left_out, "items of items.csv with no text", "1 of 4; one is '3'")
    assert has(found.left_out, "items without description", "2 of 6 that occur; one is '2.0'")
    assert has(found.left_out, "repeats, left out: 1 of 10 events; one is user 'bob' with item '2' again")
    assert has(found.left_out, "users with fewer than 3 events, left out: 1 of 3", "one is 'Ann' with 1")
    assert has(
        found.remarks, "ids of users that differ by case, blanks or '.0' alone", "2 of 3; 'Ann' and 'ann' are two"
    )
    assert has(found.remarks, "ids of items of mixed types: 4 of 6 are whole numbers, one is '", "of the others is '")
    assert has(found.remarks, "times that are none: 1 of 12; one is 'soon'")
    assert has(found.remarks, "times from 2026-03-01T00:00:00+00:00 to 2236-03-02T00:00:00+00:00")
    assert has(found.remarks, "times later than now: 1 of 10")
    assert has(found.remarks, "ratings that are no numbers: 1 of 12")
    assert has(found.remarks, "ratings from -1 to 99, median 4")
    assert has(found.remarks, "ratings outside 0 to 10, which may stand for none: 3 of 11; one is -1")
    assert has(found.remarks, "items with the text of another", "2 of 4; '1' and '2' are two")
    assert has(found.remarks, "memory: about", "MB are free")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.csv", "items.csv"]


def test_sound_tables_have_no_remark_but_times_and_memory(tmp_path: Path) -> None:
    """The control: nothing is found where nothing is wrong."""
    rows = "".join(f"{user},{item},2026-03-0{item}\n" for user in ("ann", "ben") for item in range(1, 5))
    items = "item_id,name\n1,Nail\n2,Screw\n3,Saw\n4,Glue\n"
    found = check(tmp_path, f"user_id,item_id,timestamp\n{rows}", items, share=0)
    assert (found.refused, found.left_out) == ((), ())
    assert [remark.split(" ")[0] for remark in found.remarks] == ["times", "memory:"]
    assert found.kept.startswith("2 users, 4 items, 8 interactions")


def test_bad_rows_beyond_their_share_are_refused_beside_everything_else(tmp_path: Path) -> None:
    found = check(tmp_path, share=0.1)
    assert len(found.refused) == 1
    assert has(found.refused, "events.csv: 2 of 12 rows are bad, and `bad_rows` allows a share of 0.1")
    assert has(found.left_out, "repeats")
    assert has(found.remarks, "ratings")


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"min_rating": 100}, "`min_rating=100`: the highest rating is 99"),
        ({"item_core": 9}, "`item_core=9`: no event is left"),
        ({"min_events": 9}, "no user has 9 events"),
        ({"strict": True}, "`strict`: repeats, left out: 1 of 10"),
        ({"rating_column": "stars", "min_rating": 3}, "has no column 'stars'"),
    ],
)
def test_what_an_import_refuses_a_check_refuses(rules: dict, says: str, tmp_path: Path) -> None:
    found = check(tmp_path, **rules)
    assert not found.passed
    assert has(found.refused, says)


def test_every_missing_column_is_named_at_once(tmp_path: Path) -> None:
    found = check(tmp_path, EVENTS.replace("user_id", "who").replace("timestamp", "at"), ITEMS.replace("name", "title"))
    missing = [line.partition("no column ")[2].partition(",")[0] for line in found.refused]
    assert missing == ["'user_id'", "'timestamp'", "'name'"]
    assert has(found.refused, "but who, item_id, at, rating; name one of them with `user_column`")


def test_events_without_items_are_known_by_their_ids(tmp_path: Path) -> None:
    found = check(tmp_path, items=None)
    assert found.passed
    assert has(found.left_out, "no item has a text", "--set features=ids")


def test_the_command_exits_with_one_if_something_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fedrec: Callable
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("events.csv").write_text(EVENTS)
    Path("items.csv").write_text(ITEMS)
    command = ["data", "import", "events.csv", "--items", "items.csv", "--name", "shop", "--check"]
    refused = fedrec(*command)
    assert refused.code == 1
    assert "refused   events.csv: 2 of 12 rows are bad, and --bad-rows allows a share of 0.01" in refused.out
    assert "nothing can be prepared" in refused.out
    passed = fedrec(*command, "--bad-rows", "0.2")
    assert passed.code == 0
    assert passed.out.splitlines()[-1].startswith("kept      2 users, 6 items, 8 interactions")
    as_data = json.loads(fedrec(*command, "--bad-rows", "0.2", "--json").out)
    assert (as_data["refused"], as_data["kept"]) == ([], passed.out.splitlines()[-1][10:])
    assert not Path("var").exists()


def test_a_check_from_python_takes_the_settings_of_an_import() -> None:
    rows = [(user, f"{item}", time) for user in ("ann", "ben") for time, item in enumerate("abcde")]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    assert library.check_import(events).kept.startswith("2 users, 5 items, 10 interactions")
    later = library.check_import(events, split="global-time", validation_from=3, test_from=4)
    assert later.kept.endswith("ranked: 2 for validation and 2 for test")
    with pytest.raises(TypeError, match="import_dataset\\(\\) has no setting 'userr_column'"):
        library.check_import(events, userr_column="x")
    assert Split(time_cuts=TimeCuts(3, 4)).rule == "global-time"
