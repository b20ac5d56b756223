"""Tables as people have them: formats, bad rows, times, columns; what is left out is told, and a node does the same."""

import gzip
import json
import re
import shlex
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.manifest import read_manifest
from fedrec.data.node_folders import prepare_node
from fedrec.data.prepare import prepare_tables
from fedrec.data.readers.columns import infer_type
from fedrec.data.readers.lines import TextFormat
from fedrec.data.readers.raw import Frames
from fedrec.data.readers.reading_report import ReadingReport
from fedrec.data.readers.rules import Rules
from fedrec.data.readers.tables import Tables, read_tables
from fedrec.data.readers.times import can_be_times, parse_times
from fedrec.data.shard import Shard
from fedrec.data.split import LEAVE_ONE_OUT, Split
from fedrec.recsys.recommender import Recommender
from fedrec.serving.engine import Engine
from fedrec.serving.index.vector_index import Index
from fedrec.serving.live_catalogue import ItemRecord, LiveCatalogue
from fedrec.serving.schema import Question
from tests.support.cli import Fedrec, is_refused
from tests.support.toy_world import histories, toy_interactions, toy_items

HEAD = "user_id,item_id,timestamp\n"
LENIENT = TextFormat(bad_rows=0.5)


def table(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def own(events: Path, items: Path | None = None, reading: TextFormat = LENIENT, texts: tuple[str, ...] = ()) -> Tables:
    return Tables(events, items, "user_id", "item_id", "timestamp", texts, text_format=reading)


def read(tables: Tables, rules: Rules = Rules()) -> tuple[Frames, list[str]]:  # noqa: B008
    """The frames, and the lines of the report."""
    lines: list[str] = []
    report = ReadingReport(lines.append)
    frames = read_tables(tables, rules, report)
    report.finish()
    return frames, lines


# ---- formats

ROWS = [("u", "a", 3), ("u", "b", 4)]
JSON = "".join(json.dumps(dict(zip(("user_id", "item_id", "timestamp"), row, strict=True))) + "\n" for row in ROWS)
CSV = HEAD + "u,a,3\nu,b,4\n"


@pytest.mark.parametrize(
    ("name", "content", "reading"),
    [
        ("log.csv", CSV, LENIENT),
        ("log.csv", "\ufeff" + CSV, LENIENT),
        ("log.CSV.GZ", gzip.compress(CSV.encode(), mtime=0), LENIENT),
        ("log.tsv", CSV.replace(",", "\t"), LENIENT),
        ("log.txt", CSV.replace(",", ";"), TextFormat(separator=";")),
        ("log.csv", CSV.replace(",", "\t"), TextFormat(separator="tab")),
        ("log.csv", CSV.encode("utf-16"), TextFormat(encoding="utf-16")),
        ("log.csv", CSV.replace("\n", "\n\n"), LENIENT),
        ("log.jsonl", JSON, LENIENT),
        ("log.ndjson", "\n" + JSON, LENIENT),
        ("log.json.gz", gzip.compress(JSON.encode(), mtime=0), LENIENT),
        ("packed.csv", gzip.compress(CSV.encode(), mtime=0), LENIENT),
        ("packed.jsonl", gzip.compress(JSON.encode(), mtime=0), LENIENT),
    ],
)
def test_a_table_is_read_in_any_format(name: str, content: str | bytes, reading: TextFormat, tmp_path: Path) -> None:
    frames, lines = read(own(table(tmp_path / name, content), reading=reading))
    assert frames.interactions.rows() == ROWS
    assert lines == []


@pytest.mark.parametrize("name", ["log.parquet", "log.pq", "log.PARQUET", "log.csv"])
def test_parquet_is_known_by_its_name_and_by_its_first_bytes(name: str, tmp_path: Path) -> None:
    pl.DataFrame(ROWS, schema=["user_id", "item_id", "timestamp"], orient="row").write_parquet(tmp_path / name)
    assert read(own(tmp_path / name))[0].interactions.rows() == ROWS


def test_another_encoding_is_read_when_it_is_named(tmp_path: Path) -> None:
    path = table(tmp_path / "log.csv", (HEAD + "u,Café,3\n").encode("cp1252"))
    with pytest.raises(InputError, match=r"log\.csv line 2: byte 0xe9 is not utf-8; .* `encoding` \(cp1252"):
        read(own(path))
    assert read(own(path, reading=TextFormat(encoding="cp1252")))[0].interactions["item_id"].to_list() == ["Café"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"separator": ";;"}, "`separator` ';;'"),
        ({"encoding": "utf-9"}, "`encoding` 'utf-9' is not known"),
        ({"quote": "''"}, "`quote`"),
        ({"bad_rows": 2.0}, "`bad_rows=2`"),
    ],
)
def test_a_way_of_reading_that_cannot_be_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        TextFormat(**options)


