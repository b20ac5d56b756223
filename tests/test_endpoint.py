"""The endpoint as those who run it want it: keys, limits, items, feedback by consent, reload, meters."""

import asyncio
import gc
import json
import logging
import re
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from threading import Event, current_thread
from typing import Any

import httpx
import pytest
import torch
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from fedrec.data.errors import InputError
from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.model.inference import InferenceModel
from fedrec.recsys.recommender import Recommender
from fedrec.serving import engine as engines
from fedrec.serving.batcher import Batcher
from fedrec.serving.cost import question_cost
from fedrec.serving.database import Database
from fedrec.serving.engine import Engine
from fedrec.serving.http.app import create_app
from fedrec.serving.live_catalogue import LiveCatalogue
from fedrec.serving.plan import Plan, plan_question
from fedrec.serving.refusals import UnanswerableError
from fedrec.serving.schema import Answer, Question
from fedrec.serving.settings import Settings
from tests.support.endpoint import FILMS, SECRET, WATCHED, is_problem, ready, running

READ, ADMIN = "a-key-to-read-0123456789", "a-key-to-change-9876543210"
OWN_WORD, OWN_NUMBER = "pistachio", 7_310_465_982_217
NEW = {"title": "The lander", "text": "The lander. A spaceship lands on the moon.", "columns": {"year": 2026}}


@pytest.fixture(scope="module")
def recommender(run: Path) -> Recommender:
    return Recommender.load(run)


def app_of(recommender: Recommender, **settings: Any) -> FastAPI:
    return create_app(lambda: recommender, Settings.model_validate({"admin_keys": [ADMIN]} | settings))


@pytest.fixture
def admin(recommender: Recommender) -> Iterator[httpx.Client]:
    """A caller who may do everything."""
    with ready(app_of(recommender), ADMIN) as client:
        yield client


def ids(response: httpx.Response) -> list[str]:
    return [item["item_id"] for item in response.raise_for_status().json()["items"]]


# Keys and limits.


def test_reading_and_administration_have_keys_of_their_own(recommender: Recommender) -> None:
    with ready(app_of(recommender, read_keys=[READ])) as client:
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json", "/"):
            assert client.get(path).status_code == 200, path
        for key in (None, "wrong", READ[:-1], READ + "x", "é"):
            headers = httpx.Headers([(b"x-api-key", key.encode())] if key else [])
            refused = client.post("/v1/recommend", json={"query": "x"}, headers=headers)
            is_problem(refused, 401, None)
            assert refused.headers["www-authenticate"] == "ApiKey"
            is_problem(client.get("/metrics", headers=headers), 401, None)
        reader, boss = {"x-api-key": READ}, {"x-api-key": ADMIN}
        for headers in (reader, boss):
            assert ids(client.post("/v1/recommend", json={"query": "x"}, headers=headers))
        for method, path in [("PUT", "/v1/items/a"), ("DELETE", "/v1/items/a"), ("GET", "/v1/users")]:
            is_problem(client.request(method, path, headers=reader, json=NEW), 403, None)
        is_problem(client.post("/v1/models:reload", headers=reader), 403, None)
        assert client.post("/v1/models:reload", headers=boss).status_code == 200


def test_without_admin_keys_nobody_changes_anything(recommender: Recommender) -> None:
    with ready(app_of(recommender, admin_keys=[])) as client:
        is_problem(client.put("/v1/items/a", json=NEW), 403, None)


