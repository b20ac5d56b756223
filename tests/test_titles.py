"""Titles are found however they, and those who look for them, are written."""

import unicodedata

import numpy as np
import polars as pl
import pytest

from fedrec.data.catalogue import Catalogue
from fedrec.serving.index.vector_index import Index
from fedrec.serving.live_catalogue import ItemRecord, LiveCatalogue
from fedrec.serving.titles import fold_case

TITLES = [
    "Der große Spaß",
    "Grosse Pointe",
    "Cafe\u0301 noir",
    "Le Café",
    "ΟΔΥΣΣΕΙΑ",
    "Ｆｉｌｍ",
    "ﬁnal cut",
    "İstanbul",
]


@pytest.fixture
def shelf() -> LiveCatalogue:
    frame = pl.DataFrame({"item_id": [f"t{row}" for row in range(len(TITLES))], "title": TITLES, "text": TITLES})
    return LiveCatalogue.build(Catalogue(frame), Index.build(np.eye(len(TITLES), dtype=np.float32)))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("große", [1, 0]),
        ("GROSSE", [1, 0]),
        ("spass", [0]),
        ("café", [2, 3]),
        ("cafe\u0301", [2, 3]),
        ("cafe", []),
        ("οδυσσεια", [4]),
        ("οδυσσειας"[:-1], [4]),
        ("film", [5]),
        ("FINAL", [6]),
        ("i\u0307stanbul", [7]),
        (".*", []),
    ],
)
def test_both_sides_are_folded_alike(shelf: LiveCatalogue, text: str, rows: list[int]) -> None:
    assert shelf.find_titles(text) == rows
    assert shelf.find_titles(unicodedata.normalize("NFD", text)) == rows


def test_items_put_in_are_found_by_their_titles_until_they_are_taken_out(shelf: LiveCatalogue) -> None:
    vectors = np.eye(len(TITLES), dtype=np.float32)[:2]
    more = shelf.with_items([ItemRecord("new", "Groß", "x"), ItemRecord("t0", "Der grosse Ernst", "x")], vectors)
    assert more.find_titles("gross") == [8, 1, 9]
    assert more.find_titles("spaß") == []
    assert more.without_item("new").find_titles("gross") == [1, 9]
    assert shelf.find_titles("gross") == [1, 0]


def test_titles_of_the_catalogue_are_folded_once(shelf: LiveCatalogue) -> None:
    shelf.find_titles("x")
    later = shelf.without_item("t1").with_items(
        [ItemRecord("new", "x", "x")], np.eye(len(TITLES), dtype=np.float32)[:1]
    )
    assert later._titles._folded is shelf._titles._folded


@pytest.mark.parametrize("text", [*TITLES, "ŉ", "ǰ", "ΐ", "ᾳ", "\u0345α", "Å"])
def test_folding_again_changes_nothing_and_forms_do_not_matter(text: str) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert fold_case(unicodedata.normalize(form, text)) == fold_case(text) == fold_case(fold_case(text))
