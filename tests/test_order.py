"""One order of answers, also where many items are equal: alone, in a batch, at once, by pages, on the command line."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.data.catalogue import Catalogue
from fedrec.recsys.model.lora import fingerprint
from fedrec.recsys.nearest import contenders, exact_scores
from fedrec.recsys.recommender import Recommender
from fedrec.serving.engine import Engine
from fedrec.serving.index import vector_index as indexes
from fedrec.serving.index.diversity import POOL, maximal_marginal_relevance
from fedrec.serving.index.inverted_file import RECALL_AT
from fedrec.serving.index.vector_index import Index
from fedrec.serving.live_catalogue import ItemRecord
from fedrec.serving.schema import Answer, Question, Range
from tests.support.cli import Fedrec

VARIANTS = 16
"""Items of each title, as a shop has one of each size and colour."""


@pytest.fixture(scope="module")
def shop(run: Path) -> Recommender:
    """The toy world's films in many editions each, all with their film's vector, in an order that was drawn."""
    films = Recommender.load(run)
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(len(films.catalogue)), VARIANTS))
    frame = films.catalogue.frame[rows].with_columns(
        item_id=pl.format("v{}", pl.int_range(pl.len())), popularity=pl.int_range(pl.len()) % 3
    )
    catalogue, vectors = Catalogue(frame), films.vectors[rows]
    prints = films.card["fingerprints"] | {"item_vectors": fingerprint({"vectors": vectors})}
    data = films.card["data"] | {"catalogue_fingerprint": catalogue.fingerprint}
    return Recommender(catalogue, vectors, films.adapter, films.card | {"fingerprints": prints, "data": data})


@pytest.fixture(scope="module")
def engine(shop: Recommender) -> Engine:
    return Engine.from_recommender(shop)


@pytest.fixture(scope="module")
def changed(engine: Engine) -> Engine:
    """The same after editions were put in, two of them again, and others taken out."""
    editions = [ItemRecord(f"late{n}", "The soup", "The soup. Cooking", {"genres": "Cooking"}) for n in range(9)]
    return engine.with_items(editions).with_items(editions[2:4]).without_item("v5").without_item("late0")


def ranking(answer: object) -> list[tuple[str, float]]:
    assert isinstance(answer, Answer)
    return [(item.item_id, item.score) for item in answer.items]


ASKED: list[dict[str, Any]] = [
    {"history": ["v0", "v1", "v2"]},
    {"history": ["v7"] * 3 + ["v300"], "exclude_seen": False},
    {"query": "a rocket flies to the moon"},
    {"history": ["v3", "v4"], "query": "soup", "mix": 0.3},
    {"history": ["v8", "v9"], "filters": {"genres": ["Cooking"], "year": Range(min=1990)}},
    {"query": "bread", "include": [f"v{n}" for n in range(0, 300, 7)], "exclude": ["v0"]},
    {"history": ["v0", "v1"], "diversity": 0.4},
    {"history": [], "exclude": ["v1"]},
]


@pytest.mark.parametrize("late", [False, True], ids=["as it was", "changed"])
@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: ",".join(asked))
def test_the_order_is_by_score_and_then_by_row(engine: Engine, changed: Engine, asked: dict, late: bool) -> None:
    on = changed if late else engine
    found = [
        (-score, on.catalogue.find_row(item_id)) for item_id, score in ranking(on.recommend(Question(k=900, **asked)))
    ]
    assert len({row for _, row in found}) == len(found) > 40
    if "diversity" in asked:  # of equals it takes the first first
        by_score: dict[float, list[int | None]] = {}
        for score, row in found:
            by_score.setdefault(score, []).append(row)
        assert all(rows == sorted(rows) for rows in by_score.values())  # type: ignore[type-var]
    else:
        assert found == sorted(found)  # type: ignore[type-var]


@settings(max_examples=6, deadline=None)
@given(data=st.data(), page=st.integers(30, 90), late=st.booleans())
def test_pages_batches_and_threads_all_show_parts_of_one_order(
    engine: Engine, changed: Engine, data: st.DataObject, page: int, late: bool
) -> None:
    on, asked = changed if late else engine, data.draw(st.sampled_from(ASKED))
    whole = ranking(on.recommend(Question(k=450, **asked)))
    pages = [Question(k=page, offset=offset, **asked) for offset in range(0, len(whole), page)]
    others = [Question(k=data.draw(st.integers(1, 300)), **data.draw(st.sampled_from(ASKED))) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        at_once = list(pool.map(on.recommend, pages))
    assert [each for answer in at_once for each in ranking(answer)] == whole
    together = on.recommend_all([others[0], *pages, *others[1:]])[1 : 1 + len(pages)]
    assert [each for answer in together for each in ranking(answer)] == whole


def test_reasons_are_the_same_alone_and_in_a_batch(engine: Engine) -> None:
    question = Question(history=["v0", "v1", "v2", "v3"], query="soup", explain=True, k=40)
    _, together = engine.recommend_all([Question(history=["v9"] * 7, k=3, explain=True), question])
    assert isinstance(together, Answer)
    assert together.items == engine.recommend(question).items


def test_the_device_and_the_command_line_give_the_order_of_the_endpoint(
    shop: Recommender, engine: Engine, fedrec: Fedrec, tmp_path: Path
) -> None:
    history = ["v0", "v1", "v2"]
    wanted = ranking(engine.recommend(Question(history=history, k=100)))
    rows = shop.catalogue.rows(history)
    vector = shop.user_vector(rows)
    assert ranking(engine.recommend(Question(vector=vector.tolist(), exclude=history, k=100))) == wanted
    assert [(shop.catalogue.ids[row], score) for row, score in shop.recommend(vector, 100, rows)] == wanted
    shop.save(tmp_path / "run")
    printed = fedrec("recommend", tmp_path / "run", "--history", ",".join(history), "-k", 100, "--json").out
    assert ranking(Answer.model_validate_json(printed)) == wanted


def test_equal_items_are_found_in_the_order_of_rows_beside_one_and_by_a_text(engine: Engine) -> None:
    same = [row for row, title in enumerate(engine.catalogue.base.titles) if title == "The moon"]
    nearest = engine.similar(f"v{same[0]}", VARIANTS - 1)
    titled = engine.search("moon", VARIANTS)
    assert [item.item_id for item in nearest.items] == [f"v{row}" for row in same[1:]]
    assert [item.item_id for item in titled.items] == [f"v{row}" for row in same]


def test_what_is_put_in_together_again_has_the_vector_that_it_had_alone(engine: Engine) -> None:
    """As after a restart: else the order would be another."""
    goods = [
        ItemRecord("a", "Soup", "A soup"),
        ItemRecord("b", "Far", "A rocket that flies far, to the moon and on, for years"),
    ]
    together = engine.with_items(goods).catalogue
    for each in goods:
        alone = engine.with_items([each]).catalogue
        rows = [shelf.find_row(each.item_id) for shelf in (alone, together)]
        one, other = (
            shelf.index.vectors(np.array([row]))[0] for shelf, row in zip((alone, together), rows, strict=True) if row
        )
        np.testing.assert_array_equal(one, other)


# The parts.


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(1, 500), count=st.integers(1, 40))
def test_a_score_depends_on_two_vectors_alone(seed: int, width: int, count: int) -> None:
    """Whatever is computed with it, in whichever order of its numbers; and it is what plain sums come to."""
    rng = np.random.default_rng(seed)
    vectors, asked = unit(rng.standard_normal((count, width))), unit(rng.standard_normal(width))
    scores, order = exact_scores(vectors, asked), rng.permutation(width)
    assert [exact_scores(vector[None], asked)[0] for vector in vectors] == scores.tolist()
    np.testing.assert_array_equal(exact_scores(vectors[:, order], asked[order]), scores)
    np.testing.assert_array_equal(exact_scores(vectors, np.stack([asked, vectors[0], asked], axis=1))[:, 2], scores)
    np.testing.assert_allclose(scores, vectors.astype(np.float64) @ asked.astype(np.float64), atol=3e-7)


def test_contenders_are_all_that_may_be_among_the_best() -> None:
    scores = np.array([0.5, 0.9, 0.52, 0.7, 0.4])
    assert contenders(scores, 2, 0.0).tolist() == [1, 3]
    assert contenders(scores, 2, 0.1).tolist() == [0, 1, 2, 3]
    assert contenders(scores, 5, 0.0).tolist() == contenders(scores, 9, 0.0).tolist() == [0, 1, 2, 3, 4]
    assert contenders(scores, 0, 0.1).tolist() == []


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> Index:
    """An inverted file of 3,000 items, of which each vector is another's, too; looked at in part."""
    monkeypatch.setattr(indexes, "MAX_EXACT_ITEMS", 500)
    monkeypatch.setattr(indexes, "MAX_GATHERED", 10)
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((40, 16))
    drawn = unit(kinds[rng.integers(0, 40, 1000)] + 0.8 * rng.standard_normal((1000, 16)))
    index = Index.build(drawn[rng.permutation(np.repeat(np.arange(1000), 3))])
    assert isinstance(index.base, faiss.IndexIVFFlat)
    index.base.nprobe = 16
    return index


