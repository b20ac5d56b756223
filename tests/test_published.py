"""Published datasets by name: each one that the list holds is read, from files in its publisher's format."""

import gzip
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.manifest import Manifest
from fedrec.data.prepare import prepare
from fedrec.data.readers import streams
from fedrec.data.readers.amazon import JSON_LINES, PRODUCT_2023
from fedrec.data.readers.item_files import read_item_batches
from fedrec.data.readers.raw import File, Frames, open_root
from fedrec.data.readers.reading_report import ReadingReport
from fedrec.data.readers.sources import source_named
from fedrec.data.shard import Shard
from tests.support.published_files import (
    LISTED,
    NEW_EVENTS,
    NEW_HEADER,
    OLD_EVENTS,
    PUBLISHED,
    Files,
    amazon_2014,
    amazon_2018,
    amazon_2023,
    json_lines,
    new_meta,
    new_ratings,
    old_ratings,
    old_reviews,
    write,
)

GAMES = "amazon-2023:Video_Games"


def zipped(place: Path, files: Files) -> Path:
    """A zip of the files, compressed ones as they are."""
    path = place / "given.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, gzip.compress(content) if name.endswith(".gz") else content)
    return path


def unpacked(place: Path, files: Files) -> Path:
    """A folder of the files, none of them compressed."""
    return write(place, {name.removesuffix(".gz"): content for name, content in files.items()})


def read(name: str, source: Path, warnings: list[str] | None = None) -> Frames:
    warn = warnings.append if warnings is not None else lambda text: None
    root = open_root(source, warn, report := ReadingReport(warn))
    frames = source_named(name).read(root)
    report.finish()
    return frames


def prepared(name: str, given: Path, out: Path) -> tuple[Manifest, list[str]]:
    warnings: list[str] = []
    return prepare(source_named(name), out, given, lambda done, total: None, warnings.append), warnings


def events_of(frames: Frames) -> list[tuple[Any, ...]]:
    return frames.interactions.select("user_id", "item_id", "timestamp").rows()


def items_of(frames: Frames) -> list[tuple[Any, ...]]:
    return frames.items.select("item_id", "title", "text").rows()


# ---- the list


def test_the_list_holds_nothing_that_is_not_read() -> None:
    assert sorted(PUBLISHED) == sorted(LISTED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_dataset_is_read(name: str, tmp_path: Path) -> None:
    case = PUBLISHED[name]
    frames = read(name, write(tmp_path, case.files))
    assert events_of(frames) == case.events
    assert set(case.items) <= set(items_of(frames))
    if not name.startswith("amazon-") or "-20" in name:  # UniSRec's items are read in test_atomic
        assert items_of(frames) == case.items


@pytest.mark.parametrize("pack", [zipped, unpacked])
@pytest.mark.parametrize(
    "name",
    [
        *("amazon-2014:Beauty", "amazon-2018:Video_Games", GAMES, "yelp", "steam", "goodreads:poetry", "lastfm-2k"),
        *("book-crossing", "kuairec", "mind-small"),
    ],
)
def test_a_zip_and_a_folder_hold_the_same(name: str, pack: Callable[[Path, Files], Path], tmp_path: Path) -> None:
    case = PUBLISHED[name]
    frames = read(name, pack(tmp_path, case.files))
    assert (events_of(frames), items_of(frames)) == (case.events, case.items)


def test_every_dataset_says_where_it_comes_from(fedrec: Any) -> None:
    for entry in fedrec("data", "list", "--json").answer:
        assert entry["terms"], entry["name"]
        assert entry["urls"] or entry["by_hand"] or entry["name"] == "demo"
        assert entry["citation"] or entry["name"] == "demo"
        assert all(url.startswith("http") for url in entry["urls"])
    listed = fedrec("data", "list").out
    assert "amazon-2023:CATEGORY" in listed
    assert "no checksum is published" in listed
    assert "by --source: take KuaiRec.zip" in listed
    assert "amazon-2023:Baby_Products" not in listed


def test_an_unknown_member_is_answered_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"amazon-2014:Vidoe_Games is not known; CATEGORY is one of Amazon_Inst"):
        source_named("amazon-2014:Vidoe_Games")