def test_a_header_in_one_column_is_told_of_its_separator(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no column 'user_id', but user_id;item_id;timestamp; .* `separator=';'`"):
        read(own(table(tmp_path / "log.csv", CSV.replace(",", ";"))))


def test_a_file_that_is_no_table_is_refused_in_one_line(tmp_path: Path) -> None:
    names = ",".join(["a\x07b", "", "x" * 99, *map(str, range(99))])
    with pytest.raises(InputError, match=r"no column 'user_id', but 'a\\x07b', '', 'x{60}…', 0, .* and 72 more; name"):
        read(own(table(tmp_path / "log.csv", names + "\n1\n")))


def test_a_column_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has two columns 'item_id'; rename one"):
        read(own(table(tmp_path / "log.csv", "user_id,item_id,timestamp,item_id\nu,a,3,b\n")))


def test_a_list_of_json_objects_is_told_what_a_line_holds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"log\.json line 1: no JSON object .*; a line holds one row each"):
        read(own(table(tmp_path / "log.json", '[{"user_id": 1}]')))


def test_a_format_that_is_not_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"log\.xlsx: \.xlsx is not read; save it as CSV, JSON lines or parquet"):
        read(own(table(tmp_path / "log.xlsx", b"PK")))


@pytest.mark.parametrize("damage", [lambda whole: whole[:-9], lambda whole: whole[:20] + b"\0" * 9 + whole[29:]])
def test_a_damaged_compressed_file_is_refused(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    for name, text in (("log.csv.gz", CSV), ("log.jsonl.gz", JSON)):
        with pytest.raises(InputError, match=rf"{name} cannot be read"):
            read(own(table(tmp_path / name, damage(gzip.compress(text.encode(), mtime=0)))))


# ---- bad rows

GOOD = "u,a,1\nu,b,2\nu,c,3\n"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("u,x,5,6", "line 3: 4 fields where 3 belong ('u,x,5,6')"),
        ('u,"x" y,5', "line 3: a quotation mark that does not close its field"),
        (",x,5", "line 3: user_id is empty"),
        ("u,x\x00,5", "line 3: item_id 'x\\x00' holds a control character"),
        ("u,..,5", "line 3: item_id '..' is '.' or '..'"),
        (f"{'u' * 513},x,5", f"line 3: user_id '{'u' * 60}…' is longer than 512 characters"),
        ("u,x,noon", "line 3: time 'noon' is no number and no ISO date"),
        ("u,x", "line 3: time None is no number"),
    ],
)
def test_a_bad_row_is_left_out_and_told_or_refused(row: str, fault: str, tmp_path: Path) -> None:
    """A line that is blank is no row, but it counts as a line."""
    path = table(tmp_path / "log.csv", HEAD.replace("\n", "\n\n") + row + "\n" + GOOD)
    frames, (line,) = read(own(path, reading=TextFormat(bad_rows=0.25)))
    assert frames.interactions["item_id"].to_list() == ["a", "b", "c"]
    assert line.startswith("bad rows, left out: 1 of 4; the first is ")
    assert fault in line
    with pytest.raises(InputError, match=r"; mend or remove the row \(1 of 4 rows are bad, and `bad_rows` allows"):
        read(own(path, reading=TextFormat(bad_rows=0.24)))


