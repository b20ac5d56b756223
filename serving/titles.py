"""Title search that ignores case, the encoding of accents, and ligatures."""

import unicodedata
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from fedrec.data.catalogue import Catalogue


def fold_case(text: str) -> str:
    """Remove differences that a reader does not see: capitals, how an accent is stored, ß for ss, ﬁ for fi.

    Compatibility caseless matching, definition 146 of chapter 3.13 of the Unicode standard; composed again, so that an
    accent is a part of its letter.
    """
    if text.isascii():
        return text.lower()
    folded_once = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", text).casefold())
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", folded_once.casefold()))


@dataclass(frozen=True, eq=False)
class Titles:
    """A catalogue's titles, folded at the first search, once for all live catalogues over it."""

    catalogue: Catalogue

    @cached_property
    def _folded(self) -> pl.Series:
        return _fold_titles(self.catalogue.titles)

    def find(self, text: str, later: pl.Series) -> pl.DataFrame:
        """Find the titles that contain the text, in the catalogue and then among those of items added `later`.

        Columns: `row`, `at` (bytes before the text), `length` (bytes); titles that begin with the text come first,
        then shorter ones.
        """
        titles = pl.concat([self._folded, _fold_titles(later.to_list())]).alias("title")
        at = pl.col("title").str.find(fold_case(text), literal=True)
        matches = titles.to_frame().with_row_index("row").select("row", at=at, length=pl.col("title").str.len_bytes())
        return matches.drop_nulls("at").sort("at", "length", "row")


def _fold_titles(titles: list[str]) -> pl.Series:
    return pl.Series([fold_case(title) for title in titles], dtype=pl.String)