# ---- what the user has


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_one_file_is_enough_with_the_metadata_beside_it(suffix: str, tmp_path: Path) -> None:
    write(tmp_path, {"meta_Video_Games.jsonl.gz": new_meta(), "Video_Games.jsonl": b"no JSON"})
    given = tmp_path / f"Video_Games.{suffix}"
    if suffix == "parquet":
        pl.read_csv(new_ratings(NEW_EVENTS)).write_parquet(given)
    else:
        write(tmp_path, {given.name: new_ratings(NEW_EVENTS)})
    frames = read(GAMES, given)
    assert (events_of(frames), items_of(frames)) == (NEW_EVENTS, amazon_2023("x").items)


def test_the_file_that_is_given_is_read_and_no_other_beside_it(tmp_path: Path) -> None:
    """Neither another kind of events, which a folder would prefer, nor another copy of the same name."""
    two = OLD_EVENTS[:2]
    ratings = "".join(f"{user},{asin},5.0,{time}\n" for user, asin, time in two).encode()
    write(
        tmp_path,
        {"reviews_Baby_5.json.gz": old_reviews(), "ratings_Baby.csv": b"broken", "ratings_Baby.csv.gz": ratings},
    )
    assert events_of(read("amazon-2014:Baby", tmp_path / "ratings_Baby.csv.gz")) == two
    write(tmp_path, {"Video_Games.csv": b"broken"})
    pl.read_csv(new_ratings(NEW_EVENTS)).write_parquet(tmp_path / "Video_Games.parquet")
    assert events_of(read(GAMES, tmp_path / "Video_Games.parquet")) == NEW_EVENTS


def test_metadata_in_parquet(tmp_path: Path) -> None:
    """With the types of the hub's own copies: lists of text, a price as text."""
    rows = [json.loads(line) for line in new_meta().splitlines()]
    columns = ("parent_asin", "title", "features", "description", "categories", "store")
    kept = [{name: row.get(name) for name in columns} | {"price": str(row.get("price"))} for row in rows]
    pl.DataFrame(kept).write_parquet(tmp_path / "meta_Video_Games.parquet")
    write(tmp_path, {"Video_Games.csv": new_ratings(NEW_EVENTS)})
    assert items_of(read(GAMES, tmp_path)) == amazon_2023("x").items


def test_a_file_without_metadata_beside_it_says_so(tmp_path: Path) -> None:
    write(tmp_path, {"Video_Games.csv": new_ratings(NEW_EVENTS)})
    manifest, warnings = prepared(GAMES, tmp_path / "Video_Games.csv", tmp_path / "out")
    assert "holds no 'meta_Video_Games.jsonl': all items are known by their id alone" in warnings[0]
    assert manifest.items_without_description == manifest.items == 4


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("yelp", "Video_Games.csv", "Video_Games.csv is none of yelp_academic_dataset_review.json, yelp_academic_data"),
        (
            "yelp",
            "",
            "holds none of yelp_academic_dataset_review.json, but Video_Games.csv, notes.txt; is it the dataset",
        ),
        ("amazon-2018:Books", "", "holds none of Books_5.json, Books.csv, Books.json, but Video_Games.csv, notes.txt"),
        ("mind-small", "", "holds no 'behaviors.tsv', but Video_Games.csv, notes.txt; is it the dataset you named?"),
        ("mind-small", "Video_Games.csv", "Video_Games.csv is none of behaviors.tsv, news.tsv; is it the dataset you"),
        (
            "ml-100k",
            "Video_Games.csv",
            "Video_Games.csv is one file, where 'u.genre' and others belong; give a zip or a",
        ),
        (GAMES, "notes.txt", "notes.txt is not a whole zip file"),
        (GAMES, "absent.csv", "`source` {}/absent.csv does not exist; give a zip or a folder"),
    ],
)
def test_a_wrong_source_is_named_with_what_belongs_there(name: str, given: str, says: str, tmp_path: Path) -> None:
    write(tmp_path, {"Video_Games.csv": new_ratings(NEW_EVENTS), "notes.txt": b"x"})
    with pytest.raises(InputError, match=re.escape(says.format(tmp_path))) as caught:
        read(name, tmp_path / given)
    assert "\n" not in str(caught.value)


