"""What can be asked beside the top k: a mix, a page, candidates, properties, variety, reasons, several at once."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fedrec.data.catalogue import Catalogue
from fedrec.recsys.recommender import Recommender
from fedrec.serving.engine import Engine
from fedrec.serving.live_catalogue import ItemRecord
from fedrec.serving.refusals import UnanswerableError
from fedrec.serving.schema import Answer, Question, Range
from tests.support.toy_world import COOKING, SPACE

COOK, FLY = ([f"film-{word}" for word in words] for words in (COOKING, SPACE))
WATCHED = COOK[:6]


@pytest.fixture(scope="module")
def engine(run: Path) -> Engine:
    return Engine.from_recommender(Recommender.load(run))


@pytest.fixture(scope="module")
def popular(engine: Engine) -> Engine:
    """Over a catalogue that tells how popular an item is: the later, the more."""
    old = engine.recommender
    frame = old.catalogue.frame.with_columns(popularity=pl.int_range(pl.len()))
    return Engine.from_recommender(Recommender(Catalogue(frame), old.vectors, old.adapter, old.card))


def ids(answer: Answer) -> list[str]:
    return [item.item_id for item in answer.items]


def test_a_mix_lies_between_the_history_and_the_text(engine: Engine) -> None:
    asked = {"history": WATCHED, "query": "a rocket flies to the moon", "k": 24, "exclude_seen": False}
    history, text = (
        engine.recommend(Question(k=24, exclude_seen=False, **{name: asked[name]})) for name in ("history", "query")
    )
    assert ids(engine.recommend(Question(**asked, mix=0))) == ids(history)
    assert ids(engine.recommend(Question(**asked, mix=1))) == ids(text)
    half = engine.recommend(Question(**asked, mix=0.5))
    index, rows = engine.catalogue.index, np.array([engine.catalogue.find_row(item_id) for item_id in WATCHED])
    taste, read = engine.encoder.encode_histories([rows], index)[0], engine.encoder.encode_texts([asked["query"]])[0]
    expected = (taste + read) / np.linalg.norm(taste + read) @ index.matrix.T
    assert ids(half) == [engine.catalogue.item_id(row) for row in np.argsort(-expected, kind="stable")]


def test_a_history_that_is_not_on_offer_leaves_the_text(engine: Engine) -> None:
    mixed = engine.recommend(Question(history=["gone"], query="soup"))
    assert mixed.unknown_ids == ["gone"]
    assert ids(mixed) == ids(engine.recommend(Question(query="soup")))


@pytest.mark.parametrize("diversity", [0.0, 0.6])
def test_pages_are_parts_of_one_order(engine: Engine, diversity: float) -> None:
    whole = ids(engine.recommend(Question(history=WATCHED, k=18, diversity=diversity)))
    pages = [
        ids(engine.recommend(Question(history=WATCHED, k=5, offset=offset, diversity=diversity)))
        for offset in (0, 5, 10, 15, 20)
    ]
    assert [item_id for page in pages for item_id in page] == whole
    assert [len(page) for page in pages] == [5, 5, 5, 3, 0]


def test_only_candidates_are_ranked(engine: Engine) -> None:
    answer = engine.recommend(Question(history=WATCHED, include=["film-moon", "film-baker", "gone", WATCHED[0]]))
    assert ids(answer) == ["film-baker", "film-moon"]
    assert answer.unknown_ids == ["gone"]


def test_filters_hold_inside_the_search(engine: Engine) -> None:
    """Cooks are shown space films, where they ask for those alone."""
    answer = engine.recommend(Question(history=WATCHED, k=5, filters={"genres": "Space", "year": Range(max=2004)}))
    assert sorted(ids(answer)) == sorted(FLY[:3])
    with pytest.raises(UnanswerableError, match=r"^filters.director: .* year, genres"):
        engine.recommend(Question(history=WATCHED, filters={"director": "x"}))


def test_variety_brings_the_other_kind_forward(engine: Engine) -> None:
    plain = ids(engine.recommend(Question(history=WATCHED, k=6)))
    varied = ids(engine.recommend(Question(history=WATCHED, k=6, diversity=0.9)))
    assert set(plain) < set(COOK)
    assert varied[0] == plain[0]
    assert set(varied) & set(FLY)


def test_a_reason_is_what_the_score_would_lose(engine: Engine) -> None:
    answer = engine.recommend(Question(history=WATCHED, k=2, explain=True))
    for item in answer.items:
        assert item.because
        weights = [reason.weight for reason in item.because]
        assert weights == sorted(weights, reverse=True)
        best = item.because[0]
        without = [item_id for item_id in WATCHED if item_id != best.item_id]
        less = engine.recommend(Question(history=without, include=[item.item_id]))
        assert item.score - less.items[0].score == pytest.approx(best.weight, abs=1e-5)
    assert engine.recommend(Question(history=WATCHED)).items[0].because is None


def test_of_a_history_of_one_all_of_the_score_is_its_doing(engine: Engine) -> None:
    (item,) = engine.recommend(Question(history=["film-soup"], k=1, explain=True)).items
    assert item.because
    assert [(reason.item_id, reason.weight) for reason in item.because] == [
        ("film-soup", pytest.approx(item.score, abs=1e-6))
    ]


def test_several_are_answered_as_each_alone(engine: Engine) -> None:
    questions = [
        Question(history=WATCHED), Question(query="soup"), Question(history=["gone"]), Question(history=FLY[:2], k=3),
        Question(history=FLY[:3], query="a baker", k=4),
    ]  # fmt: skip
    together = engine.recommend_all(questions)
    assert isinstance(together[2], UnanswerableError)
    for place in (0, 1, 3, 4):
        assert isinstance(answer := together[place], Answer)
        assert answer.items == engine.recommend(questions[place]).items


@pytest.mark.parametrize("history", [[], ["gone"]])
def test_who_has_no_history_gets_what_is_popular_if_that_is_known(
    engine: Engine, popular: Engine, history: list[str]
) -> None:
    answer = popular.recommend(Question(history=history, k=3, exclude=[FLY[-1]], offset=1))
    assert answer.fallback == "popularity"
    assert ids(answer) == FLY[-3:-6:-1]
    assert [item.score for item in answer.items] == [21, 20, 19]
    with pytest.raises(UnanswerableError, match=r"^history: .* no popularity column; give a query"):
        engine.recommend(Question(history=history))


def test_search_finds_titles_first_and_then_what_is_alike(engine: Engine) -> None:
    assert ids(engine.search("OVE", 2))[0] == "film-oven"
    assert ids(engine.search("the mo", 3))[0] == "film-moon"
    assert set(ids(engine.search("something to eat for dinner", 5))) < set(COOK)


def test_an_item_put_in_is_found_by_its_text_and_read_in_a_history(engine: Engine) -> None:
    """No training: the text tower places it, and a user who had it is understood."""
    goods = ItemRecord(
        "new", "The lander", "The lander. A spaceship lands on the moon.", {"genres": "Space", "year": 2026}
    )
    more = engine.with_items([goods])
    assert ids(more.recommend(Question(query="The lander. A spaceship lands on the moon.", k=1))) == ["new"]
    assert "new" in ids(more.recommend(Question(history=FLY[:4], k=10)))
    assert set(ids(more.recommend(Question(history=["new"], k=5)))) < set(FLY)
    assert ids(more.recommend(Question(query="x", filters={"year": 2026}))) == ["new"]
    assert more.similar("new", 3).items
    gone = more.without_item("new").without_item("film-soup")
    assert not {"new", "film-soup"} & set(ids(gone.recommend(Question(query="x", k=1000))))
    assert len(ids(gone.recommend(Question(query="x", k=1000)))) == 23
    assert len(ids(engine.recommend(Question(query="x", k=1000)))) == 24
