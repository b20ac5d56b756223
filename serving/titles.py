"""Titles as people look for them: however they, and those who ask, write capitals, accents and ligatures."""

import unicodedata
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from fedrec.data.catalogue import Catalogue


def folded(text: str) -> str:
    """The text without what makes it no other text to a reader: capitals, how an accent is stored, ß for ss, ﬁ for fi.

    Compatibility caseless matching, definition 146 of chapter 3.13 of the Unicode standard; composed again, so that an
    accent is a part of its letter.
    """
    if text.isascii():
        return text.lower()
    folded_once = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", text).casefold())
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", folded_once.casefold()))


@dataclass(frozen=True, eq=False)
class Titles:
    """A catalogue's titles: folded when first looked for, and then once for all shelves that offer them."""

    catalogue: Catalogue

    @cached_property
    def _folded(self) -> pl.Series:
        return _series(self.catalogue.titles)

    def holding(self, text: str, later: pl.Series) -> pl.DataFrame:
        """The titles that hold the text, of the catalogue and then of items put in `later`: `row`, `at` (bytes before
        the text) and `length` (bytes), those that begin with it first, shorter ones first."""
        titles = pl.concat([self._folded, _series(later.to_list())]).alias("title")
        at = pl.col("title").str.find(folded(text), literal=True)
        found = titles.to_frame().with_row_index("row").select("row", at=at, length=pl.col("title").str.len_bytes())
        return found.drop_nulls("at").sort("at", "length", "row")


def _series(titles: list[str]) -> pl.Series:
    return pl.Series([folded(title) for title in titles], dtype=pl.String)