@pytest.mark.parametrize(
    "row",
    [
        "{",
        "[1]",
        '{"user_id": "u\\ud800", "item_id": "x", "timestamp": 5}',
        '{"user_id": "u", "item_id": "x"}',
        '{"item_id": "x", "timestamp": 5}',
    ],
)
def test_a_bad_line_of_json_is_left_out_and_told(row: str, tmp_path: Path) -> None:
    frames, (line,) = read(own(table(tmp_path / "log.jsonl", JSON + row + "\n")))
    assert frames.interactions.rows() == ROWS
    assert "log.jsonl line 3: " in line


def test_the_line_of_a_bad_row_is_counted_in_the_file(tmp_path: Path) -> None:
    """A quoted field may hold line breaks, and a broken line may stand before."""
    text = 'user_id,item_id,timestamp,note\nu,a,1,"one\ntwo"\nu,b,2,x,y\nu,,3,z\nu,c,4,z\n'
    _, (line,) = read(own(table(tmp_path / "log.csv", text)))
    assert "left out: 2 of 4; the first is " in line
    assert "line 4: 5 fields where 4 belong" in line
    text = text.replace("u,b,2,x,y", "u,b,2,x")
    _, (line,) = read(own(table(tmp_path / "log.csv", text)))
    assert "line 5: item_id is empty" in line


def test_a_mark_that_never_closes_costs_no_row_in_silence(tmp_path: Path) -> None:
    path = table(tmp_path / "log.csv", HEAD + 'u,"a,1\nu,b,2\nu,c,3\n')
    with pytest.raises(InputError, match=r"line 2: a quotation mark .* `quote=none` reads marks as text.*3 of 3 rows"):
        read(own(path))
    frames, _ = read(own(path, reading=TextFormat(quote="none")))
    assert frames.interactions["item_id"].to_list() == ['"a', "b", "c"]


def test_a_mark_within_a_field_is_text(tmp_path: Path) -> None:
    frames, lines = read(own(table(tmp_path / "log.csv", HEAD + 'u,5" nail,1\nu,b,2\n')))
    assert (frames.interactions["item_id"].to_list(), lines) == (['5" nail', "b"], [])


# ---- times


@pytest.mark.parametrize(
    "times",
    [
        pl.Series([Decimal("1700000000.5"), Decimal("1700000000.6")], dtype=pl.Decimal(20, 3)),
        pl.Series([2**64 - 2, 2**64 - 1], dtype=pl.UInt64),
        pl.Series([2**53, 2**53 + 1]),
        pl.Series([10**30, 10**30 + 1], dtype=pl.Int128),
        pl.Series(["9007199254740992", "9007199254740993"]),
        pl.Series(["18446744073709551614", "18446744073709551615"]),
        pl.Series(["1700000000.123456788", "1700000000.123456789"]),
        pl.Series(["1e3", "1000.000000000000000001"]),
        pl.Series(["1700000000000000000000000", "1.700000000000000000000001e24"]),
        pl.Series(["2024-01-01T00:00:00.000000050", "2024-01-01T00:00:00.000000060"]),
        pl.Series(["2024-01-01T00:00:00+02:00", "2023-12-31T22:30:00Z", "2023-12-31 23:00:00"]),
        pl.Series(["2024-01-01T10:00:00-0130", "2024-01-01T11:30:00.1", "2024-01-01 11:31", "2024-01-02"]),
        pl.Series(["0001-01-01", "9999-12-31T23:59:59.999999999"]),
        pl.Series(["2024-01-01", "2024-01-02"], dtype=pl.Categorical),
        pl.Series([date(2024, 1, 1), date(2024, 1, 2)]),
        pl.Series([datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, 0, 1, tzinfo=UTC)]),
        pl.Series([1, 2]).cast(pl.Datetime("ns")),
    ],
    ids=str,
)
def test_times_are_in_the_order_of_the_file_to_the_last_digit(times: pl.Series) -> None:
    assert can_be_times(times.dtype)
    ordered = parse_times(times.reverse()).to_list()
    assert ordered == sorted(set(ordered), reverse=True)
    assert len(ordered) == len(times)


def test_the_same_moment_told_in_two_ways_is_a_tie() -> None:
    same = ["2024-01-01T00:00:00+02:00", "2023-12-31T22:00:00Z", "2023-12-31 22:00", "2023-12-31T22:00:00.000"]
    assert parse_times(pl.Series(same)).n_unique() == 1
    assert parse_times(pl.Series(["1000", "1e3", "1000.0"])).n_unique() == 1


