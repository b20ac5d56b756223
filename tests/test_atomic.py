"""RecBole's atomic files and UniSRec's split of Amazon, on small files in their formats and on the real ones."""

import re
import zipfile
from pathlib import Path

import polars as pl
import pytest

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.manifest import Manifest
from fedrec.data.prepare import prepare
from fedrec.data.readers.raw import File, Frames, open_root
from fedrec.data.readers.recbole import read_atomic
from fedrec.data.readers.sources import source_named
from fedrec.data.shard import Shard
from tests.support.recbole_files import FILMS, GOODS, TRAIN

Files = dict[str, str]


def put(place: Path, files: Files) -> Path:
    for name, content in files.items():
        (place / name).write_text(content, "utf-8", newline="")
    return place


def zipped(place: Path, files: Files) -> Path:
    path = place / "given.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"inner/{name}", content)
    return path


def read(place: Path, name: str, files: Files) -> Frames:
    return source_named(name).read(open_root(put(place, files)))


def prepared(name: str, given: Path, out: Path) -> tuple[Manifest, list[str]]:
    """The manifest, and the warnings."""
    warnings: list[str] = []
    return prepare(source_named(name), out, given, lambda done, total: None, warnings.append), warnings


# ---- the format


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_fields_are_read_by_name_and_type(end: str, tmp_path: Path) -> None:
    """In any order of columns, with those nobody asked for left out."""
    lines = ["tags:token_seq\tspare:float\tuser_id:token\tvector:float_seq\tstars:float"]
    lines += ["red  blue\t\t007\t1 -2.5\t5", "\t1\tb c\t\t-1e3"]
    file = File(put(tmp_path, {"x.user": end.join(lines) + end}) / "x.user")
    fields = {"user_id": "token", "stars": "float", "tags": "token_seq", "vector": "float_seq"}
    table = read_atomic(file, fields)
    assert table.columns == list(fields)
    assert table.rows() == [("007", 5.0, ["red", "blue"], [1.0, -2.5]), ("b c", -1000.0, [], [])]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "x.inter line 1: field '' is not `name:type`; put the header back"),
        ("1\t2\n", "x.inter line 1: field '1' is not `name:type`"),
        (
            "user_id:token\tn:float\titem_id:word\n",
            "line 1: field 'item_id' has type 'word', not one of token, token_s",
        ),
        ("user_id:token\tuser_id:float\n", "x.inter line 1: field 'user_id' stands there twice; rename one"),
        ("user_id:token\tm:float\n1\t2\n", "line 1: no field n:float, but user_id:token, m:float; is it the file"),
        ("user_id:token\tn:token\n1\t2\n", "line 1: no field n:float, but user_id:token, n:token"),
        ("user_id:token\tn:float\n", "x.inter holds no rows; is it the whole file?"),
        ("user_id:token\tn:float\n1\t2\n1\n", "x.inter line 3: 1 fields where 2 belong ('1'); mend or remove it"),
        ("user_id:token\tn:float\n1\t2\t3\n", "x.inter line 2: 3 fields where 2 belong"),
        ('user_id:token\tn:float\n"1\n1"\t2\n', "x.inter line 2: 1 fields where 2 belong ('\"1')"),  # over two lines
        ("user_id:token\tn:float\n1\t2\n\n", "x.inter line 3: 1 fields where 2 belong ('')"),
        ("user_id:token\tn:float\n1\t2\n1\tnoon\n", "x.inter line 3: n 'noon' is not a number; mend or remove the row"),
        ("user_id:token\tn:float\n1\tnan\n", "x.inter line 2: n 'nan' is not a number"),
        ("user_id:token\tn:float\n1\t2\n\t2\n", "x.inter line 3: user_id is empty; mend or remove the row"),
    ],
)
def test_what_is_wrong_is_named(content: str, says: str, tmp_path: Path) -> None:
    file = File(put(tmp_path, {"x.inter": content}) / "x.inter")
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        read_atomic(file, {"user_id": "token", "n": "float"})
    assert "\n" not in str(caught.value)


def test_what_is_no_number_in_a_sequence_is_named(tmp_path: Path) -> None:
    file = File(put(tmp_path, {"x.item": "v:float_seq\n1 2\n1 b\n"}) / "x.item")
    with pytest.raises(InputError, match=r"x\.item line 3: v '1 b' is not numbers with spaces between; mend"):
        read_atomic(file, {"v": "float_seq"})


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.item").write_bytes("v:token\nMisérables\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"x\.item: byte 11 is not utf-8; is it the original file\?"):
        read_atomic(File(tmp_path / "x.item"), {"v": "token"})