def test_who_asks_too_often_is_told_when_to_come_again(recommender: Recommender) -> None:
    with ready(app_of(recommender, rate_per_minute=3)) as client:
        answers = [client.get("/v1/items/film-soup/similar") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        is_problem(answers[-1], 429, None)
        assert 0 < int(answers[-1].headers["retry-after"]) <= 60
        other = client.get("/v1/items/film-soup/similar", headers={"x-api-key": ADMIN})
        assert other.status_code == 200
        assert client.get("/readyz").status_code == 200


def test_a_key_that_is_not_known_is_no_way_around_the_limit(recommender: Recommender) -> None:
    path = "/v1/items/film-soup/similar"
    with ready(app_of(recommender, rate_per_minute=3)) as client:
        made_up = [client.get(path, headers={"x-api-key": f"made-up-{n}"}).status_code for n in range(4)]
    assert made_up == [200, 200, 200, 429]
    with ready(app_of(recommender, rate_per_minute=3, read_keys=[READ])) as client:
        guessed = [client.get(path, headers={"x-api-key": f"made-up-{n}"}).status_code for n in range(4)]
        assert guessed == [401, 401, 401, 429]
        assert client.get(path, headers={"x-api-key": READ}).status_code == 200


def test_a_body_that_is_too_large_is_refused_told_or_not(recommender: Recommender) -> None:
    body = json.dumps({"query": SECRET, "exclude": [SECRET] * 500}).encode()
    with ready(app_of(recommender, max_body_bytes=1000)) as client:
        is_problem(client.post("/v1/recommend", content=body), 413, None)
        pieces = (body[start : start + 100] for start in range(0, len(body), 100))
        headers = {"content-type": "application/json"}
        is_problem(client.post("/v1/recommend", content=pieces, headers=headers), 413, None)
        assert client.post("/v1/recommend", json={"query": "x"}).status_code == 200


def test_an_answer_that_takes_too_long_is_given_up(recommender: Recommender) -> None:
    app = app_of(recommender, time_limit=1e-4)
    with running(app) as client:
        while not (live := getattr(app.state, "services", None)) or live.manager.engine is None:
            time.sleep(0.01)
        slow = client.post("/v1/recommend", json={"query": "x"})
        is_problem(slow, 503, None)
        assert slow.headers["retry-after"] == "5"


def test_a_reload_may_take_longer_than_an_answer(recommender: Recommender) -> None:
    """Given up, it would go on all the same, and be asked for again."""
    app = app_of(recommender, time_limit=1e-4)
    with running(app, ADMIN) as client:
        while app.state.services.manager.engine is None:
            time.sleep(0.01)
        assert client.post("/v1/models:reload").json()["model_version"] == recommender.version


def test_a_body_that_is_broken_off_is_the_callers_fault(admin: httpx.Client) -> None:
    with socket.create_connection((admin.base_url.host, admin.base_url.port)) as caller:
        head = b"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        caller.sendall(head + b'content-length: 100\r\n\r\n{"query": ')
    for _ in range(100):
        metrics = admin.get("/metrics").text
        if 'fedrec_requests_total{route="/v1/recommend"' in metrics:
            break
        time.sleep(0.02)
    assert 'fedrec_requests_total{route="/v1/recommend",status="400"} 1.0' in metrics


def test_one_questions_fault_is_its_own(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    def planned(question: Question, catalogue: LiveCatalogue) -> Plan | UnanswerableError:
        if question.query == "poison":
            raise RuntimeError("no refusal")
        return plan_question(question, catalogue)

    monkeypatch.setattr(engines, "plan_question", planned)
    engine, texts = Engine.from_recommender(recommender), ["soup", "poison", "moon", "baker"]

    async def ask() -> list[Answer | BaseException]:
        together = Batcher()
        asked = (together.answer(engine, Question(query=text)) for text in texts)
        found = await asyncio.gather(*asked, return_exceptions=True)
        together.close()
        return list(found)

    first, failed, *others = asyncio.run(ask())
    assert isinstance(failed, RuntimeError)
    for answer, text in zip((first, *others), ("soup", "moon", "baker"), strict=True):
        assert isinstance(answer, Answer)
        expected = engine.recommend(Question(query=text)).items
        assert [item.item_id for item in answer.items] == [item.item_id for item in expected]


def test_who_has_given_up_is_not_encoded_and_who_waits_at_the_end_is(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, passes, may_go_on = Engine.from_recommender(recommender), list[list[str | None]](), Event()
    recommend_all = Engine.recommend_all

    def recorded(engine: Engine, questions: Sequence[Question]) -> list[Answer | UnanswerableError]:
        passes.append([question.query for question in questions])
        may_go_on.wait()
        return recommend_all(engine, questions)

    monkeypatch.setattr(Engine, "recommend_all", recorded)

    async def ask() -> list[Answer]:
        together = Batcher()
        first = asyncio.create_task(together.answer(engine, Question(query="soup")))
        while not passes:
            await asyncio.sleep(0.01)
        gives_up, *others = (
            asyncio.create_task(together.answer(engine, Question(query=text))) for text in ("moon", "baker", "oven")
        )
        await asyncio.sleep(0.01)
        gives_up.cancel()
        await asyncio.sleep(0.01)
        may_go_on.set()
        await asyncio.to_thread(together.close)
        return await asyncio.gather(first, *others)

    answers = asyncio.run(ask())
    assert all(answer.items for answer in answers)
    assert passes == [["soup"], ["baker", "oven"]]


def test_who_asks_one_waits_for_a_pass_and_not_for_all_that_others_ask(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests take turns, and a pass begins no more work than a few plain questions are."""
    engine, passes, may_go_on = Engine.from_recommender(recommender), list[list[Question]](), Event()
    recommend_all = Engine.recommend_all

    def recorded(engine: Engine, questions: Sequence[Question]) -> list[Answer | UnanswerableError]:
        passes.append(list(questions))
        may_go_on.wait()
        return recommend_all(engine, questions)

    monkeypatch.setattr(Engine, "recommend_all", recorded)
    costly = Question(history=WATCHED * 9, explain=True)
    plain, one = Question(history=WATCHED), Question(history=WATCHED[:1])

    async def ask() -> None:
        together = Batcher()
        first = asyncio.create_task(together.answer(engine, one))
        while not passes:
            await asyncio.sleep(0.01)
        asked = [[plain] * 20, [costly] * 3, [one]]
        waiting = []
        for questions in asked:
            waiting.append(asyncio.create_task(together.answer_all([(engine, each) for each in questions])))
            await asyncio.sleep(0.01)
        may_go_on.set()
        answers = await asyncio.gather(first, *waiting)
        assert [len(each) for each in answers[1:]] == [20, 3, 1]  # type: ignore[arg-type]
        together.close()

    asyncio.run(ask())
    assert passes[:4] == [[one], [plain, costly], [one, plain, costly], [plain, costly]]
    assert [len(each) for each in passes[4:]] == [8, 8, 1]
    assert question_cost(costly) == 11


def test_a_request_for_too_much_work_is_refused(admin: httpx.Client) -> None:
    """What it would take is known before: a hundred histories of fifty, each explained."""
    costly = {"history": WATCHED * 9, "explain": True, "diversity": 0.5, "k": 20}
    refused = admin.post("/v1/recommend:batch", json={"questions": [costly] * 100})
    is_problem(refused, 422, "questions")
    assert "as much work as 1,200 plain ones, and 500 are the most" in refused.json()["detail"]
    assert admin.post("/v1/recommend:batch", json={"questions": [costly] * 3}).status_code == 200


class LateEncoder(Encoder):
    """One that is still loading."""

    come = Event()

    @property
    def loaded(self) -> bool:
        return self.come.is_set()

    def load(self) -> None:
        self.come.wait()
        super().load()


def test_texts_wait_for_their_encoder_and_histories_do_not(recommender: Recommender) -> None:
    late = replace(recommender)
    vars(late)["encoder"] = LateEncoder(**{f.name: getattr(recommender.encoder, f.name) for f in fields(Encoder)})
    with ready(app_of(late)) as client, ThreadPoolExecutor() as pool:
        asked = pool.submit(client.post, "/v1/recommend", json={"query": "soup"})
        sought = pool.submit(client.get, "/v1/search", params={"q": "soup"})
        for question in ({"history": WATCHED}, {"vector": recommender.vectors[0].tolist()}):
            assert client.post("/v1/recommend", json=question).status_code == 200
        assert not asked.done()
        assert not sought.done()
        LateEncoder.come.set()
        assert asked.result().status_code == sought.result().status_code == 200


def test_other_pages_may_call_only_if_they_are_named(recommender: Recommender) -> None:
    asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    for named, allowed in (((), None), (("https://shop.example",), "https://shop.example")):
        with ready(app_of(recommender, cors_origins=named, read_keys=[READ])) as client:
            answer = client.options("/v1/recommend", headers=asked)
            assert answer.headers.get("access-control-allow-origin") == allowed


# Items.


def test_an_item_is_served_within_the_request_that_puts_it_in(admin: httpx.Client) -> None:
    put = admin.put("/v1/items/new/1", json=NEW).raise_for_status().json()
    assert put == {
        "item_id": "new/1", "title": "The lander", "text": NEW["text"], "columns": {"year": 2026, "genres": None}
    }  # fmt: skip
    assert ids(admin.post("/v1/recommend", json={"query": NEW["text"], "k": 1})) == ["new/1"]
    assert admin.get("/v1/items/new/1").json() == put
    assert len(ids(admin.get("/v1/items/new/1/similar"))) == 10
    assert admin.get("/readyz").json()["items"] == 25
    assert admin.delete("/v1/items/new/1").status_code == 204
    is_problem(admin.delete("/v1/items/new/1"), 404, "item_id")
    is_problem(admin.get("/v1/items/new/1"), 404, "item_id")
    assert "new/1" not in ids(admin.post("/v1/recommend", json={"query": NEW["text"], "k": 1000}))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"title": ""}, "title"),
        ({"title": None}, "title"),
        ({"colour": "red"}, "colour"),
        ({"columns": {"director": "x"}}, "director"),
        ({"columns": {"item_id": "film-soup"}}, "item_id"),
        ({"columns": {"year": "soon"}}, "columns"),
        ({"columns": {"year": 1e30}}, "columns"),
    ],
)
def test_an_item_that_cannot_be_is_refused(admin: httpx.Client, change: dict[str, Any], field: str) -> None:
    is_problem(admin.put("/v1/items/a", json=NEW | change), 422, field)
    is_problem(admin.get("/v1/items/a"), 404, "item_id")


def test_items_outlive_the_process_and_the_model(run: Path, tmp_path: Path) -> None:
    """Put in, replaced, and a film of the catalogue taken out."""
    settings = {"store": tmp_path / "kept" / "store.db"}
    with ready(app_of(Recommender.load(run), **settings), ADMIN) as client:
        client.put("/v1/items/new", json={"title": "Old"}).raise_for_status()
        client.put("/v1/items/new", json=NEW).raise_for_status()
        client.delete("/v1/items/film-soup").raise_for_status()
    assert settings["store"].stat().st_mode & 0o777 == 0o600
    with ready(app_of(Recommender.load(run), **settings), ADMIN) as client:
        for _ in range(2):
            assert client.get("/v1/items/new").json()["title"] == "The lander"
            is_problem(client.get("/v1/items/film-soup"), 404, "item_id")
            assert client.get("/readyz").json()["items"] == 24
            client.post("/v1/models:reload").raise_for_status()


def test_a_store_that_is_none_is_refused(recommender: Recommender, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no database at all, but long enough to be looked at as one" * 100)
    with pytest.raises(
        InputError, match=r"^--store .*/store cannot be used \(file is not a database\); choose another"
    ):
        Database.open(str(tmp_path / "store"))


# Feedback, by consent.


def told(item_id: str, kind: str = "like", **more: Any) -> dict[str, Any]:
    return {"user": "u-1", "item_id": item_id, "kind": kind, "consent": True} | more


def test_who_consents_is_remembered_until_erased(admin: httpx.Client) -> None:
    for item_id in WATCHED:
        assert admin.post("/v1/feedback", json=told(item_id)).status_code == 201
    first = admin.post("/v1/feedback", json=told("film-baker", "hide", request_id="r")).json()
    again = admin.post("/v1/feedback", json=told("film-baker", "hide", request_id="r")).json()
    assert first == again
    shared = ids(admin.post("/v1/recommend", json={"history": WATCHED, "exclude": ["film-baker"]}))
    assert ids(admin.post("/v1/recommend", json={"user": "u-1"})) == shared
    kept = admin.get("/v1/users/u-1").json()
    assert [entry["item_id"] for entry in kept["feedback"]] == [*WATCHED, "film-baker"]
    assert admin.delete("/v1/users/u-1").status_code == 204
    assert admin.get("/v1/users/u-1").json() == {"user": "u-1", "feedback": []}
    is_problem(admin.post("/v1/recommend", json={"user": "u-1"}), 422, "history")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"consent": False}, "consent"),
        ({"consent": None}, "consent"),
        ({"kind": "buy"}, "kind"),
        ({"item_id": "gone"}, "item_id"),
        ({"user": ""}, "user"),
    ],
)
def test_feedback_that_may_not_be_kept_is_refused(admin: httpx.Client, change: dict[str, Any], field: str) -> None:
    is_problem(admin.post("/v1/feedback", json=told("film-soup") | change), 422, field)
    assert admin.get("/v1/users/u-1").json()["feedback"] == []


def test_erasure_leaves_nothing_behind(recommender: Recommender, tmp_path: Path) -> None:
    """Neither in the database nor in the log that it writes first."""
    store = tmp_path / "store.db"
    with ready(app_of(recommender, store=store), ADMIN) as client:
        for user in (SECRET, "bystander"):
            for item_id in WATCHED:
                client.post("/v1/feedback", json=told(item_id, user=user)).raise_for_status()
        assert SECRET.encode() in b"".join(path.read_bytes() for path in tmp_path.iterdir())
        client.delete(f"/v1/users/{SECRET}").raise_for_status()
        assert SECRET.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    with sqlite3.connect(store) as db:
        assert db.execute("SELECT DISTINCT user FROM feedback").fetchall() == [("bystander",)]


def test_erasure_while_the_store_is_read_says_to_try_again(recommender: Recommender, tmp_path: Path) -> None:
    """Another process holds an old state of the file, which its log must keep as long."""
    store = tmp_path / "store.db"
    with ready(app_of(recommender, store=store), ADMIN) as client, closing(sqlite3.connect(store)) as reader:
        client.post("/v1/feedback", json=told("film-soup", user=SECRET)).raise_for_status()
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM feedback").fetchall()
        busy = client.delete(f"/v1/users/{SECRET}")
        is_problem(busy, 503, None)
        assert busy.headers["retry-after"] == "5"
        reader.rollback()
        assert client.delete(f"/v1/users/{SECRET}").status_code == 204
        assert SECRET.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_without_consent_nothing_of_a_request_stays(
    recommender: Recommender, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a log, a metric, the database, or an object that lives on. The words and numbers are no other test's."""
    caplog.set_level(logging.DEBUG)
    with ready(app_of(recommender, store=tmp_path / "store.db"), ADMIN) as client:
        for asked in (
            {"history": [OWN_WORD, *WATCHED]},
            {"query": OWN_WORD},
            {"history": [OWN_WORD]},
            {"query": OWN_WORD, "k": 0},
            {"history": WATCHED, "filters": {"year": OWN_NUMBER}},
            {"history": WATCHED, "filters": {"genres": OWN_WORD}},
            {"vector": [0.0] * 383 + [OWN_NUMBER]},
        ):
            client.post("/v1/recommend", json=asked)
        client.get("/v1/search", params={"q": OWN_WORD})
        client.get(f"/v1/items/{OWN_WORD}/similar")
        metrics = client.get("/metrics").text
        files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        gc.collect()
        living = [thing for thing in gc.get_objects() if type(thing) in (Question, Plan, Answer)]
        assert not [thing for thing in living if OWN_WORD in repr(thing) or str(OWN_NUMBER) in repr(thing)]
    kept = [metrics.encode(), files, *(str(vars(record)).encode() for record in caplog.records if _of_ours(record))]
    for own in (OWN_WORD, str(OWN_NUMBER)):
        assert not [text for text in kept if own.encode() in text]


def _of_ours(record: logging.LogRecord) -> bool:
    """Not what the caller's side of the test logs."""
    return record.name.split(".")[0] not in ("httpx", "httpcore")


# Reload.


@pytest.fixture(scope="module")
def second(second_run: Path) -> Recommender:
    return Recommender.load(second_run)


def test_a_reload_under_load_fails_nobody_and_mixes_nothing(recommender: Recommender, second: Recommender) -> None:
    """Each answer is, whole, of the model that it names."""
    turns = iter([recommender, *[second, recommender] * 10])
    app = create_app(lambda: next(turns), Settings.model_validate({"admin_keys": [ADMIN]}))
    asked = [{"history": WATCHED, "k": 24}, {"query": "soup", "k": 24}]
    expected = {
        (model.version, place): [
            item.score for item in Engine.from_recommender(model).recommend(Question(**question)).items
        ]
        for model in (recommender, second)
        for place, question in enumerate(asked)
    }
    with ready(app, ADMIN) as client, ThreadPoolExecutor(4) as pool:
        stop = False

        def ask(place: int) -> list[tuple[str, list[float]]]:
            seen = []
            while not stop:
                answer = client.post("/v1/recommend", json=asked[place]).raise_for_status().json()
                seen.append((answer["model_version"], [item["score"] for item in answer["items"]]))
            return seen

        callers = [pool.submit(ask, place % 2) for place in range(4)]
        told = [client.post("/v1/models:reload").raise_for_status().json()["model_version"] for _ in range(20)]
        stop = True
        for place, caller in enumerate(callers):
            for version, scores in caller.result():
                assert scores == pytest.approx(expected[version, place % 2], abs=1e-5)
    assert told == [second.version, recommender.version] * 10


def test_where_a_reload_fails_the_old_model_goes_on(recommender: Recommender) -> None:
    turns = iter([recommender])

    def load() -> Recommender:
        if model := next(turns, None):
            return model
        raise InputError("towers.safetensors is missing")

    with ready(create_app(load, Settings.model_validate({"admin_keys": [ADMIN]})), ADMIN) as client:
        failed = client.post("/v1/models:reload")
        is_problem(failed, 503, None)
        assert "the old one keeps answering: towers.safetensors is missing" in failed.json()["detail"]
        assert ids(client.post("/v1/recommend", json={"query": "x"}))
        (model,) = client.get("/v1/models").json()["models"]
        assert (model["model_version"], model["items"], model["recall"]) == (recommender.version, 24, 1.0)
        assert (model["mode"], model["fallback"]) == ("federated", None)


def test_encoders_compute_within_one_thread_whoever_asks(admin: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a vector depends on nothing else that is asked, and libgomp keeps no team of threads for any of them."""
    computed: list[tuple[str, int]] = []
    for owner, name in ((InferenceModel, "item_vectors"), (InferenceModel, "user_vectors"), (Encoder, "encode")):
        work = getattr(owner, name)

        def noted(*given: Any, work: Callable[..., Any] = work) -> Any:
            computed.append((current_thread().name.rpartition("_")[0], torch.get_num_threads()))
            return work(*given)

        monkeypatch.setattr(owner, name, noted)
    for question in ({"history": WATCHED}, {"query": "soup"}):
        admin.post("/v1/recommend", json=question).raise_for_status()
    admin.get("/v1/search", params={"q": "soup"}).raise_for_status()
    admin.put("/v1/items/new", json=NEW).raise_for_status()
    admin.post("/v1/models:reload").raise_for_status()
    assert len(computed) >= 8
    assert set(computed) == {("fedrec", 1)}


# Meters, batches, attribution.


def test_meters_tell_routes_models_and_failures(admin: httpx.Client, recommender: Recommender) -> None:
    for _ in range(3):
        admin.post("/v1/recommend", json={"query": "x"})
    admin.post("/v1/recommend", json={})
    admin.get("/v1/items/film-soup/similar")
    admin.get("/nothing")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(admin.get("/metrics").text)
        for sample in family.samples
    }
    assert samples["fedrec_requests_total", "/v1/recommend", "200"] == 3
    assert samples["fedrec_requests_total", "/v1/recommend", "422"] == 1
    assert samples["fedrec_request_seconds_count", "/v1/recommend"] == 4
    assert samples["fedrec_requests_total", "/v1/items/{item_id}/similar", "200"] == 1
    assert samples["fedrec_requests_total", "(none)", "404"] == 1
    assert samples[("fedrec_items",)] == 24
    assert samples["fedrec_model", recommender.version] == 1


def test_a_batch_is_answered_in_its_order_or_refused_whole(admin: httpx.Client) -> None:
    questions = [{"history": WATCHED}, {"query": "soup", "k": 3}, {"history": FILMS["fly"][:2]}]
    answers = admin.post("/v1/recommend:batch", json={"questions": questions}).raise_for_status().json()["answers"]
    for answer, question in zip(answers, questions, strict=True):
        assert [item["item_id"] for item in answer["items"]] == ids(admin.post("/v1/recommend", json=question))
    bad = [*questions, {"history": [SECRET]}]
    is_problem(admin.post("/v1/recommend:batch", json={"questions": bad}), 422, "questions.3.history")
    is_problem(admin.post("/v1/recommend:batch", json={"questions": []}), 422, "questions")
    is_problem(admin.post("/v1/recommend:batch", json={"questions": [{"query": "x"}] * 101}), 422, "questions")


def test_each_answer_has_a_number_of_its_own(admin: httpx.Client) -> None:
    """By which feedback can name it, whatever was asked."""
    batch = admin.post("/v1/recommend:batch", json={"questions": [{"query": "x"}] * 2}).json()["answers"]
    others = [admin.get("/v1/search?q=x"), admin.get("/v1/items/film-soup/similar")]
    alone = [admin.post("/v1/recommend", json={"query": "x"}) for _ in range(3)]
    numbers = [answer["request_id"] for answer in (*batch, *(reply.json() for reply in (*others, *alone)))]
    assert len(set(numbers)) == len(numbers) == 7
    assert all(re.fullmatch(r"[0-9a-f]{32}(-\d+)?", number) for number in numbers)
