"""A run with a closed form beside the towers: its files, and every kind of question."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fedrec.data.catalogue import FILE as CATALOGUE
from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.data.user_ids import find_user
from fedrec.recsys.card import CARD
from fedrec.recsys.closed_form.artifact import FILE
from fedrec.recsys.model.lora import fingerprint
from fedrec.recsys.recommender import FILES, Recommender
from fedrec.serving.database import Database
from fedrec.serving.engine import Engine
from fedrec.serving.http.app import create_app
from fedrec.serving.index import inverted_file, saved_index
from fedrec.serving.index import vector_index as indexes
from fedrec.serving.index.diversity import maximal_marginal_relevance
from fedrec.serving.live_catalogue import ItemRecord
from fedrec.serving.model_manager import ModelManager
from fedrec.serving.model_source import ModelSource
from fedrec.serving.refusals import UnanswerableError
from fedrec.serving.schema import Answer, Question
from fedrec.serving.settings import Settings
from fedrec.serving.store import Store
from tests.support.cli import Fedrec
from tests.support.closed_form import Kind, hybrid_of
from tests.support.endpoint import FILMS, WATCHED, is_problem, ready

ADMIN = "a-key-of-the-administrator"
NEW = ItemRecord(
    "late-stew", "The stew", "A stew of beans, cooked in the kitchen.", {"genres": "Cooking", "year": 2020}
)


@pytest.fixture(scope="module")
def towers(run: Path) -> Engine:
    return Engine.from_recommender(Recommender.load(run))


@pytest.fixture(scope="module", params=["text", "ids", "stacked text"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope="module")
def hybrid(run: Path, toy: Path, kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hybrid_of(run, toy, tmp_path_factory.mktemp("hybrids") / kind, kind)


@pytest.fixture(scope="module")
def engine(hybrid: Path) -> Engine:
    return Engine.from_recommender(Recommender.load(hybrid))


def ranking(answer: Answer) -> list[tuple[str, float]]:
    return [(item.item_id, item.score) for item in answer.items]


def ids(answer: Answer) -> list[str]:
    return [item.item_id for item in answer.items]


# The files.


def test_a_run_without_closed_form_has_no_trace_of_one(run: Path) -> None:
    assert not (run / FILE).exists()
    card = json.loads((run / CARD).read_text("utf-8"))
    assert "closed_form" not in card.keys() | card["fingerprints"].keys()


def test_a_saved_hybrid_is_read_again_whole(hybrid: Path, tmp_path: Path) -> None:
    first = Recommender.load(hybrid)
    first.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CARD, CATALOGUE, *FILES}
    assert (tmp_path / FILE).read_bytes() == (hybrid / FILE).read_bytes()
    assert Recommender.load(tmp_path).card == first.card
    history = [0, 3, 5]
    assert torch.equal(Recommender.load(tmp_path).user_vector(history), first.user_vector(history))


def test_the_version_is_of_both_halves(run: Path, toy: Path, hybrid: Path, kind: Kind, tmp_path: Path) -> None:
    other = hybrid_of(run, toy, tmp_path / "other", kind, share=0.4)
    assert len({Recommender.load(folder).version for folder in (run, hybrid, other)}) == 3


def test_a_run_of_one_decay_is_read_as_it_was_described_before(run: Path, toy: Path, tmp_path: Path) -> None:
    hybrid, history = hybrid_of(run, toy, tmp_path / "hybrid"), [0, 3, 5]
    before = Recommender.load(hybrid)
    card = json.loads((hybrid / CARD).read_text("utf-8"))
    assert card["closed_form"].pop("decays") == [0.7]
    (hybrid / CARD).write_text(json.dumps(card | {"closed_form": card["closed_form"] | {"decay": 0.7}}), "utf-8")
    after = Recommender.load(hybrid)
    assert after.card == before.card
    assert torch.equal(after.user_vector(history), before.user_vector(history))


@pytest.fixture
def copied(run: Path, toy: Path, tmp_path: Path) -> Path:
    return hybrid_of(run, toy, tmp_path / "copied")


def change_card(folder: Path, **closed_form: Any) -> None:
    card = json.loads((folder / CARD).read_text("utf-8"))
    card["closed_form"] |= closed_form
    (folder / CARD).write_text(json.dumps(card), "utf-8")


@pytest.mark.parametrize(
    ("closed_form", "says"),
    [
        ({"share": 2}, "closed_form.share = 2: input should be less than or equal to 1"),
        ({"decays": "slow"}, "closed_form.decays = 'slow'"),
        ({"decays": []}, r"closed_form.decays = \[\]"),
        ({"decays": [0.7, 0.4]}, r"events of the closed form has the shape .* and not \(24, \d+\)"),
        ({"features": "pictures"}, "closed_form.features = 'pictures'"),
        ({"rank": 3}, r"candidates of the closed form has the shape \(24, \d+\), and not \(24, 3\)"),
        ({"feature_width": 7}, r"features.frequencies of the closed form .* and not \(384, 7\)"),
        ({"features": "ids"}, "features.frequencies of the closed form has the shape .* and not None"),
    ],
)
def test_a_card_that_describes_another_closed_form_is_refused(
    closed_form: dict[str, Any], says: str, copied: Path
) -> None:
    change_card(copied, **closed_form)
    with pytest.raises(InputError, match=says) as caught:
        Recommender.load(copied)
    assert str(caught.value).endswith("copy the run again")


def forge(folder: Path, **tensors: torch.Tensor) -> None:
    """Put other tensors into the file, and their fingerprint into the card."""
    forged = load_file(folder / FILE) | tensors
    save_file(forged, folder / FILE)
    card = json.loads((folder / CARD).read_text("utf-8"))
    card["fingerprints"]["closed_form"] = fingerprint(forged)
    (folder / CARD).write_text(json.dumps(card), "utf-8")


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"events": torch.full((24, 22), torch.nan)}, "events holds 528 numbers that are not finite"),
        ({"events": torch.zeros(24, 22).double()}, "events is of torch.float64, not torch.float32"),
        ({"events": torch.zeros(23, 22)}, r"events of the closed form has the shape \(23, 22\)"),
        ({"more": torch.zeros(1)}, r"more of the closed form has the shape \(1,\), and not None"),
    ],
)
def test_tensors_that_are_no_closed_form_are_refused(tensors: dict[str, torch.Tensor], says: str, copied: Path) -> None:
    forge(copied, **tensors)
    with pytest.raises(InputError, match=says):
        Recommender.load(copied)


def test_a_file_that_is_missing_damaged_or_of_another_run_is_refused(copied: Path) -> None:
    intact = load_file(copied / FILE)
    save_file(intact | {"events": intact["events"] * 2}, copied / FILE)
    with pytest.raises(InputError, match=r"the closed_form is not the one that card\.json names"):
        Recommender.load(copied)
    (copied / FILE).write_bytes(b"no tensors")
    with pytest.raises(InputError, match="cannot be read"):
        Recommender.load(copied)
    (copied / FILE).unlink()
    with pytest.raises(InputError, match=r"closed_form\.safetensors is missing"):
        Recommender.load(copied)


def test_a_file_over_texts_of_an_earlier_version_is_refused_and_one_over_ids_is_read(
    copied: Path, run: Path, toy: Path, tmp_path: Path
) -> None:
    """Before, a new item had its own features over texts, and nothing over ids."""
    change_card(copied, new_items=False)
    with pytest.raises(InputError, match="has a closed form over texts of an earlier version; train again"):
        Recommender.load(copied)
    folder = hybrid_of(run, toy, tmp_path / "ids", "ids")
    kept = {name: t for name, t in load_file(folder / FILE).items() if not name.startswith(("map.", "whitening."))}
    save_file(kept, folder / FILE)
    change_card(folder, new_items=False)
    card = json.loads((folder / CARD).read_text("utf-8"))
    card["fingerprints"]["closed_form"] = fingerprint(kept)
    (folder / CARD).write_text(json.dumps(card), "utf-8")
    closed_form = Recommender.load(folder).closed_form
    assert closed_form is not None
    events, candidates = closed_form.item_vectors(torch.ones(1, 384))
    assert not events.any()
    assert not candidates.any()


def test_a_run_of_a_method_with_a_closed_form_needs_one(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    card = json.loads((run / CARD).read_text("utf-8"))
    card["config"]["method"] = "hybrid"
    (tmp_path / "run" / CARD).write_text(json.dumps(card), "utf-8")
    with pytest.raises(InputError, match="has no closed_form; copy the run again"):
        Recommender.load(tmp_path / "run")


# The questions.


def test_a_history_is_answered_as_the_recommender_scores_it(engine: Engine) -> None:
    recommender = engine.recommender
    rows = recommender.catalogue.rows(WATCHED)
    answer = engine.recommend(Question(history=WATCHED, k=24))
    assert set(ids(answer)[:6]) == set(FILMS["cook"][6:])
    scores = recommender.scorer()([rows])[0]
    assert ranking(answer) == [
        (recommender.catalogue.ids[row], pytest.approx(float(scores[row]), abs=1e-6))
        for row, _ in recommender.recommend(recommender.user_vector(rows), 24, rows)
    ]


def test_a_history_is_scored_otherwise_than_by_the_towers_alone(engine: Engine, towers: Engine) -> None:
    question = Question(history=FILMS["cook"][3:5], k=24)
    assert ids(engine.recommend(question)) != ids(towers.recommend(question))


def test_a_vector_answers_as_its_history_does(engine: Engine) -> None:
    vector = engine.recommender.user_vector(engine.recommender.catalogue.rows(WATCHED))
    sent = engine.recommend(Question(vector=vector.tolist(), exclude=WATCHED))
    assert ranking(sent) == ranking(engine.recommend(Question(history=WATCHED)))


def test_a_vector_of_another_width_is_told_the_right_one(engine: Engine) -> None:
    width = engine.catalogue.index.width
    assert width == 384 + 22
    with pytest.raises(UnanswerableError, match=f"^vector: has 384 numbers, but this model needs {width}$"):
        engine.recommend(Question(vector=[0.1] * 384))


def test_texts_and_neighbours_are_the_towers_alone(engine: Engine, towers: Engine) -> None:
    for question in (Question(query="a rocket flies to the moon", k=24), Question(query="soup", k=3, diversity=0.5)):
        assert ranking(engine.recommend(question)) == ranking(towers.recommend(question))
    assert ranking(engine.similar("film-soup", 24)) == ranking(towers.similar("film-soup", 24))
    assert ranking(engine.search("moon", 9)) == ranking(towers.search("moon", 9))


def test_a_text_is_mixed_with_a_history(engine: Engine) -> None:
    recommender = engine.recommender
    taste = recommender.user_vector(recommender.catalogue.rows(WATCHED)).double()
    text = recommender.query_vectors(["moon"])[0].double()
    mixed = 0.3 * taste + 0.7 * text
    scores = recommender.items.searched.double() @ (mixed / mixed.norm())
    for item in engine.recommend(Question(history=WATCHED, query="moon", mix=0.7)).items:
        assert item.score == pytest.approx(float(scores[recommender.catalogue.row(item.item_id)]), abs=1e-6)


def test_reasons_are_of_both_halves(engine: Engine) -> None:
    """An item's weight is by how much the score falls without it."""
    for query in (None, "moon"):
        question = Question(history=WATCHED[:3], query=query, explain=True, k=24)
        without = question.model_copy(update={"history": WATCHED[1:3], "exclude": WATCHED[:1]})
        left = dict(ranking(engine.recommend(without)))
        for item in engine.recommend(question).items:
            assert item.because
            (weight,) = [reason.weight for reason in item.because if reason.item_id == WATCHED[0]]
            assert weight == pytest.approx(item.score - left[item.item_id], abs=1e-6)