# ---- RecBole's MovieLens


def test_films_are_told_as_in_the_publishers_layout(tmp_path: Path) -> None:
    interactions, items = read(tmp_path, "ml-1m", FILMS)
    assert interactions.rows() == [("1", "2571", 0), ("1", "73", 1), ("2", "260", 0)]
    assert items.columns == ["item_id", "title", "year", "genres", "text"]
    hope = "Star Wars: Episode IV - A New Hope"
    assert items.rows() == [
        ("73", "Les Misérables", 1995, "Drama|Musical", "Les Misérables (1995). Drama, Musical"),
        ("260", hope, 1977, "Action|Sci-Fi|Film-Noir", f"{hope} (1977). Action, Sci-Fi, Film-Noir"),
        ("2571", "The Matrix", 1999, "Animation|Children's", "The Matrix (1999). Animation, Children's"),
        ("9", '"Great Performances" Cats', None, "", '"Great Performances" Cats'),
    ]


def test_a_copy_in_another_layout_is_called_so(tmp_path: Path) -> None:
    """Nothing is claimed of its MD5, since the publisher's is that of other files."""
    events = "".join(f"1\t{item}\t{place}\n" for place, item in enumerate(["260", "9", "73"]))
    given = zipped(tmp_path, FILMS | {"ml-1m.inter": "user_id:token\titem_id:token\ttimestamp:float\n" + events})
    manifest, (warning,) = prepared("ml-1m", given, tmp_path / "out")
    assert (manifest.users, manifest.items, manifest.interactions) == (1, 4, 3)
    assert warning == (
        f"{given} holds RecBole's copy, another layout than the publisher's: there is no MD5 to check it by; "
        "going on with your copy"
    )


def test_ml_1m_as_recbole_has_it(real_data: Path, tmp_path: Path) -> None:
    given = present(real_data / "ml-1m-recbole.zip")
    manifest, _ = prepared("ml-1m", given, tmp_path / "out")
    assert (manifest.users, manifest.items, manifest.interactions) == (6_040, 3_416, 999_611)
    assert (manifest.repeats_dropped, manifest.short_users_dropped, manifest.items_without_description) == (0, 0, 0)
    items = Catalogue.load(tmp_path / "out").frame
    assert items["year"].is_between(1900, 2000).all()
    assert items.filter(pl.col("title").str.contains(r", (The|A|An)$")).is_empty()
    assert items["genres"].str.split("|").list.explode().n_unique() == 18


# ---- UniSRec's Amazon


def test_products_are_known_by_asin_and_users_by_their_id(tmp_path: Path) -> None:
    interactions, items = read(tmp_path, "amazon-scientific", GOODS)
    ann, bob = ["B0", "B1", "B2", "B3", "B4"], ["B3", "B1", "B3", "B0", "B0"]
    rows = [(user, item, place) for user, events in [("ANN", ann), ("BOB", bob)] for place, item in enumerate(events)]
    assert interactions.rows() == rows
    assert items.rows() == [
        ("B0", "Acid, 16 oz. Pack of 2", "Acid, 16 oz. Pack of 2. Industrial & Scientific Lab Chemicals. Dykem."),
        ("B1", "Béchers & flasks", "Béchers & flasks. SEOH."),
        ("B2", "Industrial & Scientific Lab Funnels", "Industrial & Scientific Lab Funnels. SEOH."),
        ("B3", "Tape No", "Tape No. 5. Tapes & Adhesives."),
        ("B4", "Glue", "Glue"),
    ]


@pytest.mark.parametrize("text", ["", ". . ", "&nbsp;. "])
def test_a_product_without_text_is_known_by_its_asin(text: str, tmp_path: Path) -> None:
    given = put(tmp_path, GOODS | {"Scientific.text": GOODS["Scientific.text"].replace("Glue", text)})
    manifest, _ = prepared("amazon-scientific", given, tmp_path / "out")
    assert (manifest.items, manifest.items_without_description) == (5, 1)
    assert Catalogue.load(tmp_path / "out").texts[-1] == "B4"


