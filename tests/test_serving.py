"""How it is asked: the index against brute force, the engine in the toy world, the endpoint over a real port."""

import http.client
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.speed.served import Caller, Served, serving
from benchmarks.speed.served import until_ready as until_ready_to_measure
from fedrec.data.errors import InputError
from fedrec.recsys.recommender import Recommender
from fedrec.serving.engine import Engine
from fedrec.serving.http.app import create_app
from fedrec.serving.index.vector_index import Index
from fedrec.serving.refusals import UnanswerableError
from fedrec.serving.schema import Answer, Answers, Feedback, KnownItem, NewItem, Question, Questions
from tests.support.endpoint import FILMS, SECRET, WATCHED, is_problem, running, until_ready
from tests.support.toy_world import SPACE

# The index.


# OpenBLAS may raise the flag of an invalid number where rows are shorter than its registers; the outcome is compared.
@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul:RuntimeWarning")
@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    items=st.integers(1, 40),
    k=st.integers(1, 60),
    exclude=st.lists(st.integers(0, 39), max_size=60),
)
@example(seed=0, items=7, k=3, exclude=list(range(7)))
@example(seed=0, items=7, k=1000, exclude=[2, 2])
def test_index_is_brute_force(seed: int, items: int, k: int, exclude: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.nn.functional.normalize(torch.randn(items, 5, generator=generator), dim=1)  # (N, E)
    asked = torch.randn(5, generator=generator)
    scores = (vectors.double() @ asked.double()).tolist()
    left = sorted(set(range(items)) - set(exclude), key=lambda row: -scores[row])[:k]
    allowed = np.ones(items, dtype=bool)
    allowed[[row for row in exclude if row < items]] = False
    found = Index.build(vectors.numpy()).search(asked.numpy(), k, allowed)
    assert [row for row, _ in found] == left
    assert [score for _, score in found] == pytest.approx([scores[row] for row in left], abs=1e-5)


def test_index_of_equal_vectors_answers_each_row_once() -> None:
    found = Index.build(np.ones((6, 2))).search(np.ones(2), 6, np.arange(6) != 4)
    assert sorted(row for row, _ in found) == [0, 1, 2, 3, 5]
    assert [score for _, score in found] == [2.0] * 5


# The engine.


@pytest.fixture(scope="module")
def recommender(run: Path) -> Recommender:
    return Recommender.load(run)


@pytest.fixture(scope="module")
def engine(recommender: Recommender) -> Engine:
    return Engine.from_recommender(recommender)


def ids(answer: Answer) -> list[str]:
    return [item.item_id for item in answer.items]


def vector_of(recommender: Recommender, history: Sequence[str]) -> np.ndarray:
    """What a device computes from its own history, in the precision that JSON carries."""
    return recommender.user_vector(recommender.catalogue.rows(history)).double().numpy()


def test_a_cook_is_shown_the_other_cooking_films_first(engine: Engine) -> None:
    answer = engine.recommend(Question(history=WATCHED, k=24))
    assert set(ids(answer)[:6]) == set(FILMS["cook"][6:])
    assert set(ids(answer)) == {*FILMS["cook"][6:], *FILMS["fly"]}
    assert [item.score for item in answer.items] == sorted((item.score for item in answer.items), reverse=True)
    assert all(-1 <= item.score <= 1 for item in answer.items)
    assert all(item.title == item.item_id.replace("film-", "The ") for item in answer.items)
    assert answer.model_version == engine.recommender.version
    assert answer.unknown_ids == []


def test_a_text_about_the_moon_finds_space_films_first(engine: Engine) -> None:
    answer = engine.recommend(Question(query="a rocket flies to the moon", k=6))
    assert set(ids(answer)) < set(FILMS["fly"])
    assert set(ids(answer)[:2]) == {"film-rocket", "film-moon"}


@pytest.mark.parametrize("largest", [1, 1e-200, 1e300, sys.float_info.max])
def test_a_vector_made_on_the_device_answers_as_its_history_does(engine: Engine, largest: float) -> None:
    """Only the vector's direction matters, however long it is."""
    vector = np.asarray(vector_of(engine.recommender, WATCHED), dtype=np.float64)
    vector = vector / np.abs(vector).max() * largest
    sent = engine.recommend(Question(vector=vector.tolist(), exclude=WATCHED))
    shared = engine.recommend(Question(history=WATCHED))
    assert ids(sent) == ids(shared)
    assert [item.score for item in sent.items] == pytest.approx([item.score for item in shared.items], abs=1e-6)


def test_the_engine_answers_what_the_recommender_answers(engine: Engine) -> None:
    recommender, rows = engine.recommender, engine.recommender.catalogue.rows(WATCHED)
    expected = recommender.recommend(recommender.user_vector(rows), k=10, exclude=rows)
    answer = engine.recommend(Question(history=WATCHED, k=10))
    assert ids(answer) == [recommender.catalogue.ids[row] for row, _ in expected]
    assert [item.score for item in answer.items] == pytest.approx([score for _, score in expected], abs=1e-6)


@pytest.mark.parametrize(
    ("asked", "left_out"),
    [
        ({"history": WATCHED}, WATCHED),
        ({"history": WATCHED, "exclude": ["film-moon"]}, [*WATCHED, "film-moon"]),
        ({"history": WATCHED, "exclude_seen": False}, []),
        ({"history": WATCHED, "exclude_seen": False, "exclude": ["film-moon"]}, ["film-moon"]),
        ({"query": "soup", "exclude": ["film-soup", "film-soup"]}, ["film-soup"]),
        ({"query": "soup", "exclude": [*FILMS["cook"], *FILMS["fly"]]}, [*FILMS["cook"], *FILMS["fly"]]),
    ],
)
def test_exactly_what_is_excluded_is_left_out(engine: Engine, asked: dict[str, Any], left_out: list[str]) -> None:
    answer = engine.recommend(Question(k=1000, **asked))
    assert sorted(ids(answer)) == sorted({*FILMS["cook"], *FILMS["fly"]} - set(left_out))


def test_unknown_ids_are_skipped_and_reported(engine: Engine) -> None:
    answer = engine.recommend(Question(history=["gone", *WATCHED], exclude=["film-moon", "lost"]))
    assert answer.unknown_ids == ["gone", "lost"]
    assert ids(answer) == ids(engine.recommend(Question(history=WATCHED, exclude=["film-moon"])))


def test_similar_items_are_of_a_kind_and_never_the_item_itself(engine: Engine) -> None:
    answer = engine.similar("film-soup", 5)
    assert len(answer.items) == 5
    assert set(ids(answer)) < set(FILMS["cook"]) - {"film-soup"}
    assert sorted(ids(engine.similar("film-soup", 1000))) == sorted({*FILMS["cook"], *FILMS["fly"]} - {"film-soup"})


def test_a_refusal_names_the_field_and_never_the_value(engine: Engine) -> None:
    with pytest.raises(UnanswerableError, match=r"^history: none of these ids") as refusal:
        engine.recommend(Question(history=[SECRET]))
    assert SECRET not in str(refusal.value)


# The endpoint, as a process.


@pytest.fixture(scope="module")
def served(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(run, tmp_path_factory.mktemp("serve") / "log") as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


@pytest.mark.parametrize("mode", ["history", "query", "vector"])
def test_http_answers_what_the_engine_answers(client: httpx.Client, engine: Engine, mode: str) -> None:
    sources = {"history": WATCHED, "query": "baking", "vector": vector_of(engine.recommender, WATCHED).tolist()}
    asked = {mode: sources[mode], "k": 4, "exclude": ["film-chef", "lost"]}
    answer = client.post("/v1/recommend", json=asked).raise_for_status().json()
    expected = engine.recommend(Question(**asked)).model_dump()
    assert answer.keys() == {"items", "model_version", "took_ms", "unknown_ids", "fallback", "request_id"}
    assert [item["item_id"] for item in answer["items"]] == [item["item_id"] for item in expected["items"]]
    for item, wanted in zip(answer["items"], expected["items"], strict=True):
        assert item == {**wanted, "score": pytest.approx(wanted["score"], abs=1e-6)}
    assert answer["model_version"] == engine.recommender.version
    assert answer["unknown_ids"] == ["lost"]
    assert answer["took_ms"] >= 0


def test_http_similar(client: httpx.Client, engine: Engine) -> None:
    answer = client.get("/v1/items/film-soup/similar", params={"k": 3}).raise_for_status().json()
    assert [item["item_id"] for item in answer["items"]] == ids(engine.similar("film-soup", 3))
    assert len(client.get("/v1/items/film-soup/similar").json()["items"]) == 10


def test_callers_at_once_get_what_each_gets_alone(client: httpx.Client) -> None:
    questions = [{"history": [film]} for film in WATCHED] + [{"query": word} for word in SPACE[:6]]

    def scores(question: dict[str, Any]) -> list[tuple[str, float]]:
        items = client.post("/v1/recommend", json=question).raise_for_status().json()["items"]
        return [(item["item_id"], item["score"]) for item in items]

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(scores, questions)) == [scores(question) for question in questions]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "body"),
        ({"k": 3}, "body"),
        ({"history": ["film-moon"], "vector": [1.0], "query": SECRET}, "body"),
        ({"vector": [1.0], "explain": True}, "body"),
        ({"query": "x", "filters": {"colour": SECRET}}, "filters.colour"),
        ({"query": "x", "filters": {"year": SECRET}}, "filters.year"),
        ({"query": "x", "filters": {"genres": {"min": 3}}}, "filters.genres"),
        ({"query": SECRET, "vector": [1.0]}, "body"),
        ({"query": "x", "diversity": 0.5, "k": 1000, "offset": 1}, "body"),
        ([SECRET], "body"),
        ({"history": []}, "history"),
        ({"history": SECRET}, "history"),
        ({"history": [SECRET]}, "history"),
        ({"history": ["film-moon", 7]}, "history.1"),
        ({"history": ["film-moon", ""]}, "history.1"),
        ({"history": [SECRET * 65]}, "history.0"),
        ({"history": [SECRET] * 10_001}, "history"),
        ({"query": ""}, "query"),
        ({"query": [SECRET]}, "query"),
        ({"query": SECRET * 300}, "query"),
        ({"vector": []}, "vector"),
        ({"vector": [0.5] * 383}, "vector"),
        ({"vector": [0.5] * 385}, "vector"),
        ({"vector": [0.5, SECRET]}, "vector.1"),
        ({"query": "x", "k": 0}, "k"),
        ({"query": "x", "k": -1}, "k"),
        ({"query": "x", "k": 1001}, "k"),
        ({"query": "x", "k": 1.5}, "k"),
        ({"query": "x", "k": SECRET}, "k"),
        ({"query": "x", "user_id": SECRET}, "user_id"),
        ({"query": "x", "exclude": SECRET}, "exclude"),
        ({"query": "x", "exclude_seen": SECRET}, "exclude_seen"),
    ],
)
def test_a_wrong_question_is_a_problem_that_names_the_field(client: httpx.Client, asked: Any, field: str) -> None:
    is_problem(client.post("/v1/recommend", json=asked), 422, field)