def test_a_clone_with_two_cuts_is_not_guessed_about(tmp_path: Path) -> None:
    ratings = new_ratings(NEW_EVENTS)
    cuts = {f"benchmark/{cut}/rating_only/Video_Games.csv": ratings for cut in ("0core", "5core")}
    write(tmp_path, cuts | {"raw/meta_categories/meta_Video_Games.jsonl": new_meta()})
    with pytest.raises(InputError, match=r"'Video_Games\.csv' in .*0core/rating_only and in .*5core/rating_only; give"):
        read(GAMES, tmp_path)
    frames = read(GAMES, tmp_path / "benchmark/5core/rating_only/Video_Games.csv")
    assert events_of(frames) == NEW_EVENTS


def test_a_file_and_its_compressed_copy_are_one(tmp_path: Path) -> None:
    ratings = new_ratings(NEW_EVENTS)
    write(tmp_path, {"Video_Games.csv": ratings, "Video_Games.csv.gz": ratings, "meta_Video_Games.jsonl": new_meta()})
    assert events_of(read(GAMES, tmp_path)) == NEW_EVENTS


# ---- Amazon


def test_the_splits_of_2023_hold_out_what_the_publisher_held_out(tmp_path: Path) -> None:
    """Train, valid and test in their order: Ben's two items of one time are told apart by the files alone."""
    parts = {
        "train": [("AEANN", "B0A", 1_600_000_000_000), ("AEBEN", "B0C", 1_600_000_000_000)],
        "valid": [("AEANN", "B0B", 1_630_000_000_123), ("AEBEN", "B0A", 1_600_000_000_000)],
        "test": [("AEANN", "B0C", 1_660_000_000_000), ("AEBEN", "B0D", 1_670_000_000_000)],
    }
    files = {f"Video_Games.{part}.csv": new_ratings(events) for part, events in parts.items()}
    given = write(tmp_path / "given", files | {"meta_Video_Games.jsonl": new_meta()})
    prepared(GAMES, given, tmp_path / "out")
    shard, ids = Shard.load(tmp_path / "out"), Catalogue.load(tmp_path / "out").ids
    for part, split in (("valid", "validation"), ("test", "test")):
        assert [ids[row] for row in shard.held_out([0, 1], split)] == [item for _, item, _ in parts[part]]


def test_the_splits_with_histories_are_read_alike(tmp_path: Path) -> None:
    """Their last column is the history, which the other rows hold, too."""
    header = b"user_id,parent_asin,rating,timestamp,history\n"
    train = header + b"AEANN,B0A,5.0,1600000000000,\nAEANN,B0B,5.0,1630000000123,B0A\n"
    files = {"Video_Games.train.csv": train, "Video_Games.valid.csv": header + b"AEANN,B0C,5.0,1660000000000,B0A B0B\n"}
    write(tmp_path, files | {"Video_Games.test.csv": header + b"AEANN,B0D,5.0,1670000000000,B0A B0B B0C\n"})
    assert [item for _, item, _ in events_of(read(GAMES, tmp_path))] == ["B0A", "B0B", "B0C", "B0D"]


def test_a_part_of_a_split_that_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"Video_Games.train.csv": new_ratings(NEW_EVENTS)})
    with pytest.raises(
        InputError, match=r"holds no 'Video_Games\.valid\.csv', but Video_Games\.train\.csv; give the w"
    ):
        read(GAMES, tmp_path)