@pytest.mark.parametrize("text", ["2024-02-30", "2024-01-01T25:00", "01/02/2024", "2024-01-01T10:00:00 CET", "inf", ""])
def test_what_is_no_time_is_none(text: str) -> None:
    assert parse_times(pl.Series([text, "2024-01-01", "2024-01-02"])).is_null().to_list() == [True, False, False]


def test_a_time_of_day_has_no_date(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [time(10)]})
    frame.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(InputError, match="times of type Time cannot be ordered"):
        read(own(tmp_path / "log.parquet"))


@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=6), min_size=1))
def test_numbers_in_text_are_ordered_as_decimals_are(numbers: list[Decimal]) -> None:
    ordered = parse_times(pl.Series([str(number) for number in numbers])).to_list()
    assert [sorted(ordered).index(rank) for rank in ordered] == [sorted(numbers).index(number) for number in numbers]


def test_times_without_a_zone_beside_others_are_told(tmp_path: Path) -> None:
    rows = "u,a,2024-01-01T00:00Z\nu,b,2024-01-01\nu,c,2024-01-01 10:00\n"
    _, lines = read(own(table(tmp_path / "log.csv", HEAD + rows)))
    assert lines == ["times without a time zone, read as UTC beside others with one: 2 of 3"]


def test_numbers_of_json_keep_their_digits(tmp_path: Path) -> None:
    rows = [f'{{"user_id":1,"item_id":"{n}","timestamp":1700000000.12345678901234567{n}}}\n' for n in (3, 2, 1)]
    times = read(own(table(tmp_path / "log.jsonl", "".join(rows))))[0].interactions["timestamp"].to_list()
    assert times == sorted(set(times), reverse=True)


# ---- the items' own columns

ITEMS = """item_id,title,genre,year,price,new,ean,day,text,cold,popularity
a,Ant,Bug,1990,1.5,true,00123,2020-01-31,about,true,7
b,Bee,,,2,false,12345,,more,false,
"""


def test_items_keep_their_columns_typed(tmp_path: Path) -> None:
    items = table(tmp_path / "items.csv", ITEMS)
    frames, (line,) = read(own(table(tmp_path / "log.csv", CSV), items, texts=("title", "genre")))
    assert frames.items.to_dicts() == [
        {"item_id": "a", "title": "Ant", "text": "Ant. Bug", "genre": "Bug", "year": 1990, "price": 1.5, "new": True}
        | {"ean": "00123", "day": "2020-01-31", "popularity": 7},
        {"item_id": "b", "title": "Bee", "text": "Bee", "genre": None, "year": None, "price": 2.0, "new": False}
        | {"ean": "12345", "day": None, "popularity": None},
    ]
    assert line.startswith("columns of items.csv, not kept: 2 of 11 ")
    assert "text: " in line
    assert "cold: " in line


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        (pl.Series([[1, 2], None]), [[1, 2], None]),
        (pl.Series([["x"], []]), [["x"], []]),
        (pl.Series([["1", "2"]]), [[1, 2]]),
        (pl.Series([Decimal("1.50")]), [1.5]),
        (pl.Series([float("nan"), 1.0]), [None, 1.0]),
        (pl.Series([date(2020, 1, 31)]), ["2020-01-31"]),
        (pl.Series([2**64 - 1], dtype=pl.UInt64), [str(2**64 - 1)]),
        (pl.Series(["1", "2"], dtype=pl.Categorical), [1, 2]),
        (pl.Series(["99999999999999999999", "1"]), ["99999999999999999999", "1"]),
        (pl.Series(["1e999", ".5"]), ["1e999", ".5"]),
        (pl.Series(["1e3", ".5", None]), [1000.0, 0.5, None]),
        (pl.Series(["+49123", "1"]), ["+49123", "1"]),
        (pl.Series(["", "  "]), [None, None]),
        (pl.Series([{"a": 1}]), ['{"a":1}']),
    ],
    ids=str,
)
def test_columns_are_what_a_filter_can_compare(values: pl.Series, kept: list[Any]) -> None:
    found = infer_type(values)
    assert found is not None
    assert found.to_list() == kept