@pytest.mark.parametrize(
    ("content", "kind", "status", "field"),
    [
        (b'{"query": "marzipan"', "application/json", 400, "body"),
        (b"marzipan", "application/json", 400, "body"),
        (b'{"query": "marzipan\xff"}', "application/json", 400, "body"),
        (b'{"query": "marzipan"}', "text/plain", 422, "body"),
        (b"query=marzipan", "application/x-www-form-urlencoded", 422, "body"),
        (b"", "application/json", 422, "body"),
        (b"null", "application/json", 422, "body"),
        (b'{"query": "marzipan\\ud800"}', "application/json", 400, "body"),
        (b'{"vector": [NaN]}', "application/json", 422, "vector.0"),
        (b'{"vector": [0, 1e999]}', "application/json", 422, "vector.1"),
    ],
)
def test_a_body_that_cannot_be_read_is_a_problem(
    client: httpx.Client, content: bytes, kind: str, status: int, field: str
) -> None:
    response = client.post("/v1/recommend", content=content, headers={"content-type": kind})
    is_problem(response, status, field)


@pytest.mark.parametrize(
    ("method", "path", "status", "field"),
    [
        ("GET", "/nothing", 404, None),
        ("GET", "/v1/items/film-nothing/similar", 404, "item_id"),
        ("GET", "/v1/items/film-soup/similar?k=0", 422, "k"),
        ("GET", "/v1/items/film-soup/similar?k=1001", 422, "k"),
        ("GET", "/v1/items/film-soup/similar?k=marzipan", 422, "k"),
        ("POST", "/healthz", 405, None),
        ("GET", "/v1/recommend", 405, None),
    ],
)
def test_a_wrong_address_is_a_problem(
    client: httpx.Client, method: str, path: str, status: int, field: str | None
) -> None:
    is_problem(client.request(method, path), status, field)


