"""The index against a twin that looks at everything, through any life of additions, removals and filters."""

import json
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fedrec.data.errors import InputError
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.data.storage.locks import lock_beside, locked
from fedrec.serving.index import exact_search
from fedrec.serving.index import vector_index as indexes
from fedrec.serving.index.diversity import maximal_marginal_relevance
from fedrec.serving.index.saved_index import DESCRIPTION, FILE, load_index, save_index
from fedrec.serving.index.vector_index import Index, SearchRequest

WIDTH = 6


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    vectors = rng.standard_normal((count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def items(rng: np.random.Generator, count: int) -> np.ndarray:
    """Vectors of which many are the same: those of three, and others."""
    kinds = np.concatenate([unit(np.random.default_rng(0), 3), unit(rng, count)])
    return kinds[rng.integers(0, len(kinds), count)]


class Life(RuleBasedStateMachine):
    """An index, and its twin: a vector for each row that lives."""

    @initialize(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 30))
    def begin(self, seed: int, count: int) -> None:
        self.rng = np.random.default_rng(seed)
        matrix = items(self.rng, count)
        self.index, self.twin, self.rows = self.built(matrix), dict(enumerate(matrix)), count

    def built(self, matrix: np.ndarray) -> Index:
        return Index.build(matrix)

    @rule()
    def add(self) -> None:
        vectors = items(self.rng, int(self.rng.integers(1, 4)))
        self.index = self.index.with_vectors(vectors)
        self.twin |= dict(enumerate(vectors, start=self.rows))
        self.rows += len(vectors)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        row = data.draw(st.integers(0, self.rows - 1))
        self.index = self.index.without_rows([row])
        self.twin.pop(row, None)

    @rule()
    def sweep(self) -> None:
        self.index, rows = self.index.compacted()
        self.twin = {row: self.twin[before] for row, before in enumerate(rows.tolist()) if before in self.twin}
        self.rows = len(rows)
        assert self.index.dead_rows == 0

    @rule(data=st.data(), k=st.integers(1, 50), few=st.booleans(), refined=st.booleans())
    def search(self, data: st.DataObject, k: int, few: bool, refined: bool) -> None:
        """By whichever way an index of any size would take."""
        allowed = None
        if data.draw(st.booleans()):
            allowed = np.array(data.draw(st.lists(st.booleans(), min_size=self.rows, max_size=self.rows)))
        asked = unit(self.rng, 1)[0]
        scores = {row: float(v @ asked) for row, v in self.twin.items() if allowed is None or allowed[row]}
        best = sorted(scores, key=lambda row: (-scores[row], row))[:k]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(indexes, "MAX_GATHERED", 10_000 if few else -1)
            patch.setattr(exact_search, "MAX_CANDIDATE_SHARE", 1_000 if refined else 0)
            found = self.index.search(asked, k, allowed)
        assert [row for row, _ in found] == best
        assert [score for _, score in found] == pytest.approx([scores[row] for row in best], abs=1e-5)
        others = [SearchRequest(unit(self.rng, 1)[0], data.draw(st.integers(1, 50)), None) for _ in range(2)]
        in_company = self.index.search_all([others[0], SearchRequest(asked, k, allowed), others[1]])
        assert in_company[1] == found
        for place in (0, 2):
            assert in_company[place] == self.index.search(*others[place // 2])

    @invariant()
    def is_as_large_as_the_twin(self) -> None:
        assert len(self.index) == len(self.twin)
        rows = np.array(list(self.twin), dtype=np.int64)
        if len(rows):
            np.testing.assert_array_equal(self.index.vectors(rows), np.stack(list(self.twin.values())))


class LifeInCells(Life):
    """The same of an inverted file that looks at all of its cells, which finds the very nearest."""

    def built(self, matrix: np.ndarray) -> Index:
        base = faiss.IndexIVFFlat(faiss.IndexFlatIP(WIDTH), WIDTH, 1 + len(matrix) // 4, faiss.METRIC_INNER_PRODUCT)
        base.cp.min_points_per_centroid = 1
        base.train(matrix)
        base.add(matrix)
        base.nprobe = base.nlist
        return replace(Index.build(matrix), base=base)


for life in (Life, LifeInCells):
    life.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestLife, TestLifeInCells = Life.TestCase, LifeInCells.TestCase


def test_a_change_leaves_the_index_that_others_hold_as_it_was() -> None:
    matrix = np.eye(WIDTH, dtype=np.float32)
    before = Index.build(matrix)
    after = before.with_vectors(matrix[:1]).without_rows([0])
    assert [row for row, _ in before.search(matrix[0], 1)] == [0]
    assert [row for row, _ in after.search(matrix[0], 1)] == [WIDTH]
    assert (len(before), len(after)) == (WIDTH, WIDTH)


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """As items are, in kinds; and an index that takes more than 500 of them for many."""
    monkeypatch.setattr(indexes, "MAX_EXACT_ITEMS", 500)
    monkeypatch.setattr(indexes, "MAX_GATHERED", 10)
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((40, 16))
    matrix = kinds[rng.integers(0, 40, 3000)] + 0.3 * rng.standard_normal((3000, 16))
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def test_beyond_so_many_items_the_nearest_cells_are_enough(clusters: np.ndarray) -> None:
    index = Index.build(clusters)
    assert isinstance(index.base, faiss.IndexIVF)
    assert 0 < index.base.nprobe < index.base.nlist
    assert index.recall >= 0.98
    allowed = np.arange(len(clusters)) % 2 == 0
    hits = []
    for taste in clusters[:50]:
        scores = np.where(allowed, clusters @ taste, -np.inf)
        found = {row for row, _ in index.search(taste, 10, allowed)}
        assert all(row % 2 == 0 for row in found)
        hits.append(len(found & set(np.argsort(-scores)[:10].tolist())) / 10)
    assert np.mean(hits) > 0.9


def test_what_may_be_answered_is_found_however_far_away_it_is(clusters: np.ndarray) -> None:
    """Where a filter keeps only what is unlike the taste, the nearest cells hold none of it."""
    index = Index.build(clusters)
    for taste in clusters[:20]:
        scores = clusters @ taste
        allowed = scores < np.median(scores)
        best = np.argsort(-np.where(allowed, scores, -np.inf))[:10]
        assert [row for row, _ in index.search(taste, 10, allowed)] == best.tolist()
        few = allowed & (np.arange(len(clusters)) % 120 == 0)
        assert len(index.search(taste, 50, few)) == min(50, few.sum())
    assert index.search(clusters[0], 10, np.zeros(len(clusters), dtype=bool)) == []


def test_a_page_far_down_is_whole(clusters: np.ndarray) -> None:
    scores = clusters @ clusters[0]
    found = Index.build(clusters).search(clusters[0], 2500)
    assert [row for row, _ in found[2490:]] == np.argsort(-scores)[2490:2500].tolist()


def test_what_took_long_to_build_is_saved_and_checked(clusters: np.ndarray, tmp_path: Path) -> None:
    index = Index.build(clusters)
    assert load_index(tmp_path, clusters, "films-1") is None
    save_index(index, tmp_path, "films-1")
    again = load_index(tmp_path, clusters, "films-1")
    assert again
    assert (again.recall, again.probes) == (index.recall, index.probes)
    assert again.search(clusters[7], 20) == index.search(clusters[7], 20)
    assert load_index(tmp_path, clusters, "films-2") is None
    assert load_index(tmp_path, clusters[:-1], "films-1") is None
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-5])
    with pytest.raises(InputError, match=r"index.faiss is not the file .* remove it"):
        load_index(tmp_path, clusters, "films-1")
    (tmp_path / DESCRIPTION).write_text("{")
    with pytest.raises(InputError, match=r"index.json is not JSON .* remove it"):
        load_index(tmp_path, clusters, "films-1")


def test_an_index_that_another_endpoint_is_saving_is_waited_for(clusters: np.ndarray, tmp_path: Path) -> None:
    """Between its two files they do not belong together."""
    index = Index.build(clusters)
    save_index(index, tmp_path, "films-1")
    about = (tmp_path / DESCRIPTION).read_text()
    (tmp_path / DESCRIPTION).write_text(json.dumps(json.loads(about) | {"sha256": "of the one before"}))
    with ThreadPoolExecutor(1) as beside:
        with locked(lock_beside(tmp_path / FILE)):
            found = beside.submit(load_index, tmp_path, clusters, "films-1")
            wait([found], timeout=0.2)  # long enough for who does not wait to fail
            with replaced_file(tmp_path / DESCRIPTION) as path:
                path.write_text(about)
        assert found.result() is not None


def test_an_index_of_another_width_is_not_taken(clusters: np.ndarray, tmp_path: Path) -> None:
    save_index(Index.build(clusters), tmp_path, "v")
    assert json.loads((tmp_path / DESCRIPTION).read_text())["width"] == clusters.shape[1]
    assert load_index(tmp_path, clusters[:, :3], "v") is None


def test_diversity_trades_score_for_unlikeness() -> None:
    """Two of a kind score best, another kind a little less: by hand, at 0.5."""
    vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    found = [(10, 0.9), (11, 0.8), (12, 0.5)]
    assert maximal_marginal_relevance(found, vectors, 0.0, 3) == found
    assert maximal_marginal_relevance(found, vectors, 0.5, 3) == [found[0], found[2], found[1]]  # 0.4 - 0.5 < 0.25 - 0
    assert maximal_marginal_relevance(found, vectors, 0.1, 3) == found  # 0.72 - 0.1 > 0.45 - 0
    assert maximal_marginal_relevance(found, vectors, 1.0, 2) == [found[0], found[2]]
    assert maximal_marginal_relevance([], np.zeros((0, 2)), 0.5, 3) == []