def test_kept_columns_filter_and_take_new_items(tmp_path: Path) -> None:
    items = table(tmp_path / "items.csv", ITEMS.replace("Bug", "Bug|Pest").replace("Bee,,", "Bee,Bug,"))
    log = table(tmp_path / "log.csv", HEAD + "u,a,1\nu,b,2\nu,c,3\n")
    prepare_tables(own(log, items), tmp_path / "out", "log")
    catalogue = Catalogue.load(tmp_path / "out")
    shelf = LiveCatalogue.build(catalogue, Index.build(np.eye(3, 8, dtype=np.float32)))

    def found(**filters: Any) -> list[str]:
        return [catalogue.ids[row] for row in np.flatnonzero(shelf.filter_rows(filters))]

    assert found(genre="Bug") == ["a", "b"]
    assert found(genre=["Pest"]) == found(year={"min": 1990}) == found(new=True) == found(ean="00123") == ["a"]
    assert found(price={"min": 1, "max": 2}) == ["a", "b"]
    goods = ItemRecord("d", "Dor", "Dor", {"genre": "Bug|New", "year": 2026, "price": 3, "new": True, "popularity": 1})
    assert shelf.as_frame(goods).row(0, named=True)["genre"] == ["Bug", "New"]


def test_lists_in_json_are_lists_and_read_with_commas(tmp_path: Path) -> None:
    rows = '{"sku": "a", "name": "Ant", "tags": ["red", "small"], "sizes": [1, 2]}\n{"sku": "b", "name": "[Bee]"}\n'
    items = table(tmp_path / "items.jsonl", rows)
    tables = Tables(table(tmp_path / "log.csv", CSV), items, "user_id", "item_id", "timestamp", (), items_id="sku")
    assert read(tables)[0].items.rows() == [
        ("a", "Ant", "Ant. red, small. 1, 2", ["red", "small"], [1, 2]),
        ("b", "[Bee]", "[Bee]", None, None),
    ]


def test_a_table_may_have_a_column_of_ids_beside_the_one_asked_for(tmp_path: Path) -> None:
    """The ids can be read as text, too; a column without a name is not kept."""
    items = table(tmp_path / "items.csv", ",item_id,sku,name\n0,x,a,Ant\n1,y,b,Bee\n")
    log = table(tmp_path / "log.csv", CSV)
    tables = Tables(log, items, "user_id", "item_id", "timestamp", ("name", "sku", "item_id", "name"), items_id="sku")
    frames, (line,) = read(tables)
    assert frames.items.rows() == [("a", "Ant", "Ant. a. x. Ant"), ("b", "Bee", "Bee. b. y. Bee")]
    assert "not kept: 1 of 4" in line


def test_no_number_is_no_id(tmp_path: Path) -> None:
    log = pl.DataFrame({"user_id": [1.0, float("nan")], "item_id": [1, 2], "timestamp": [1, 2]})
    log.write_parquet(tmp_path / "log.parquet")
    frames, (line,) = read(own(tmp_path / "log.parquet"))
    assert frames.interactions["user_id"].to_list() == ["1.0"]
    assert "log.parquet row 2: user_id is empty" in line


# ---- rules, and the report

SHOP = (
    "user_id,item_id,timestamp,type\n"
    + "".join(f"ann,{item},{place},cart\n" for place, item in enumerate("abcd"))
    + "".join(f"bob,{item},{place},buy\n" for place, item in enumerate("abca"))
    + "".join(f"bot,{item},{place},buy\n" for place, item in enumerate("abcdef"))
    + "uma,a,1,buy\numa,b,2,view\n,c,3,buy\n"
)