@pytest.mark.parametrize(("method", "path", "allowed"), [("GET", "/v1/recommend", "POST"), ("POST", "/readyz", "GET")])
def test_a_wrong_method_is_told_the_right_one(client: httpx.Client, method: str, path: str, allowed: str) -> None:
    assert client.request(method, path).headers["allow"] == allowed


def test_health_and_readiness(client: httpx.Client, recommender: Recommender) -> None:
    assert client.get("/healthz").json()["status"] == "alive"
    ready = {"status": "ready", "model_version": recommender.version, "items": 24}
    assert client.get("/readyz").raise_for_status().json() == ready


def test_the_api_describes_itself(client: httpx.Client) -> None:
    described = client.get("/openapi.json").raise_for_status().json()
    assert described["paths"].keys() == {
        *("/v1/recommend", "/v1/recommend:batch", "/v1/search", "/v1/items/{item_id}", "/v1/items/{item_id}/similar"),
        *("/v1/models", "/v1/models:reload", "/v1/feedback", "/v1/users", "/v1/users/{user}", "/v1/users/{user}/token"),
        *("/healthz", "/readyz", "/metrics"),
    }
    answers = described["paths"]["/v1/recommend"]["post"]["responses"]
    assert answers.keys() == {*map(str, (200, 400, 401, 403, 405, 408, 413, 421, 422, 429, 431, 503))}
    assert all("application/problem+json" in answers[status]["content"] for status in answers if status != "200")
    for asked in ("Question", "Questions", "NewItem", "Feedback"):
        assert described["components"]["schemas"][asked]["additionalProperties"] is False
    for kind in (Question, Questions, NewItem, Feedback, Answer, Answers, KnownItem):
        for told in described["components"]["schemas"][kind.__name__]["examples"]:
            kind.model_validate(told)