def test_reasons_reach_as_far_as_either_half_reads(engine: Engine) -> None:
    """The towers read 8 events here, the closed form those that weigh at least 2⁻¹¹."""
    recommender = engine.recommender
    assert recommender.closed_form
    assert recommender.length == recommender.closed_form.model.stack.reach == 1 + int(np.log(2**-11) / np.log(0.7))


def test_diversity_compares_items_by_the_towers(engine: Engine) -> None:
    plain, question = engine.recommend(Question(history=WATCHED, k=18)), Question(history=WATCHED, k=18, diversity=0.6)
    rows = engine.recommender.catalogue.rows(ids(plain))
    found = list(zip(rows.tolist(), [item.score for item in plain.items], strict=True))
    expected = maximal_marginal_relevance(found, engine.recommender.vectors.numpy()[rows], 0.6, 18)
    assert engine.recommender.catalogue.rows(ids(engine.recommend(question))).tolist() == [row for row, _ in expected]


def test_filters_pages_and_batches_are_parts_of_one_order(engine: Engine) -> None:
    whole = ranking(engine.recommend(Question(history=WATCHED, k=18)))
    assert ranking(engine.recommend(Question(history=WATCHED, k=5, offset=4))) == whole[4:9]
    space = engine.recommend(Question(history=WATCHED, k=5, filters={"genres": "Space"}))
    assert ranking(space) == [each for each in whole if each[0] in FILMS["fly"]][:5]
    questions = [Question(history=WATCHED[:length], k=9) for length in range(1, 7)] + [Question(query="moon")]
    answers = engine.recommend_all(questions)
    assert [ranking(answer) for answer in answers if isinstance(answer, Answer)] == [
        ranking(engine.recommend(question)) for question in questions
    ]