def test_every_step_is_told_with_a_count_and_an_example(fedrec: Fedrec, tmp_path: Path) -> None:
    table(tmp_path / "shop.csv", SHOP)
    table(tmp_path / "items.csv", "item_id,title\na,Ant\nb,Bee\nb,Bees\nc,\n")
    asked = ["data", "import", "shop.csv", "--items", "items.csv", "--name", "shop", "--bad-rows", 0.1]
    asked += ["--event-column", "type", "--keep-events", "buy,cart", "--max-events", 5, "--out", "out"]
    done = fedrec(*asked, "--json")
    assert done.err.splitlines() == [
        "note bad rows, left out: 1 of 17; the first is shop.csv line 18: user_id is empty",
        "note events of other kinds, left out: 1 of 16 ('view' 1)",
        "note items of items.csv with no text, known by their id alone: 1 of 4; one is 'c'",
        "note items described again, where the first description is kept: 1 of 4 rows; one is 'b'",
        "note items without description, known by their id alone: 3 of 6 that occur; one is 'd', "
        "a described one is 'a'",
        "note repeats, left out: 1 of 15 events; one is user 'bob' with item 'a' again",
        "note users with more than 5 events, left out: 1 of 4, with 6 events; one is 'bot' with 6",
        "note users with fewer than 3 events, left out: 1 of 3, with 1 events; one is 'uma' with 1",
    ]
    told = done.answer
    assert told == read_manifest(tmp_path / "out") | {"out": "out"}
    steps = ("bad_rows", "other_events_dropped", "repeats_dropped", "interactions")
    assert told["events_read"] == sum(told[step] for step in steps) + 1 + 6  # of Uma and of the bot
    assert histories(tmp_path / "out") == ["abcd", "abc"]
    held = (tmp_path / "out" / "manifest.json").read_text()
    assert not [name for name in ("ann", "bob", "uma", "bot") if name in held]


@pytest.mark.parametrize("ending", [".0", " "])
def test_ids_that_differ_by_their_ends_are_shown_beside_each_other(ending: str, tmp_path: Path) -> None:
    rows = "".join(f"u,{item}{ending},{item}\n" for item in (9, 2, 3, 4))
    items = table(tmp_path / "items.csv", "item_id,title\n1,Ant\n2,Bee\n3,Cat\n")
    lines: list[str] = []
    prepare_tables(own(table(tmp_path / "log.csv", HEAD + rows), items), tmp_path / "out", "log", warn=lines.append)
    assert lines == [
        f"items without description, known by their id alone: 4 of 4 that occur; one is '2{ending}', a "
        "described one is '2'; 2 would be described without a blank or '.0' at an end"
    ]


def test_strict_refuses_what_would_be_left_out_unasked_and_writes_nothing(fedrec: Fedrec, tmp_path: Path) -> None:
    table(tmp_path / "shop.csv", SHOP)
    table(tmp_path / "items.csv", "item_id,title\n" + "".join(f"{item},{item}{item}\n" for item in "abcdef"))
    asked = ["data", "import", "shop.csv", "--items", "items.csv", "--name", "shop", "--strict", "--out", "out"]
    done = fedrec(*asked, "--bad-rows", 0.1)
    is_refused(done, "--strict: nothing is written. bad rows", "repeats, left out: 1 of 16", "fewer than 3 events")
    assert not (tmp_path / "out").exists()
    table(tmp_path / "shop.csv", SHOP.partition("uma")[0])
    done = fedrec(*asked, "--keep-repeats", "--max-events", 5)
    assert (done.code, "users with more than 5 events" in done.err) == (0, True)
    assert histories(tmp_path / "out") == ["abcd", "abca"]
    assert read_manifest(tmp_path / "out")["split"] == Split(repeats=True).description


def test_a_history_that_a_bot_may_have_is_told_with_the_remedy(tmp_path: Path) -> None:
    rows = "".join(f"{user},{item},{item}\n" for user, count in (("u", 1000), ("bot", 1001)) for item in range(count))
    lines: list[str] = []
    tables = own(table(tmp_path / "log.csv", HEAD + rows))
    prepare_tables(tables, tmp_path / "out", "log", warn=lines.append)
    *_, longest, without_text = lines
    assert longest.startswith("longest history: 1,001 events, of user 'bot'; ")
    assert "--max-events" in longest
    assert without_text.startswith("no item has a text")
    prepare_tables(tables, tmp_path / "out", "log", rules=Rules(max_events=1000), warn=lines.append)
    assert lines[-2] == "users with more than 1000 events, left out: 1 of 2, with 1,001 events; one is 'bot' with 1,001"