def ask_everything(client: httpx.Client) -> None:
    """Good questions and bad ones, each with something in it that is the caller's own."""
    for asked in (
        {"history": [SECRET, "film-moon"]},
        {"query": SECRET},
        {"vector": [1.5e300] * 384},
        {"vector": [0.0] * 384},
        {"history": [SECRET]},
        {"query": SECRET, "k": 0},
        {SECRET: SECRET},
        [SECRET],
    ):
        client.post("/v1/recommend", json=asked)
    client.post("/v1/recommend", content=f'{{"query": "{SECRET}')
    client.get(f"/v1/items/{SECRET}/similar")
    client.get(f"/{SECRET}")


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_a_stop_is_graceful_and_nothing_of_a_request_was_printed(
    run: Path, tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    """A server prints its address, and of each request its route, status and time; it ends as one that was told to."""
    with serving(run, tmp_path / "log") as server, httpx.Client(base_url=server.url, timeout=60) as client:
        ask_everything(client)
        server.process.send_signal(sent)
        assert server.process.wait(60) == status
    address, *lines = server.log.read_text().splitlines()
    assert address.endswith("(API at /docs, Ctrl-C stops)")
    assert len(lines) > 10
    for line in map(json.loads, lines):
        assert line.keys() == {"timestamp", "levelname", "name", "message", "route", "status", "ms"}
        assert line["route"] in {"/v1/recommend", "/v1/items/{item_id}/similar", "(none)"}
    assert SECRET not in server.log.read_text()


# The endpoint while it loads.


def ask_whatever_needs_a_model(client: httpx.Client) -> list[httpx.Response]:
    return [
        client.get("/readyz"),
        client.post("/v1/recommend", json={"query": SECRET}),
        client.get("/v1/items/film-soup/similar"),
    ]


def test_alive_at_once_and_ready_when_loaded(recommender: Recommender) -> None:
    may_load = Event()

    def load() -> Recommender:
        may_load.wait()
        return recommender

    with running(create_app(load)) as client:
        try:
            assert client.get("/healthz").status_code == 200
            for response in ask_whatever_needs_a_model(client):
                is_problem(response, 503, None)
                assert response.json()["detail"] == "the model is loading"
        finally:
            may_load.set()
        until_ready(client)
        assert [response.status_code for response in ask_whatever_needs_a_model(client)] == [200, 200, 200]


def _missing() -> Recommender:
    raise InputError("towers.safetensors is missing")


def _broken() -> Recommender:
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(("load", "reason"), [(_missing, "towers.safetensors is missing"), (_broken, "out of memory")])
def test_never_ready_where_loading_failed(load: Callable[[], Recommender], reason: str) -> None:
    with running(create_app(load)) as client:
        while client.get("/readyz").json()["detail"] == "the model is loading":
            time.sleep(0.01)
        for response in ask_whatever_needs_a_model(client):
            is_problem(response, 503, None)
            assert response.json()["detail"] == f"the model could not be loaded: {reason}"
        assert client.get("/healthz").status_code == 200
        with (
            closing(http.client.HTTPConnection(client.base_url.host, client.base_url.port)) as connection,
            pytest.raises(InputError, match=f"could not be loaded: {reason}"),
        ):
            until_ready_to_measure(Caller(connection, {}))
