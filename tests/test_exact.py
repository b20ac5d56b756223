"""The very nearest, whatever the rounding hides."""

from typing import Any

import faiss
import numpy as np
import pytest

from fedrec.recsys.nearest import Found, SearchVector, best
from fedrec.serving.index.exact_search import SIMD_WIDTH, ExactSearch

WIDTH = 24


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=["far apart", "alike", "the same"])
def matrix(request: pytest.FixtureRequest) -> np.ndarray:
    """As far apart as chance has them; so alike that bfloat16 cannot tell them apart; and many times the same."""
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((2000, WIDTH))
    if request.param == "far apart":
        return unit(drawn)
    if request.param == "alike":
        return unit(drawn[0] + 1e-4 * drawn)
    return unit(drawn[rng.integers(0, 40, 2000)])


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each refinement took."""
    counts: list[int] = []
    refine = ExactSearch._refine

    def counted(self: ExactSearch, vector: np.ndarray, many: int, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        counts.append(many)
        return refine(self, vector, many, parameters)

    monkeypatch.setattr(ExactSearch, "_refine", counted)
    return counts


@pytest.mark.parametrize("k", [1, 10, 60, 500, 3000])
@pytest.mark.parametrize("share", [None, 1.0, 0.5, 0.02, 0.0])
def test_it_finds_what_looking_at_all_finds(matrix: np.ndarray, k: int, share: float | None) -> None:
    index, rng = ExactSearch.build(matrix), np.random.default_rng(1)
    mask = None if share is None else rng.random(len(matrix)) < share
    rows = np.arange(len(matrix)) if mask is None else np.flatnonzero(mask)
    for asked in unit(matrix[:5] + 0.1 * rng.standard_normal((5, WIDTH))):
        wanted = sorted(((float(matrix[row] @ asked), -int(row)) for row in rows), reverse=True)[:k]
        found = index.search(SearchVector.of(asked), k, mask)
        assert len(found) == len({row for row, _ in found}) == len(wanted)
        assert {row for row, _ in found} <= set(rows.tolist())
        assert [score for _, score in found] == pytest.approx([score for score, _ in wanted], abs=1e-6)


@pytest.mark.parametrize("width", [1, 16, 37])
def test_vectors_of_any_width_fill_simd_registers(width: int) -> None:
    rng = np.random.default_rng(0)
    matrix = unit(rng.standard_normal((100, width)) + 2)
    index, asked = ExactSearch.build(matrix), unit(rng.standard_normal(width))
    assert index.index.d % SIMD_WIDTH == 0
    scores = [score for _, score in index.search(SearchVector.of(asked), 5, None)]
    assert scores == pytest.approx(sorted(matrix @ asked, reverse=True)[:5], abs=1e-6)


def test_few_are_looked_at_where_that_is_enough_and_more_where_it_is_not(looked_at: list[int]) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((2000, WIDTH))
    ExactSearch.build(unit(drawn)).search(SearchVector.of(unit(drawn[0])), 10, None)
    assert looked_at == [20]
    looked_at.clear()
    ExactSearch.build(unit(drawn[0] + 1e-4 * drawn)).search(SearchVector.of(unit(drawn[0])), 10, None)
    assert looked_at == [20, 80]  # and then all of them
    looked_at.clear()
    ExactSearch.build(unit(drawn)).search(SearchVector.of(unit(drawn[0])), 500, None)
    assert looked_at == []


def test_threads_are_left_as_they_were() -> None:
    rng, before = np.random.default_rng(0), faiss.omp_get_max_threads()
    index = ExactSearch.build(unit(rng.standard_normal((2000, WIDTH))))
    index.search(SearchVector.of(unit(rng.standard_normal(WIDTH))), 10, None)
    assert faiss.omp_get_max_threads() == before


@pytest.mark.parametrize("k", [0, 1, 3, 40])
def test_among_equals_the_lower_row_comes_first(k: int) -> None:
    rows = np.arange(40)[::-1].copy()
    scores = (rows % 2).astype(np.float32)
    wanted: Found = [(row, 1.0) for row in range(1, 40, 2)] + [(row, 0.0) for row in range(0, 40, 2)]
    assert best(rows, scores, k) == wanted[:k]