def test_a_table_without_times_is_in_the_order_of_its_rows(fedrec: Fedrec, tmp_path: Path) -> None:
    table(tmp_path / "log.csv", "user_id,item_id\n" + "".join(f"u,{item}\n" for item in "cab"))
    asked = ["data", "import", "log.csv", "--name", "log", "--out", "out"]
    is_refused(fedrec(*asked), "has no column 'timestamp'", "--no-times if the rows are in the order of time")
    told = fedrec(*asked, "--no-times", "--json").answer
    assert told["rules"]["times"] is False
    shard, ids = Shard.load(tmp_path / "out"), Catalogue.load(tmp_path / "out").ids
    assert [ids[row] for row in shard.full_history(0)] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Rules(min_events=2), "`min_events=2`"),
        (lambda: Rules(max_events=2), "`max_events=2` is less than `min_events=3`"),
        (lambda: Rules(event_column="type"), "give both or none"),
        (lambda: Rules(keep_events=("buy",)), "give both or none"),
        (lambda: Split(cold_share=0.1).with_repeats(True), "`keep_repeats` has no meaning with `split=cold-items`"),
    ],
)
def test_rules_that_cannot_be_are_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()


def test_a_kind_of_events_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    rules = Rules(event_column="type", keep_events=("purchase",))
    with pytest.raises(InputError, match=r"no event is purchase, but 'buy' 11, 'cart' 4, 'view' 1; name others by `k"):
        read(own(table(tmp_path / "shop.csv", SHOP)), rules)


def test_a_node_reads_its_table_by_the_rules_of_the_catalogue(tmp_path: Path) -> None:
    rules = Rules(min_events=4, max_events=5, event_column="type", keep_events=("buy", "cart"))
    tables = own(table(tmp_path / "shop.csv", SHOP))
    prepare_tables(tables, tmp_path / "out", "shop", LEAVE_ONE_OUT, rules)
    lines: list[str] = []
    manifest = prepare_node(tmp_path / "out", tables, tmp_path / "node", lines.append)
    assert Rules.from_manifest(manifest) == rules
    assert (manifest["users"], manifest["short_users_dropped"], manifest["long_users_dropped"]) == (1, 2, 1)
    assert (manifest["bad_rows"], manifest["other_events_dropped"], manifest["repeats_dropped"]) == (1, 1, 1)
    assert len(lines) == 5
    with pytest.raises(InputError, match="`strict`: nothing is written"):
        prepare_node(tmp_path / "out", tables, tmp_path / "other", lines.append, strict=True)
    assert not (tmp_path / "other").exists()


def test_a_user_in_two_groups_is_on_no_node(fedrec: Fedrec, toy: Path, tmp_path: Path) -> None:
    users = [f"person-{user:02d}" for user in range(12)]
    pl.DataFrame({"user_id": [*users, users[3]], "group": ["x"] * 12 + ["y"]}).write_parquet(tmp_path / "users.pq")
    asked = ["node", "split", toy, "--by", "users.pq", "--column", "group", "--out", "out"]
    is_refused(fedrec(*asked), "user 'person-03' has more than one group")


# ---- popularity


def test_popularity_counts_users_and_their_training_events_alone(tmp_path: Path) -> None:
    rows = [("ann", item) for item in "aabcd"] + [("bob", item) for item in "abdc"]
    text = "user_id,item_id\n" + "".join(f"{user},{item}\n" for user, item in rows)
    tables = own(table(tmp_path / "log.csv", text))
    prepare_tables(tables, tmp_path / "out", "log", Split(repeats=True), Rules(times=False))
    frame = Catalogue.load(tmp_path / "out").frame
    assert dict(frame.select("item_id", "popularity").iter_rows()) == {"a": 2, "b": 2, "c": 0, "d": 0}


def test_popularity_changes_neither_fingerprint_nor_histories(tmp_path: Path) -> None:
    tables = own(table(tmp_path / "log.csv", toy_interactions().write_csv()))
    for popularity in (True, False):
        manifest = prepare_tables(tables, tmp_path / str(popularity), "log", rules=Rules(popularity=popularity))
        assert manifest.popularity == ("counted" if popularity else "none")
    with_it, without = (Catalogue.load(tmp_path / str(popularity)) for popularity in (True, False))
    assert with_it.frame.drop("popularity").equals(without.frame)
    assert with_it.fingerprint == without.fingerprint
    assert np.array_equal(Shard.load(tmp_path / "True").items, Shard.load(tmp_path / "False").items)


