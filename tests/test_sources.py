"""The readers, on small files in the formats that the publishers made, and on tables of one's own."""

import re
import zipfile
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fedrec.data.errors import InputError
from fedrec.data.readers.film_text import add_text, parse_titles
from fedrec.data.readers.raw import Frames, find_file, open_root
from fedrec.data.readers.sources import source_named
from fedrec.data.readers.tables import Tables, read_tables
from tests.support.movielens_files import CASES, ML_100K, Case, Files, flat

Pack = Callable[[Path, Files], Path]


def zipped(place: Path, files: Files) -> Path:
    """A zip that carries a folder of its own, as published."""
    path = place / "given.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"inner/{name}", content)
    return path


def unzipped(place: Path, files: Files) -> Path:
    """What unzipping leaves: a folder in a folder."""
    (place / "inner").mkdir()
    flat(place / "inner", files)
    return place


@pytest.mark.parametrize("pack", [zipped, unzipped, flat])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_reads(case: Case, pack: Pack, tmp_path: Path) -> None:
    interactions, items = source_named(case.name).read(open_root(pack(tmp_path, case.files)))
    assert interactions.columns == ["user_id", "item_id", "timestamp", "rating"]
    assert interactions.drop("rating").rows() == case.interactions
    assert interactions["rating"].is_between(0.5, 5).all()
    assert items.columns == ["item_id", "title", "year", "genres", "text"]
    assert items.rows() == case.items


@pytest.mark.parametrize(
    ("raw", "title", "year"),
    [
        ("Matrix, The (1999)", "The Matrix", 1999),
        ("Beautiful Mind, A (2001)", "A Beautiful Mind", 2001),
        ("American in Paris, An (1951)", "An American in Paris", 1951),
        ("Avventura, L' (1960)", "L'Avventura", 1960),
        ("Boot, Das (1981)", "Das Boot", 1981),
        ("Good, the Bad and the Ugly, The (1966)", "The Good, the Bad and the Ugly", 1966),
        ("Me, Myself & Irene (2000)", "Me, Myself & Irene", 2000),
        ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", 1968),
        ("1984 (1956)  ", "1984", 1956),
        ("Seven (Se7en) (1995)", "Seven (Se7en)", 1995),
        (" Untitled, The ", "Untitled, The", None),
        ("unknown", "unknown", None),
    ],
)
def test_title(raw: str, title: str, year: int | None) -> None:
    """The article comes to the front where a title ends in article and year; all else stays as it is."""
    assert parse_titles(pl.Series([raw])).rows() == [(title, year)]


@pytest.mark.parametrize(
    ("film", "text"),
    [
        ({"title": "Up", "year": 2009, "genres": "A|B", "plot": "A house flies."}, "Up (2009). A, B. A house flies."),
        ({"title": "Up", "year": None, "genres": "A", "plot": ""}, "Up. A"),
        ({"title": "Up", "year": 2009, "genres": ""}, "Up (2009)"),
        ({"title": "unknown", "year": None, "genres": ""}, "unknown"),
    ],
)
def test_text(film: dict[str, str | int | None], text: str) -> None:
    frame = pl.DataFrame([film], schema_overrides={"year": pl.Int64})
    assert add_text(frame)["text"].to_list() == [text]