def test_without_a_history_the_most_popular_come_first(engine: Engine) -> None:
    recommender = engine.recommender
    frame = recommender.catalogue.frame.with_columns(popularity=recommender.catalogue.frame["year"])
    parts = (recommender.vectors, recommender.adapter, recommender.card, recommender.closed_form)
    popular = Engine.from_recommender(Recommender(Catalogue(frame), *parts))
    answer = popular.recommend(Question(history=["gone"], k=2))
    assert (ids(answer), answer.fallback) == (["film-alien", "film-meteor"], "popularity")


# Items that come and go.


def test_a_new_item_is_served_at_once(engine: Engine, kind: Kind) -> None:
    more = engine.with_items([NEW])
    vectors = more.catalogue.index.vectors(np.array([24]))[0]
    assert vectors[384:].any()
    assert "late-stew" in ids(more.recommend(Question(query="stew of beans", k=1)))
    assert "late-stew" in ids(more.recommend(Question(history=WATCHED, k=19)))
    read = more.recommend(Question(history=["late-stew"], k=24, explain=True))
    assert read.unknown_ids == []
    assert {reason.item_id for item in read.items for reason in item.because or []} == {"late-stew"}
    assert "late-stew" not in ids(more.without_item("late-stew").recommend(Question(history=WATCHED, k=30)))
    assert ids(more.similar("late-stew", 3)) == ids(towers_with(engine, NEW).similar("late-stew", 3))