def test_ratings_of_2023_without_their_header(tmp_path: Path) -> None:
    write(tmp_path, {"Video_Games.csv": new_ratings(NEW_EVENTS, header=b"")})
    assert events_of(read(GAMES, tmp_path)) == NEW_EVENTS


def test_all_reviews_of_2023(tmp_path: Path) -> None:
    reviews = json_lines(
        *(
            {"rating": 5.0, "title": "Ok", "text": 'a\n"b"', "asin": "B0V", "parent_asin": item, "user_id": user}
            | {"timestamp": time, "images": [], "verified_purchase": True, "helpful_vote": 0}
            for user, item, time in NEW_EVENTS
        )
    )
    write(tmp_path, {"Video_Games.jsonl.gz": reviews, "meta_Video_Games.jsonl.gz": new_meta()})
    frames = read(GAMES, tmp_path)
    assert (events_of(frames), items_of(frames)) == (NEW_EVENTS, amazon_2023("x").items)
    assert frames.interactions["rating"].to_list() == [5.0] * 6


@pytest.mark.parametrize("asin_first", [True, False])
@pytest.mark.parametrize(
    ("name", "file"), [("amazon-2014:Baby", "ratings_Baby.csv"), ("amazon-2018:Books", "Books.csv")]
)
def test_ratings_without_a_header_are_read_in_either_order(
    asin_first: bool, name: str, file: str, tmp_path: Path
) -> None:
    write(tmp_path, {file: old_ratings(asin_first)})
    assert events_of(read(name, tmp_path)) == OLD_EVENTS


def test_ratings_of_something_else_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"ratings_Baby.csv": b"1,7,5.0,9\n1,8,5.0,9\n"})
    with pytest.raises(
        InputError, match=r"ratings_Baby\.csv: the first two columns are not a user and a product .* 1,7;"
    ):
        read("amazon-2014:Baby", tmp_path)


def test_the_5_core_is_preferred_and_the_rest_is_noted(tmp_path: Path) -> None:
    warnings: list[str] = []
    write(tmp_path, {"reviews_Baby_5.json.gz": old_reviews(), "ratings_Baby.csv": b"broken"})
    assert events_of(read("amazon-2014:Baby", tmp_path, warnings)) == OLD_EVENTS
    assert warnings[0] == "reviews_Baby_5.json is read, not ratings_Baby.csv, which are there, too"


def test_what_is_left_out_of_amazon_2018_is_reported(tmp_path: Path) -> None:
    given = write(tmp_path / "given", amazon_2018("Books").files)
    manifest, warnings = prepared("amazon-2018:Books", given, tmp_path / "out")
    assert (manifest.events_read, manifest.repeats_dropped, manifest.items_described_twice) == (6, 1, 1)
    assert manifest.items_without_description == 2  # one has no metadata, the other's are empty
    assert "titles of meta_Books.json.gz that are code of a page, not read: 1" in warnings
    catalogue = Catalogue.load(tmp_path / "out")
    assert "getTime" not in " ".join(catalogue.texts)
    assert catalogue.frame.filter(pl.col("item_id") == "B000000001")["categories"].item() == "Beauty|Bath"


def test_a_literal_is_never_run(tmp_path: Path) -> None:
    """A line that is code is a broken line, and nothing that it says happens."""
    trap = f"__import__('pathlib').Path({str(tmp_path / 'trap')!r}).touch() or {{'asin': 'B000000003'}}\n".encode()
    meta = gzip.decompress(gzip.compress(amazon_2014("Baby").files["meta_Baby.json.gz"]))
    write(tmp_path, {"reviews_Baby_5.json": old_reviews(), "meta_Baby.json": trap + meta * 100})
    warnings: list[str] = []
    read("amazon-2014:Baby", tmp_path, warnings)
    assert not (tmp_path / "trap").exists()
    assert warnings[0].startswith(
        "bad rows, left out: 1 of 401; the first is meta_Baby.json line 1: no Python dictionary"
    )
    eval(trap)  # the control: run, the line does what it says
    assert (tmp_path / "trap").exists()