@pytest.mark.parametrize(
    ("name", "file", "content", "says"),
    [
        ("ml-100k", "u.data", b"1\t1\t5\t9\n1\t267\tfive\t9\n", "u.data line 2: rating 'five' is not a number"),
        ("ml-100k", "u.data", b"1\t1\t5\t9\n1\t267\t5\tnoon\n", "u.data line 2: timestamp 'noon' is not a number"),
        ("ml-100k", "u.data", b"1\t1\t5\t9\n1\t267\tnan\t9\n", "u.data line 2: rating 'nan' is not a number"),
        ("ml-100k", "u.data", b"1\t1\t5\tinf\n", "u.data line 1: timestamp 'inf' is not a number"),
        ("ml-100k", "u.data", b"1\t1\t5\t1e300\n", "u.data line 1: timestamp '1e300' is not a number"),
        ("ml-100k", "u.data", b"1\t1\t5\t\n", "u.data line 1: timestamp '' is not a number"),
        ("ml-100k", "u.data", b"1\t1\t5\t9\n1\t1\t5\n", r"u.data line 2: 3 fields where 4 belong ('1\t1\t5')"),
        ("ml-100k", "u.data", b"1\t1\t5\n1\t1\t5\t9\n", r"u.data line 1: 3 fields where 4 belong ('1\t1\t5')"),
        ("ml-100k", "u.data", b"1\t1\t5\t9\n1\t1\t5\t9\t9\n", "u.data line 2: 5 fields where 4 belong"),
        ("ml-100k", "u.data", b"", "u.data: empty"),
        ("ml-100k", "u.item", b"1|Toy Story (1995)|0|0\n", "u.item line 1: 4 fields where 24 belong"),
        ("ml-1m", "ratings.dat", b"1::1::x::9\n", "ratings.dat line 1: rating 'x' is not a number"),
        ("ml-1m", "ratings.dat", b"1::1::5::9\n1::1::5\n", "ratings.dat line 2: 3 fields where 4 belong ('1::1::5')"),
        ("ml-1m", "movies.dat", b"1::A::B\n2::A::B::C\n", "movies.dat line 2: 4 fields where 3 belong ('2::A::B::C')"),
        ("ml-1m", "movies.dat", b"1::A::B\n2::A\n", "movies.dat line 2: 2 fields where 3 belong ('2::A')"),
        ("ml-10m", "movies.dat", "1::Misérables::B\n".encode("latin-1"), "movies.dat: byte 6 is not utf-8"),
        ("ml-25m", "ratings.csv", b"u,m,r,t\n1,1,x,9\n", "ratings.csv line 2: rating 'x' is not a number"),
        (
            "ml-25m",
            "ratings.csv",
            b"u,m,r,t\n1,1,5,9\n1,1,5\n",
            "ratings.csv line 3: 3 fields where 4 belong ('1,1,5')",
        ),
        ("ml-25m", "movies.csv", b'm,t,g\n1,"A, B",C\n2,"A, B",C,D\n', "movies.csv line 3: 4 fields where 3 belong"),
        ("ml-25m", "movies.csv", b'm,t,g\n1,"A, B",C\n2,"A, B"\n', "movies.csv line 3: 2 fields where 3 belong"),
        ("ml-25m", "movies.csv", b'm,t,g\n1,"A, B,C\n2,A,C\n', "movies.csv line 2: its quotation marks do not match"),
        ("ml-25m", "movies.csv", b"m,t,g\n1,A,C\n\n2,A,C\n", "movies.csv line 3: 1 fields where 3 belong ('')"),
    ],
)
def test_a_bad_row_is_named(name: str, file: str, content: bytes, says: str, tmp_path: Path) -> None:
    """The message is one line with the file, the line in it, and the value."""
    folder = flat(tmp_path, CASES[name].files | {file: content})
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        source_named(name).read(open_root(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pack", [zipped, unzipped, flat])
@pytest.mark.parametrize(("name", "member"), [(name, member) for name in CASES for member in CASES[name].files])
def test_a_missing_member_is_named(name: str, member: str, pack: Pack, tmp_path: Path) -> None:
    rest = {other: content for other, content in CASES[name].files.items() if other != member}
    root = open_root(pack(tmp_path, rest))
    with pytest.raises(InputError, match=f"holds no '{re.escape(member)}'"):
        source_named(name).read(root)


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_zip_is_refused(keep: int, tmp_path: Path) -> None:
    path = zipped(tmp_path, ML_100K.files)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"given\.zip is not a whole zip file .*; download it again"):
        open_root(path)


def test_what_is_no_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "given.zip"
    path.write_bytes(b"<html>502 Bad Gateway</html>" * 100)
    with pytest.raises(InputError, match="is not a whole zip file"):
        open_root(path)


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`source` .*absent\.zip does not exist; give a zip or a folder"):
        open_root(tmp_path / "absent.zip")


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    path = tmp_path / "given.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("inner/u.data", "196\t242\t3\t881250949\n")
    path.write_bytes(path.read_bytes().replace(b"\t3\t", b"\t4\t"))
    with pytest.raises(InputError, match=r"given\.zip: inner/u\.data is damaged inside the zip"):
        open_root(path)


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_a_flipped_byte_is_refused_or_harmless(flip: int, tmp_path: Path) -> None:
    """Wherever one byte of a zip changes, nobody reads anything but what was packed, nor meets another error."""
    content = b"196\t242\t3\t881250949\n" * 3
    path = zipped(tmp_path, {"u.data": content})
    whole, refused = path.read_bytes(), 0
    for place, byte in enumerate(whole):
        path.write_bytes(whole[:place] + bytes([byte ^ flip]) + whole[place + 1 :])
        try:
            assert find_file(open_root(path), "u.data").read_bytes() == content
        except InputError:
            refused += 1
    assert refused > len(whole) / 4


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"dataset 'ml-2m' is not known; choose one of demo, ml-100k, ml-1m, "):
        source_named("ml-2m")