def towers_with(engine: Engine, item: ItemRecord) -> Engine:
    """The engine's towers alone, with an item added."""
    one = engine.recommender
    return Engine.from_recommender(Recommender(one.catalogue, one.vectors, one.adapter, one.card)).with_items([item])


def test_a_twin_of_an_item_reads_as_the_item_does(engine: Engine, kind: Kind) -> None:
    """Over ids its events count for the towers alone."""
    soup = engine.catalogue.record(engine.recommender.catalogue.rows(["film-soup"])[0])
    twin = engine.with_items([ItemRecord("twin", soup.title, soup.text)])
    vectors, places = twin.catalogue.index.read.part_with(np.array([24]))
    assert vectors[places[0], 384:].any() == (kind != "ids")
    if kind == "ids":
        return
    by_twin = twin.recommend(Question(history=["film-bread", "twin"], k=20, exclude=["film-soup"]))
    by_item = twin.recommend(Question(history=["film-bread", "film-soup"], k=20, exclude=["twin"]))
    assert dict(ranking(by_twin)) == pytest.approx(dict(ranking(by_item)), abs=1e-4)


def test_new_films_compete_in_the_lists_of_those_who_like_their_kind(engine: Engine) -> None:
    """The closed form's half of a new item is no constant: it tells users apart."""
    films = [ItemRecord("new-dish", "The dish", "A film about cooking soup."), ItemRecord("new-ship", "Ship", "Space.")]
    more = engine.with_items(films)
    scores = more.catalogue.index.vectors(np.array([24, 25]))[:, 384:]
    known = more.catalogue.index.vectors(np.arange(24))[:, 384:]
    assert 0.1 < np.linalg.norm(scores, axis=1).mean() / np.linalg.norm(known, axis=1).mean() < 1.5
    assert not np.allclose(scores[0], scores[1], atol=1e-3)