def test_the_5_core_of_all_ratings_is_the_benchmark(tmp_path: Path) -> None:
    """Five users with five products each, and around them a user, a product and a chain of both that fall away."""
    core = [(f"A{user}BEN0000000", f"B00000000{item}", item + 1) for user in range(5) for item in range(5)]
    outer = [("A9BEN0000000", f"B00000000{item}", 9) for item in range(4)] + [("A1BEN0000000", "B000000009", 9)]
    ratings = "".join(f"{user},{asin},5.0,{time}\n" for user, asin, time in [*core, *outer])
    prepared(
        "amazon-2014-beauty", write(tmp_path / "given", {"ratings_Beauty.csv": ratings.encode()}), tmp_path / "out"
    )
    catalogue = Catalogue.load(tmp_path / "out")
    assert sorted(catalogue.ids) == [f"B00000000{item}" for item in range(5)]
    assert Shard.load(tmp_path / "out").history(4, "test").tolist() == [0, 1, 2, 3]
    assert len(Shard.load(tmp_path / "out")) == 5


def test_halves_of_characters_are_joined_or_replaced(tmp_path: Path) -> None:
    """Python 2 and JSON write one character as two halves; half a one is no text, and breaks no batch."""
    reviews = b"{u'username': u'\\ud83d\\ude00', u'product_id': u'7', u'date': u'2017-12-17'}\n"
    games = b"{u'id': u'7', u'title': u'Smile \\ud83d\\ude00', u'genres': [u'cut \\ud83d']}\n"
    frames = read("steam", write(tmp_path, {"steam_reviews.json": reviews, "steam_games.json": games}))
    assert frames.interactions["user_id"].to_list() == ["😀"]
    assert items_of(frames) == [("7", "Smile 😀", "Smile 😀. cut \ufffd")]


def test_a_benchmark_of_another_size_is_noted(tmp_path: Path) -> None:
    users = [(f"A{user}BEN0000000", f"B00000000{item}", item) for user in range(5) for item in range(5)]
    reviews = json_lines(
        *({"reviewerID": user, "asin": asin, "overall": 5.0, "unixReviewTime": time} for user, asin, time in users)
    )
    given = write(tmp_path / "given", {"reviews_Beauty_5.json.gz": reviews})
    _, warnings = prepared("amazon-2014-beauty", given, tmp_path / "out")
    assert warnings[-1] == (
        "amazon-2014-beauty has 5 users where 22,363 are published, 5 items where 12,101 are published, 25 events "
        "where 198,502 are published: its figures do not compare with those of papers"
    )


# ---- bad rows


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b"AEANN,B0A,4.0\n", "line 102: an id or the time is missing or wrong (user_id 'AEANN', item_id 'B0A', timest"),
        (b"AEANN,,4.0,9\n", "line 102: an id or the time is missing or wrong (user_id 'AEANN', item_id "),
        (b"AEANN,B0A,4.0,noon\n", "line 102: an id or the time is missing or wrong"),
        (b"AEANN,B0A,4.0,inf\n", "line 102: an id or the time is missing or wrong"),
        (b"AEANN,B0A,4.0,9,9,9\n", "line 102: 6 fields where 4 belong ('AEANN,B0A,4.0,9,9,9')"),
        (b'AEANN,"B0A,4.0,9\n', "line 102: a quotation mark that does not close its field"),
        (b"AEANN,B\xff0A,4.0,9,9\n", "line 102: 5 fields where 4 belong"),
    ],
)
def test_bad_rows_are_counted_and_the_first_is_shown(bad: bytes, says: str, tmp_path: Path) -> None:
    good = b"AEANN,B0A,4.0,1600000000000\n"
    path = write(tmp_path, {"Video_Games.csv": NEW_HEADER + good * 100 + bad + good * 99}) / "Video_Games.csv"
    warnings: list[str] = []
    assert len(read(GAMES, path, warnings).interactions) == 199
    assert any(f"bad rows, left out: 1 of 200; the first is Video_Games.csv {says}" in line for line in warnings)
    write(tmp_path, {"Video_Games.csv": NEW_HEADER + good * 100 + bad * 3 + good * 97})
    with pytest.raises(InputError, match=re.escape(f"Video_Games.csv {says}")) as caught:
        read(GAMES, path)
    assert "(3 of 200 rows are bad, and `bad_rows` allows a share of 0.01)" in str(caught.value)