def test_fractions_of_a_second_keep_their_order(tmp_path: Path) -> None:
    ratings = b"u::1::5::978300760.123456789\nu::2::5::978300760.123456788\nu::3::5::978300760\n"
    files = {"movies.dat": b"1::A (1990)::X\n2::B (1990)::X\n3::C (1990)::X\n", "ratings.dat": ratings}
    times = source_named("ml-1m").read(open_root(flat(tmp_path, files))).interactions["timestamp"]
    assert times.to_list() == sorted(times.unique(), reverse=True)


# ---- anyone's own tables


def own(place: Path, events: bytes | pl.DataFrame, items: bytes | None = None, texts: tuple[str, ...] = ()) -> Frames:
    """What is read of tables with the columns `user_id`, `item_id`, `timestamp`."""
    log = place / ("events.csv" if isinstance(events, bytes) else "events.parquet")
    log.write_bytes(events) if isinstance(events, bytes) else events.write_parquet(log)
    if items is not None:
        (place / "items.csv").write_bytes(items)
    things = place / "items.csv" if items is not None else None
    return read_tables(Tables(log, things, "user_id", "item_id", "timestamp", texts))


HEAD = b"user_id,item_id,timestamp\n"
LOG = HEAD + b"u,a,3\n"


def test_columns_have_any_name_and_place(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"when,stars,who,what\n20,5,007,a\n10,3,7,b\n")
    (tmp_path / "things.csv").write_bytes(b"name,what\nAnt,a\n")
    tables = Tables(tmp_path / "log.csv", tmp_path / "things.csv", "who", "what", "when", ())
    events, items = read_tables(tables)
    assert events.columns == ["user_id", "item_id", "timestamp"]
    assert events.rows() == [("007", "a", 20), ("7", "b", 10)]
    assert items.rows() == [("a", "Ant", "Ant")]


@pytest.mark.parametrize(
    "times",
    [
        ["-3", "0", "7"],
        ["1700000000123", "1700000000124", "1700000000125"],
        ["9007199254740992", "9007199254740993", "9007199254740994"],  # beyond what a float holds
        ["0.1", "0.25", "1e3"],
        ["1999-12-31", "2000-01-01", "2000-01-02"],
        ["2000-01-01T10:00:00Z", "2000-01-01T10:00:00.25Z", "2000-01-01T10:00:01Z"],
        ["2000-01-01 09:59", "2000-01-01 10:00", "2000-01-01 10:01"],
        ["2000-01-01T12:00:00+05:00", "2000-01-01T09:00:00+01:00", "2000-01-01T08:00:01+00:00"],
        [3, 5, 8],
        [0.1, 0.25, 1000.0],
        [date(1999, 12, 31), date(2000, 1, 1), date(2000, 1, 2)],
        [datetime(2000, 1, 1, 10), datetime(2000, 1, 1, 10, 1), datetime(2000, 1, 2)],
    ],
    ids=str,
)
def test_times_keep_their_order(times: list[Any], tmp_path: Path) -> None:
    table = pl.DataFrame({"user_id": [1, 1, 1], "item_id": [5, 6, 7], "timestamp": times})
    packed = table if not isinstance(times[0], str) else table.write_csv().encode()
    events, _ = own(tmp_path, packed)
    assert events.schema["timestamp"].is_numeric()
    assert events["timestamp"].is_sorted()
    assert events["timestamp"].n_unique() == 3
    assert events.select("user_id", "item_id").rows() == [("1", "5"), ("1", "6"), ("1", "7")]


@pytest.mark.parametrize(
    ("items", "texts", "read"),
    [
        (b"item_id,title,plot\na,Ant,It digs.\n", (), ("a", "Ant", "Ant. It digs.")),
        (b"item_id,title,plot\na,Ant,It digs.\n", ("plot",), ("a", "It digs.", "It digs.")),
        (b"item_id,title,plot\na,Ant,It digs.\n", ("plot", "title"), ("a", "It digs.", "It digs.. Ant")),
        (b'title,item_id\n"Ant, red",a\n', (), ("a", "Ant, red", "Ant, red")),
        (b"item_id,title,plot\na,  ,It digs.\n", (), ("a", "a", "It digs.")),
        (b"item_id,title,plot\na,Ant,\n", (), ("a", "Ant", "Ant")),
        (b"item_id,title,plot\na,,\n", (), ("a", "a", "a")),
        (b"item_id\na\n", (), ("a", "a", "a")),
    ],
)
def test_items_are_told_by_their_texts(
    items: bytes, texts: tuple[str, ...], read: tuple[str, ...], tmp_path: Path
) -> None:
    assert own(tmp_path, LOG, items, texts).items.select("item_id", "title", "text").rows() == [read]