def test_an_item_of_the_model_that_is_sent_again_keeps_what_was_learned(engine: Engine) -> None:
    """A new text moves its towers' vector alone: what users did with it stays."""
    row = int(engine.recommender.catalogue.rows(["film-soup"])[0])
    other = engine.with_items([ItemRecord("film-soup", "The soup", "Another text about a comet.")])
    new = other.catalogue.find_row("film-soup")
    assert new is not None
    before, after = (one.catalogue.index.vectors(np.array([at]))[0] for one, at in ((engine, row), (other, new)))
    assert np.array_equal(before[384:], after[384:])
    assert not np.allclose(before[:384], after[:384], atol=1e-3)
    parts = [one.catalogue.index.read.part_with(np.array([at])) for one, at in ((engine, row), (other, new))]
    reads = [vectors[places[0], 384:] for vectors, places in parts]
    assert np.array_equal(reads[0], reads[1])


def test_a_user_of_new_items_only_is_answered(run: Path, toy: Path, tmp_path: Path) -> None:
    """With ids and a share of 1 the closed form knows nothing of them: the towers answer."""
    folder = hybrid_of(run, toy, tmp_path / "hybrid", "ids", share=1.0)
    engine = Engine.from_recommender(Recommender.load(folder)).with_items([NEW])
    answer = engine.recommend(Question(history=["late-stew"], k=5))
    expected = towers_with(engine, NEW).recommend(Question(history=["late-stew"], k=5))
    assert dict(ranking(answer)) == pytest.approx(dict(ranking(expected)), abs=1e-6)


