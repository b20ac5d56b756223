"""One rule says what an id may be, and it says the same of one text and of a column."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.data.ids import LONGEST_ID, id_fault, id_faults

GOOD = ["50", " 1", "1 ", "p1/similar", "https://news.example/a?b=c#d", "…", "ß" * LONGEST_ID, "a,b", "%0A", "..."]
BAD = ["", "ann\n", "b\nob", "\r", "a\x00", "\x7f", "\x85", "a\u2028b", "\u2029", "x" * (LONGEST_ID + 1), ".", ".."]


@pytest.mark.parametrize("text", GOOD)
def test_a_text_that_a_url_can_carry_is_an_id(text: str) -> None:
    assert id_fault(text) is None


@pytest.mark.parametrize("text", BAD)
def test_a_text_that_some_door_would_change_is_no_id(text: str) -> None:
    assert id_fault(text)


def test_no_id_is_an_empty_one() -> None:
    assert id_faults(pl.Series(["a", None, ""])).to_list() == [None, "is empty", "is empty"]


@given(st.lists(st.text() | st.sampled_from(GOOD + BAD)))
def test_a_column_is_judged_as_each_of_its_texts(texts: list[str]) -> None:
    assert id_faults(pl.Series(texts, dtype=pl.String)).to_list() == [id_fault(text) for text in texts]