def test_broken_lines_of_json_lose_those_lines_alone(tmp_path: Path) -> None:
    lines = old_reviews().splitlines(keepends=True)
    write(tmp_path, {"Books_5.json": b"".join(lines * 20 + [b'{"reviewerID": "A1\n', b"\n"] + lines * 20)})
    warnings: list[str] = []
    frames = read("amazon-2018:Books", tmp_path, warnings)
    assert events_of(frames) == OLD_EVENTS * 40
    assert any("1 of 241; the first is Books_5.json line 121: no JSON object" in line for line in warnings)


def test_a_file_of_no_events_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"Video_Games.csv": NEW_HEADER})
    with pytest.raises(InputError, match=r"Video_Games\.csv holds no events; is it the whole file\?"):
        read(GAMES, tmp_path)


def test_another_header_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"big_matrix.csv": b"user,video,timestamp\n1,2,3\n"})
    with pytest.raises(
        InputError, match=r"big_matrix\.csv has no column 'user_id' among user, video, timestamp, where"
    ):
        read("kuairec", tmp_path)


def test_a_truncated_gz_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(old_reviews())
    (tmp_path / "Books_5.json.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"Books_5\.json\.gz cannot be read \(.*\); mend it or give another file"):
        read("amazon-2018:Books", tmp_path)


# ---- large files


@pytest.mark.parametrize("size", [7, 64])
def test_batches_of_any_size_give_the_same(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines, and with them quoted fields, may begin in one batch and end in another."""
    monkeypatch.setattr(streams, "BATCH_BYTES", size)
    for name in ("amazon-2014:Beauty", GAMES, "book-crossing", "kuairec"):
        case = PUBLISHED[name]
        frames = read(name, write(tmp_path / name.replace(":", "-"), case.files))
        assert (sorted(events_of(frames)), items_of(frames)) == (sorted(case.events), case.items)


def test_metadata_are_read_in_batches_and_only_what_is_needed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first batch, no more than that batch of the file has been read; all batches hold one item."""
    monkeypatch.setattr(streams, "BATCH_BYTES", 10_000)
    other = json_lines({"parent_asin": "B0Z", "title": "Not rated", "description": ["x" * 1000]})
    wanted = json_lines({"parent_asin": "B0A", "title": "Comb", "description": []})
    path = write(tmp_path, {"meta.jsonl": other * 50 + wanted + other * 50}) / "meta.jsonl"
    file = File(path)
    opened: list[Any] = []
    open_bytes = File.open_bytes
    monkeypatch.setattr(File, "open_bytes", lambda self: opened.append(open_bytes(self)) or opened[-1])
    batches = read_item_batches(file, JSON_LINES, PRODUCT_2023, frozenset(["B0A"]), ReadingReport())
    first = next(batches)
    assert opened[0].tell() <= 3 * 10_000 < path.stat().st_size / 3
    assert [len(batch) for batch in (first, *batches)].count(0) == 10
    assert opened[0].closed


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BATCH_BYTES", 1_000)
    monkeypatch.setattr(streams, "LONGEST_LINE", 5_000)
    write(tmp_path, {"Books_5.json.gz": b"x" * 100_000})
    with pytest.raises(InputError, match=r"Books_5\.json\.gz line 1: it has more than 5,000 bytes; is it the original"):
        read("amazon-2018:Books", tmp_path)