def test_the_published_split_is_kept_where_users_repeat(tmp_path: Path) -> None:
    """Bob's test item is his validation item again; dropped, it would move both."""
    manifest, _ = prepared("amazon-scientific", put(tmp_path, GOODS), tmp_path / "out")
    shard, ids = Shard.load(tmp_path / "out"), Catalogue.load(tmp_path / "out").ids
    assert [ids[row] for row in shard.held_out([0, 1], "validation")] == ["B3", "B0"]
    assert [ids[row] for row in shard.held_out([0, 1], "test")] == ["B4", "B0"]
    assert (manifest.interactions, manifest.repeats_dropped) == (5 + 5, 0)
    assert "repeats are kept, so that no published held-out item moves" in manifest.split


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        (
            "test",
            TRAIN + "0\t0 1 2\t4\n1\t3 1 3 0\t0\n",
            "valid.inter: user '0' has no row that ends 1 before the last",
        ),
        ("valid", TRAIN + "0\t0 1 2\t3\n", "Scientific.valid.inter: user '1' has no row that ends 1 before the last"),
        ("train", TRAIN + "0\t0\t2\n1\t3 1\t3\n", "Scientific.train.inter: user '0' has no row that ends 2 before"),
        ("test", TRAIN + "0\t0 1 2 3\t4\n0\t3 1 3 0\t0\n", "Scientific.test.inter names a user twice"),
    ],
)
def test_files_of_two_copies_are_refused(file: str, content: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        read(tmp_path, "amazon-scientific", GOODS | {f"Scientific.{file}.inter": content})


def test_longer_rows_of_the_other_files_agree(tmp_path: Path) -> None:
    """All lists are cut to one length, so those that end earlier begin earlier."""
    longer = {"Scientific.valid.inter": TRAIN + "0\t4 0 1 2\t3\n1\t3 1 3\t0\n"}
    assert read(tmp_path, "amazon-scientific", GOODS | longer).interactions.height == 10


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("item2index", "B4\t4\nB3\t3\nB1\t1\nB0\t0\n", "item2index has no item '2', which Scientific.test.inter names"),
        ("user2index", "ANN\t0\n", "Scientific.user2index has no user '1', which Scientific.test.inter names"),
        ("user2index", "ANN\t0\nBOB\t0\n", "Scientific.user2index gives a number twice"),
        ("item2index", "B4\t4\nB3\n", "Scientific.item2index line 2: 1 fields where 2 belong ('B3')"),
        ("text", "item_id:token\ttext:token_seq\n\tGlue\n", "Scientific.text line 2: item_id is empty"),
    ],
)
def test_what_is_wrong_with_an_index_is_named(file: str, content: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        read(tmp_path, "amazon-scientific", GOODS | {f"Scientific.{file}": content})


@pytest.mark.parametrize("name", GOODS)
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"holds no '{re.escape(name)}'"):
        read(tmp_path, "amazon-scientific", {other: content for other, content in GOODS.items() if other != name})


def test_without_a_copy_it_is_said_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"UniSRec .*arXiv:2206\.05941.*doi:10\.18653/v1/D19-1018.*`source`"):
        prepare(source_named("amazon-scientific"), tmp_path / "out", None, lambda done, total: None, print)
    assert list(tmp_path.iterdir()) == []


def test_scientific_as_released(real_data: Path, tmp_path: Path) -> None:
    """And every held-out item is the published one, though hundreds of users repeat."""
    given = present(real_data / "amazon-scientific-unisrec.zip")
    manifest, warnings = prepared("amazon-scientific", given, tmp_path / "out")
    assert (manifest.users, manifest.items, manifest.interactions) == (8_442, 4_385, 59_384)
    assert warnings == []
    root, catalogue, shard = (
        open_root(given).place / "Scientific",
        Catalogue.load(tmp_path / "out"),
        Shard.load(tmp_path / "out"),
    )
    asin = {number: item for item, number in _lines(root / "Scientific.item2index")}
    order = {number: user for user, number in _lines(root / "Scientific.user2index")}
    for split, file in {"validation": "valid", "test": "test"}.items():
        published = {order[user]: asin[item] for user, _, item in _lines(root / f"Scientific.{file}.inter")[1:]}
        held_out = [catalogue.ids[row] for row in shard.held_out(range(len(shard)), split)]
        assert held_out == [published[user] for user in sorted(published)]
    assert not any("&amp" in text or "/>" in text for text in catalogue.texts)
    assert all(text.startswith(title) for title, text in zip(catalogue.titles, catalogue.texts, strict=True))


def present(given: Path) -> Path:
    if not given.is_file():
        pytest.skip(f"{given} is absent")
    return given


def _lines(file: zipfile.Path | Path) -> list[list[str]]:
    return [line.split("\t") for line in file.read_text("utf-8").splitlines()]