def test_items_may_be_left_out(tmp_path: Path) -> None:
    items = own(tmp_path, LOG).items
    assert (items.columns, items.height) == (["item_id", "title", "text"], 0)


@pytest.mark.parametrize(
    ("events", "items", "says"),
    [
        (b"", None, "events.csv cannot be read (empty CSV); mend it"),
        (HEAD, None, "events.csv holds no rows; is it the file you meant?"),
        (b"u,i,t\n1,2,3\n", None, "has no column 'user_id', but u, i, t; name one of them with `user_column`"),
        (b"user_id,i,t\n1,2,3\n", None, "no column 'item_id', but user_id, i, t; name one of them with `item_column`"),
        (b"user_id,item_id\n1,2\n", None, "name one of them with `time_column`"),
        (LOG + b"u,b,noon\n", None, "events.csv line 3: time 'noon' is no number and no ISO date; mend"),
        (LOG + b"u,b,inf\n", None, "events.csv line 3: time 'inf' is no number"),
        (LOG + b"u,b\n", None, "events.csv line 3: time None is no number"),
        (LOG + b",b,4\n", None, "events.csv line 3: user_id is empty; mend or remove the row (1 of 2 rows are bad"),
        (LOG + b"u,,4\n", None, "events.csv line 3: item_id is empty"),
        (LOG + b'"",b,4\n', None, "events.csv line 3: user_id is empty"),
        (LOG + b"u,b,4,5\n", None, "events.csv line 3: 4 fields where 3 belong ('u,b,4,5'); mend or remove the row"),
        (LOG + b"u,\xff,4\n", None, "events.csv line 3: byte 0xff is not utf-8; name the file's encoding with `enc"),
        (HEAD + b"u,b,01/02/2020\n", None, "events.csv line 2: time '01/02/2020' is no number and no ISO date"),
        (HEAD + b"u,b,2020-01-31\nu,c,2020-31-01\n", None, "events.csv line 3: time '2020-31-01' is no number"),
        (HEAD + b"u,b,2020-31-01\n", None, "events.csv line 2: time '2020-31-01' is no number"),
        (LOG, b"item_id,title\na,A\n,B\n", "items.csv line 3: item_id is empty"),
        (LOG, b"id,title\na,A\n", "items.csv has no column 'item_id', but id, title; name one of them with `items_id"),
        (LOG, b"item_id,title\na,A,B\n", "items.csv line 2: 3 fields where 2 belong ('a,A,B')"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(events: bytes, items: bytes | None, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        own(tmp_path, events, items)
    assert "\n" not in str(caught.value)


def test_a_text_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no column 'plot', but item_id, title; name one of them with `text_columns`"):
        own(tmp_path, LOG, b"item_id,title\na,A\n", ("title", "plot"))


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("timestamp", [1.5, None], "events.parquet row 2: time None is no number"),
        ("timestamp", [1.5, float("nan")], "events.parquet row 2: time nan is no number"),
        ("timestamp", [[1], [2]], "events.parquet: times of type List(Int64) cannot be ordered; give numbers or dates"),
        ("item_id", [[1], [2]], "events.parquet: item_id of type List(Int64) is no text; give text or numbers"),
        ("user_id", [1, None], "events.parquet row 2: user_id is empty"),
    ],
)
def test_what_is_wrong_with_a_parquet_table_is_named(column: str, values: list[Any], says: str, tmp_path: Path) -> None:
    table = pl.DataFrame({"user_id": [1, 2], "item_id": [1, 2], "timestamp": [1, 2]})
    with pytest.raises(InputError, match=re.escape(says)):
        own(tmp_path, table.with_columns(pl.Series(column, values)))


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    tables = Tables(tmp_path / "gone.csv", None, "user_id", "item_id", "timestamp", ())
    with pytest.raises(InputError, match=r"gone\.csv is no file; give a CSV, JSON lines or parquet file"):
        read_tables(tables)


@pytest.mark.parametrize("keep", [0, 3, 100, -1, -20])
def test_a_damaged_parquet_table_is_refused(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": [1]}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"events\.parquet cannot be read .*; mend it or give another file"):
        read_tables(Tables(path, None, "user_id", "item_id", "timestamp", ()))