def test_a_new_visitor_is_answered_by_what_was_counted(run: Path, tmp_path: Path) -> None:
    """The toy run, over the toy catalogue with counts: ids and texts, and so the model, are the same."""
    toy_items().write_parquet(tmp_path / "items.parquet")
    tables = own(table(tmp_path / "log.csv", toy_interactions().write_csv()), tmp_path / "items.parquet")
    prepare_tables(tables, tmp_path / "out", "log")
    counted = Catalogue.load(tmp_path / "out").frame.select("item_id", "popularity")
    old = Recommender.load(run)
    frame = old.catalogue.frame.join(counted, on="item_id", how="left", maintain_order="left")
    engine = Engine.from_recommender(Recommender(Catalogue(frame), old.vectors, old.adapter, old.card))
    answer = engine.recommend(Question(history=["never seen"], k=3))
    assert answer.fallback == "popularity"
    assert [item.score for item in answer.items] == counted["popularity"].top_k(3).to_list()


def test_a_split_hands_counts_on_and_says_so_or_leaves_them_out(fedrec: Fedrec, tmp_path: Path) -> None:
    table(tmp_path / "log.csv", toy_interactions().write_csv())
    fedrec("data", "import", "log.csv", "--name", "log", "--out", "out")
    done = fedrec("node", "split", "out", "--nodes", 2, "--out", "open")
    assert "--no-popularity leaves that out" in done.err
    assert Catalogue.load(tmp_path / "open/server").frame.columns == ["item_id", "title", "text", "popularity"]
    assert read_manifest(tmp_path / "open/server").keys() & {"bad_rows", "events_read", "repeats_dropped"} == set()
    done = fedrec("node", "split", "out", "--nodes", 2, "--no-popularity", "--out", "closed", "--json")
    assert (done.answer["popularity"], done.err) == (False, "")
    for folder in (tmp_path / "closed").iterdir():
        assert Catalogue.load(folder).frame.columns == ["item_id", "title", "text"]
        assert read_manifest(folder)["popularity"] == "none"


def test_popularity_of_the_items_table_is_kept_and_is_no_count(tmp_path: Path) -> None:
    items = table(tmp_path / "items.csv", "item_id,title,popularity\na,Ant,0.5\nb,Bee,2\n")
    log = table(tmp_path / "log.csv", HEAD + GOOD)
    assert prepare_tables(own(log, items), tmp_path / "out", "log").popularity == "given"
    assert Catalogue.load(tmp_path / "out").frame["popularity"].to_list() == [0.5, 2.0, None]
    table(items, "item_id,title,popularity\na,Ant,high\nb,Bee,low\n")
    manifest = prepare_tables(own(log, items), tmp_path / "out", "log")
    assert (manifest.popularity, manifest.item_columns_dropped) == ("counted", 1)


# ---- docs/your-data.md


def test_the_documented_import_gives_what_is_documented(fedrec: Fedrec, tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "docs/your-data.md").read_text()
    events, items = re.findall(r"```csv\n(.*?)```", text, re.DOTALL)
    table(tmp_path / "events.csv", events)
    table(tmp_path / "items.csv", items)
    command, *shown = re.findall(r"```\n\$ fedrec (.*?)```", text, re.DOTALL)[0].splitlines()
    done = fedrec(*shlex.split(command))
    assert [*done.err.splitlines(), done.out.splitlines()[0]] == shown
    frame = Catalogue.load(tmp_path / "var/prepared/shop").frame
    assert frame.columns == ["item_id", "title", "text", "about", "category", "price", "in stock", "popularity"]
    options = {option for line in text.splitlines() for option in re.findall(r"`(--[a-z-]+)", line)}
    commands = (("data", "import"), ("data", "describe"), ("train",))
    known = "".join(fedrec(*command, "--help").out for command in commands)
    assert not [option for option in options if option[:14] not in known]
