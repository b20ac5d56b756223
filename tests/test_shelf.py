"""What is on offer: filters by the catalogue's columns, items that come and go."""

import math
from datetime import date

import numpy as np
import polars as pl
import pytest

from fedrec.data.catalogue import Catalogue
from fedrec.serving import live_catalogue as shelves
from fedrec.serving.index.filters import ColumnError, Columns
from fedrec.serving.index.vector_index import Index
from fedrec.serving.live_catalogue import ItemRecord, LiveCatalogue

FILMS = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d"],
        "title": ["Alien", "Babe", "Cube", "Dune"],
        "text": ["Alien", "Babe", "Cube", "Dune"],
        "year": [1979, 1995, 1997, None],
        "genres": ["Horror|Space", "Children", "Horror", None],
        "colour": [True, True, False, True],
    }
)


@pytest.fixture
def shelf() -> LiveCatalogue:
    return LiveCatalogue.build(Catalogue(FILMS), Index.build(np.eye(4, dtype=np.float32)))


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({}, "abcd"),
        ({"year": 1995}, "b"),
        ({"year": [1979, 1997, 3000]}, "ac"),
        ({"year": {"min": 1979, "max": 1995}}, "ab"),
        ({"year": {"min": 1996}}, "c"),
        ({"year": {}}, "abcd"),
        ({"genres": "Horror"}, "ac"),
        ({"genres": ["Space", "Children"]}, "ab"),
        ({"genres": []}, ""),
        ({"year": []}, ""),
        ({"colour": []}, ""),
        ({"genres": "Horr"}, ""),
        ({"genres": ["Horror", "Horror", "x"] * 300}, "ac"),
        ({"year": 2**200}, ""),
        ({"year": [1995.5, 1e300]}, ""),
        ({"year": {"min": -1e300, "max": 1e300}}, "abc"),
        ({"colour": False}, "c"),
        ({"genres": "Horror", "year": {"max": 1990}}, "a"),
    ],
)
def test_filters(shelf: LiveCatalogue, filters: dict[str, object], kept: str) -> None:
    mask = shelf.filter_rows(filters)
    assert "".join(item_id for item_id, keep in zip("abcd", mask, strict=True) if keep) == kept


@pytest.mark.parametrize(
    ("filters", "column", "said"),
    [
        ({"director": "x"}, "director", "its columns are year, genres, colour"),
        ({"title": "Babe"}, "title", "no such column"),
        ({"year": "1995"}, "year", "type str matches none"),
        ({"year": True}, "year", "type bool matches none"),
        ({"genres": 3}, "genres", "is string, and a value of type int"),
        ({"genres": {"min": 1}}, "genres", "has no range"),
        ({"year": {"min": "1990-01"}}, "year", "has numbers, and '1990-01' is none"),
        ({"colour": 1}, "colour", "is boolean"),
    ],
)
def test_a_filter_that_cannot_be_is_refused(
    shelf: LiveCatalogue, filters: dict[str, object], column: str, said: str
) -> None:
    with pytest.raises(ColumnError, match=said) as unfit:
        shelf.filter_rows(filters)
    assert unfit.value.column == column


@pytest.mark.parametrize("filters", [{"genres": []}, {"year": []}, {"genres": "Western"}, {"year": {"min": 3000}}])
def test_what_nothing_fits_is_found_nowhere_also_after_items_were_put_in(shelf: LiveCatalogue, filters: dict) -> None:
    goods = [
        ItemRecord("e", "Eden", "Eden", {"genres": [], "year": None}),
        ItemRecord("f", "Fargo", "Fargo", {"genres": "Crime"}),
    ]
    more = shelf.with_items(goods, np.eye(4, dtype=np.float32)[:2])
    assert more.filter_rows(filters).tolist() == [False] * 6
    assert more.filter_rows({"genres": "Crime"}).tolist() == [False] * 5 + [True]
    assert more.filter_rows({"year": {}}).all()