def rows_of(found: Sequence[tuple[int, float]]) -> list[int]:
    return [row for row, _ in found]


@pytest.mark.parametrize("hidden", [0, 30, 300])
def test_pages_of_an_inverted_file_are_parts_of_one_order(cells: Index, hidden: int) -> None:
    """Also where more cells hold an item that fewer missed: it comes later, once."""
    for taste in cells.matrix[:10]:
        allowed = np.ones(len(cells.matrix), dtype=bool)
        allowed[rows_of(cells.search(taste, hidden))] = False
        whole = cells.search(taste, 900, allowed)
        assert len(set(rows_of(whole))) == 900
        assert all(allowed[rows_of(whole)])
        for k in (1, 2, 10, 40, RECALL_AT, RECALL_AT + 1, 250, 400, 401):
            assert cells.search(taste, k, allowed) == whole[:k]
        first = [(-score, row) for row, score in whole[:RECALL_AT]]
        assert first == sorted(first)


@pytest.mark.parametrize("diversity", [0.0, 0.3, 1.0])
def test_a_varied_order_begins_as_a_shorter_one_does(diversity: float) -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((300, 8)))[np.arange(450) % 300]
    found = [(row, 1 - row / 1000) for row in range(450)]
    whole = maximal_marginal_relevance(found, vectors, diversity, 450)
    assert sorted(rows_of(whole)) == list(range(450))
    assert sorted(rows_of(whole[:POOL])) == list(range(POOL))
    for count in (1, 20, POOL, POOL + 1, 400):
        filled = -(-count // POOL) * POOL
        assert maximal_marginal_relevance(found[:filled], vectors[:filled], diversity, count) == whole[:count]


def test_a_sweep_leaves_the_order_as_it_was() -> None:
    vectors = unit(np.ones((1, 4)))
    index = Index.build(np.repeat(vectors, 3, axis=0)).with_vectors(np.repeat(vectors, 6, axis=0)).without_rows([4, 7])
    swept, rows = index.compacted()
    assert rows_of(index.search(vectors[0], 9)) == [0, 1, 2, 3, 5, 6, 8]
    assert rows[rows_of(swept.search(vectors[0], 9))].tolist() == [0, 1, 2, 3, 5, 6, 8]