def test_items_that_are_sent_again_and_again_do_not_mix_their_vectors(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedrec.serving.live_catalogue.MAX_DEAD_ROWS", 1)
    others = [ItemRecord(f"late-{word}", f"The {word}", f"About a {word}.") for word in ("fork", "knife", "comet")]
    changed = engine.with_items(others)
    for _ in range(5):
        changed = changed.with_items(others[:2])
    fresh = engine.with_items([others[2]]).with_items(others[:2])
    question = Question(history=["late-comet", "late-fork", "film-soup"], k=26)
    assert dict(ranking(changed.recommend(question))) == dict(ranking(fresh.recommend(question)))


def test_models_of_other_widths_follow_each_other(run: Path, hybrid: Path) -> None:
    turns = iter([run, hybrid, run, hybrid])
    manager = ModelManager([ModelSource(lambda: Recommender.load(next(turns)))], Store(Database.open(None)))
    manager.reload()
    manager.put_item(NEW)
    manager.drop_item("film-moon")
    for _ in range(3):
        (engine,) = manager.reload()
        width = engine.recommender.items.searched.shape[1]
        assert engine.catalogue.index.width == width
        vector = engine.recommender.user_vector([0, 1]).tolist()
        found = ids(engine.recommend(Question(vector=vector, k=30)))
        assert len(found) == 24
        assert "late-stew" in found
        assert "film-moon" not in found
        with pytest.raises(UnanswerableError, match=f"needs {width}"):
            engine.recommend(Question(vector=[*vector, 1.0]))


# An inverted file.


def test_beyond_so_many_items_the_index_is_tuned_on_users_and_saved(
    hybrid: Path, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "MAX_EXACT_ITEMS", 10)
    monkeypatch.setattr("fedrec.serving.model_source.MAX_EXACT_ITEMS", 10)
    monkeypatch.setattr(inverted_file, "SAMPLED_QUESTIONS", 10)
    folder = shutil.copytree(hybrid, tmp_path / "hybrid")
    for _ in range(2):  # built, then loaded
        manager = ModelManager([ModelSource(lambda: Recommender.load(folder), folder)], Store(Database.open(None)))
        (built,) = manager.reload()
        assert built.catalogue.index.probes
        assert built.catalogue.index.recall >= 0.98
        question = Question(history=WATCHED, k=9, diversity=0.2)
        assert ids(built.recommend(question)) == ids(engine.recommend(question))
        assert (folder / saved_index.FILE).exists()


# Over HTTP, and on the device.


@pytest.fixture
def endpoint(hybrid: Path) -> Iterator[Any]:
    app = create_app(lambda: Recommender.load(hybrid), Settings.model_validate({"admin_keys": [ADMIN]}))
    with ready(app, ADMIN) as client:
        yield client


def test_over_http_it_is_the_same(endpoint: Any, engine: Engine) -> None:
    def asked(**question: Any) -> list[tuple[str, float]]:
        items = endpoint.post("/v1/recommend", json=question).raise_for_status().json()["items"]
        return [(item["item_id"], item["score"]) for item in items]

    assert asked(history=WATCHED, k=18) == ranking(engine.recommend(Question(history=WATCHED, k=18)))
    vector = engine.recommender.user_vector(engine.recommender.catalogue.rows(WATCHED)).tolist()
    assert asked(vector=vector, exclude=WATCHED, k=18) == asked(history=WATCHED, k=18)
    is_problem(endpoint.post("/v1/recommend", json={"vector": vector[:-1]}), 422, "vector")
    new = {"title": NEW.title, "text": NEW.text, "columns": dict(NEW.columns)}
    endpoint.put("/v1/items/late-stew", json=new).raise_for_status()
    more = engine.with_items([NEW])
    assert asked(history=WATCHED, k=19) == ranking(more.recommend(Question(history=WATCHED, k=19)))
    endpoint.delete("/v1/items/late-stew").raise_for_status()
    endpoint.post("/v1/models:reload").raise_for_status()
    assert asked(history=WATCHED, k=18) == ranking(engine.recommend(Question(history=WATCHED, k=18)))


def test_a_device_computes_both_halves_and_sends_nothing_else(
    hybrid: Path, toy: Path, engine: Engine, fedrec: Fedrec, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    asked = ["recommend", hybrid, "--shard", toy, "--user", "person-07", "-k", 5, "--json"]
    app = create_app(lambda: Recommender.load(hybrid))
    recommend = Engine.recommend

    def keep(self: Engine, question: Question) -> Answer:
        sent.append(question.model_dump(exclude_unset=True))
        return recommend(self, question)

    with ready(app) as client:
        monkeypatch.setattr(Engine, "recommend", keep)
        here, sending = fedrec(*asked), fedrec(*asked, "--endpoint", client.base_url)
    assert here.answer["items"] == sending.answer["items"]
    assert "the vector tells http://127.0.0.1" in sending.err
    assert "the vector tells" not in here.err
    assert {name for question in sent for name in question} == {"vector", "k", "offset"}
    assert {len(question["vector"]) for question in sent} == {engine.catalogue.index.width}
    assert [item["item_id"] for item in here.answer["items"]] == ids(engine.recommend(Question(history=had(toy), k=5)))


def test_personalisation_is_of_the_towers_alone_and_says_so(hybrid: Path, run: Path, toy: Path, fedrec: Fedrec) -> None:
    asked = ["--data", toy, "--steps", "1", "--rates", "0.1", "--part", "user", "--json"]
    found, expected = fedrec("personalise", hybrid, *asked), fedrec("personalise", run, *asked)
    assert "ranks by a closed form, too, which is left out here" in found.err
    assert found.answer["test"] == expected.answer["test"]


def had(data: Path) -> list[str]:
    """All films of person-07, oldest first."""
    catalogue, shard = Catalogue.load(data), Shard.load(data)
    return [catalogue.ids[row] for row in shard.full_history(find_user(data, "person-07"))]