@pytest.mark.parametrize(
    ("column", "wanted", "kept"),
    [
        (pl.Series([1, 2, None], dtype=pl.UInt8), {"min": -5, "max": 1}, [True, False, False]),
        (pl.Series([1, 2, None], dtype=pl.UInt8), [2, -1, 300, 2.5, 2**62], [False, True, False]),
        (pl.Series([1.5, float("nan"), None]), {"min": 0}, [True, False, False]),
        (pl.Series([1.5, float("nan"), None]), {}, [True, True, True]),
        (pl.Series([[1, 2], [], None]), [2], [True, False, False]),
        (pl.Series([[1, 2], [], None]), {"min": 2}, [True, False, False]),
        (pl.Series(["2024-05-06T10:00", "2024-06-01", None]), {"max": "2024-05"}, [True, False, False]),
        (pl.Series(["2024-05-06T10:00", "2024-05-07", None]), {"max": "2024-05-06"}, [True, False, False]),
        (pl.Series(["2024-05-06T10:00", "2024-05-07", None]), {"min": "2024-05-06T11"}, [False, True, False]),
        (pl.Series(["a", "b", None], dtype=pl.Categorical), ["b"], [False, True, False]),
        (pl.Series(["caf\u00e9", "cafe\u0301", "cafe"]), "cafe\u0301", [True, True, False]),
        (pl.Series([None, None, None]), ["x", 3, True], [False, False, False]),
        (pl.Series([None, None, None], dtype=pl.Int64), {"min": 3}, [False, False, False]),
    ],
)
def test_columns_of_every_kind_can_be_filtered_by(column: pl.Series, wanted: object, kept: list[bool]) -> None:
    assert Columns(pl.DataFrame({"column": column})).filter_rows({"column": wanted}).tolist() == kept


@pytest.mark.parametrize("wanted", [1, 1.5, "2020-01-01", [1.5]])
@pytest.mark.parametrize("values", [[date(2020, 1, 1)], [{"a": 1}], [[["a"]]]])
def test_by_what_cannot_be_compared_nothing_is_filtered(values: list, wanted: object) -> None:
    with pytest.raises(ColumnError, match=r"^column: is .* cannot be filtered"):
        Columns(pl.DataFrame({"column": values})).filter_rows({"column": wanted})


def test_of_no_rows_none_fits() -> None:
    assert Columns(FILMS.clear()).filter_rows({"year": [1979], "genres": ["Horror"]}).tolist() == []
    assert Columns(FILMS.clear()).filter_rows({"year": {"min": 1979}}).tolist() == []


def test_of_whom_it_is_not_told_is_no_more_popular_than_others() -> None:
    vectors = np.eye(4, dtype=np.float32)
    for told, wanted in [([3, 1, None, 2], [3, 1, 0, 2, 0]), ([-3.0, math.nan, None, math.inf], [-3, -3, -3, -3, -3])]:
        frame = FILMS.with_columns(popularity=pl.Series(told, strict=False))
        more = LiveCatalogue.build(Catalogue(frame), Index.build(vectors)).with_items(
            [ItemRecord("e", "Eden", "Eden")], vectors[:1]
        )
        assert more.popularity is not None
        assert more.popularity.tolist() == wanted
    for column in (["much", "less", None, "none"], [None] * 4, [True, False, True, None]):
        shelf = LiveCatalogue.build(Catalogue(FILMS.with_columns(popularity=pl.Series(column))), Index.build(vectors))
        assert shelf.popularity is None


def test_items_come_and_go(shelf: LiveCatalogue) -> None:
    vectors = np.array([[0, 0, 1, 0]], dtype=np.float32)
    more = shelf.with_items([ItemRecord("e", "Eden", "Eden", {"year": 2024, "genres": "Drama|Space"})], vectors)
    assert (more.find_row("e"), more.item_id(4), more.title(4), len(more)) == (4, "e", "Eden", 5)
    assert more.filter_rows({"genres": "Space"}).tolist() == [True, False, False, False, True]
    assert more.record(4).as_dict()["colour"] is None
    other = more.with_items([ItemRecord("e", "Eden II", "Eden II")], vectors).without_item("a")
    assert (other.find_row("e"), other.title(5), other.find_row("a"), len(other)) == (5, "Eden II", None, 4)
    assert [row for row, _ in other.index.search(vectors[0], 9)] == [2, 5, 1, 3]
    assert other.without_item("zebra") is other
    assert other.without_item("e").with_items([ItemRecord("a", "Alien", "Alien")], vectors).find_row("a") == 6
    assert (shelf.find_row("a"), shelf.find_row("e"), len(shelf)) == (0, None, 4)


def test_many_items_come_at_once_or_one_by_one(shelf: LiveCatalogue) -> None:
    """Also more of them than a frame keeps apart."""
    goods = [ItemRecord(f"n{number}", f"New {number}", "", {"year": number}) for number in range(100)] + [
        ItemRecord("a", "A", "A")
    ]
    vectors = np.random.default_rng(0).standard_normal((101, 4)).astype(np.float32)
    at_once, one_by_one = shelf.with_items(goods, vectors), shelf
    for each, vector in zip(goods, vectors, strict=True):
        one_by_one = one_by_one.with_items([each], vector[None])
    for more in (at_once, one_by_one):
        assert (len(more), more.find_row("a"), more.title(4 + 100), more.find_row("n7")) == (104, 104, "A", 11)
        assert more.record(11).as_dict() == {"item_id": "n7", "title": "New 7", "text": ""} | {
            name: {"year": 7}.get(name) for name in shelf.column_names
        }
        np.testing.assert_array_equal(more.index.vectors(np.array([11]))[0], vectors[7])
        assert more.frame.n_chunks() < 64


def test_an_item_replaced_again_and_again_leaves_no_rows_behind(
    shelf: LiveCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelves, "MAX_DEAD_ROWS", 10)
    vectors = np.random.default_rng(0).standard_normal((500, 4)).astype(np.float32)
    before = (
        shelf.with_items([ItemRecord("n", "N", "", {"year": 1}), ItemRecord("gone", "Gone", "")], vectors[:2])
        .without_item("gone")
        .without_item("a")
    )
    now = before
    for number, vector in enumerate(vectors):
        now = now.with_items([ItemRecord("bc"[number % 2], f"Edition {number}", "", {"year": number})], vector[None])
        assert len(now.frame) == len(now.index.living) == 4 + len(now.index.extra) <= 4 + 2 * 11 + 3
    assert [now.find_row(each) is None for each in ("a", "b", "c", "n", "gone")] == [True, False, False, False, True]
    assert "gone" not in now.changed_rows
    for item_id, title, vector in [("b", "Edition 498", vectors[498]), ("c", "Edition 499", vectors[499])]:
        row = now.find_row(item_id)
        assert row is not None
        assert (now.item_id(row), now.title(row)) == (item_id, title)
        np.testing.assert_array_equal(now.index.vectors(np.array([row]))[0], vector)
    assert len(now) == 4
    assert now.filter_rows({"year": 1}).tolist() == [row == now.find_row("n") for row in range(len(now.frame))]
    assert (before.title(4), before.find_row("b"), len(before)) == ("N", 1, 4)


@pytest.mark.parametrize(
    ("columns", "column", "said"),
    [
        ({"director": "x"}, "director", "no such column"),
        ({"item_id": "a"}, "item_id", "no such column"),
        ({"text": "x"}, "text", "no such column"),
        ({"year": "soon"}, "columns", r"year \(int64\)"),
    ],
)
def test_what_no_column_can_hold_is_refused(
    shelf: LiveCatalogue, columns: dict[str, object], column: str, said: str
) -> None:
    with pytest.raises(ColumnError, match=said) as unfit:
        shelf.with_items([ItemRecord("e", "Eden", "Eden", columns)], np.zeros((1, 4), dtype=np.float32))
    assert unfit.value.column == column
