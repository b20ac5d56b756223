"""What the endpoint lets in, and how much of it: costs, addresses, names, keys, and what no caller may bring about."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fedrec.data.errors import InputError
from fedrec.recsys.recommender import Recommender
from fedrec.serving.http.app import create_app
from fedrec.serving.settings import Settings
from tests.support.endpoint import SECRET, WATCHED, is_problem, ready

READ, ADMIN = "a-key-to-read-0123456789", "a-key-to-change-9876543210"
SIMILAR = "/v1/items/film-soup/similar"


@pytest.fixture(scope="module")
def recommender(run: Path) -> Recommender:
    return Recommender.load(run)


@pytest.fixture(scope="module")
def app_of(recommender: Recommender) -> Callable[..., FastAPI]:
    def made(**settings: Any) -> FastAPI:
        return create_app(lambda: recommender, Settings.model_validate({"admin_keys": [ADMIN]} | settings))

    return made


@pytest.fixture(scope="module")
def plain(app_of: "App") -> Iterator[httpx.Client]:
    """An endpoint with the default settings."""
    with ready(app_of()) as http:
        yield http


App = Callable[..., FastAPI]


# What a request costs.


def test_a_batch_counts_as_its_questions(app_of: App) -> None:
    batch = {"questions": [{"query": "x"}] * 10}
    with ready(app_of(rate_per_minute=15)) as http:
        assert http.post("/v1/recommend:batch", json=batch).status_code == 200
        refused = http.post("/v1/recommend:batch", json=batch)
        is_problem(refused, 429, None)
        assert refused.headers["retry-after"] == "60"
        left = [http.post("/v1/recommend", json={"query": "x"}).status_code for _ in range(5)]
        assert left == [200] * 4 + [429]  # 10 of the batch, 1 of the one refused, and so 4


@pytest.mark.parametrize("asked", [{"query": "x", "k": 1000}, {"history": WATCHED[:5], "explain": True}])
def test_a_question_counts_as_what_it_costs(app_of: App, asked: dict[str, Any]) -> None:
    """Each of these is worth two plain ones."""
    with ready(app_of(rate_per_minute=5)) as http:
        assert [http.post("/v1/recommend", json=asked).status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("path", [f"{SIMILAR}?k=1000", "/v1/search?q=soup&k=1000"])
def test_a_long_list_counts_as_what_it_costs(app_of: App, path: str) -> None:
    with ready(app_of(rate_per_minute=5)) as http:
        assert [http.get(path).status_code for _ in range(3)] == [200, 200, 429]


def test_what_costs_more_than_a_minute_has_is_told_so(app_of: App) -> None:
    with ready(app_of(rate_per_minute=50)) as http:
        refused = http.post("/v1/recommend:batch", json={"questions": [{"query": "x"}] * 100})
        is_problem(refused, 429, None)
        assert "counts as 100 plain questions" in refused.json()["detail"]


# Whose address counts.


def test_a_forwarded_address_is_believed_of_trusted_proxies_alone(app_of: App) -> None:
    def asked(http: httpx.Client, *forwarded: str) -> list[int]:
        return [http.get(SIMILAR, headers={"x-forwarded-for": each}).status_code for each in forwarded]

    with ready(app_of(rate_per_minute=2)) as http:
        assert asked(http, "203.0.113.1", "203.0.113.2", "203.0.113.3") == [200, 200, 429]
    with ready(app_of(rate_per_minute=2, trusted_proxies=["10.0.0.0/8"])) as http:
        assert asked(http, "203.0.113.1", "203.0.113.2", "203.0.113.3") == [200, 200, 429]
    with ready(app_of(rate_per_minute=2, trusted_proxies=["127.0.0.1", "10.0.0.0/8"])) as http:
        assert asked(http, "203.0.113.1", "203.0.113.1", "203.0.113.2") == [200, 200, 200]
        made_up = [f"198.51.100.{n}, 203.0.113.1, 10.1.2.3" for n in range(2)]
        assert asked(http, *made_up) == [429, 429]  # the last hop that no proxy of ours vouches for


# By which names.


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "[::1]:8080", "localhost."]
)
def test_on_loopback_this_machine_has_its_own_names(plain: httpx.Client, host: str) -> None:
    assert plain.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8080", "[::1", "a b"]
)
def test_on_loopback_no_page_from_elsewhere_reads_answers_under_its_own_name(plain: httpx.Client, host: str) -> None:
    for path in ("/", "/v1/models", "/metrics", "/openapi.json", "/static/page.js"):
        is_problem(plain.get(path, headers={"host": host}), 421, None)
    assert plain.get("/healthz", headers={"host": host}).status_code == 200


def test_names_can_be_given_and_elsewhere_all_will_do(app_of: App) -> None:
    def statuses(http: httpx.Client) -> list[int]:
        hosts = ("shop.example", "a.shop.example", "shop.example.evil", "localhost")
        return [http.get("/v1/models", headers={"host": host}).status_code for host in hosts]

    with ready(app_of(allowed_hosts=["Shop.example", "*.shop.example"])) as http:
        assert statuses(http) == [200, 200, 421, 421]
    with ready(app_of(host="0.0.0.0")) as http:
        assert statuses(http) == [200] * 4


# Keys.


@pytest.mark.parametrize("sent", [b"\xe9" * 20, "ключ".encode(), READ.encode() + b"\xff", b"\x80"])
def test_a_key_of_any_bytes_is_no_key(app_of: App, sent: bytes) -> None:
    with ready(app_of(read_keys=[READ], token_secret="s" * 32)) as http:
        for name, value in ((b"x-api-key", sent), (b"authorization", b"Bearer " + sent), (b"x-user-token", sent)):
            is_problem(http.get("/v1/models", headers={name: value}), 401, None)


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("admin_keys", '["ключ-ключ-ключ-ключ"]', "printable ASCII"),
        ("read_keys", '["a key with blanks in it"]', "printable ASCII"),
        ("read_keys", '["short"]', "16"),
        ("token_secret", '"short"', "32 bytes"),
        ("trusted_proxies", '["proxy.example"]', "network"),
        ("receive_limit", "0", "greater than 0"),
    ],
)
def test_a_setting_that_could_not_work_is_refused_without_its_value(
    tmp_path: Path, setting: str, value: str, why: str
) -> None:
    (tmp_path / "settings.toml").write_text(f"{setting} = {value}\n")
    with pytest.raises(InputError, match=why) as refused:
        Settings.read(tmp_path / "settings.toml", {})
    assert f"setting {setting}" in str(refused.value)
    assert value.strip('[]"') not in str(refused.value) or setting == "receive_limit"


def test_scrapers_send_a_key_as_a_bearer(app_of: App) -> None:
    with ready(app_of(read_keys=[READ])) as http:
        for key, status in ((READ, 200), (ADMIN, 200), (READ[:-1], 401)):
            assert http.get("/metrics", headers={"authorization": f"Bearer {key}"}).status_code == status
        assert http.get("/metrics", headers={"authorization": f"Basic {READ}"}).status_code == 401
        both = {"authorization": f"Bearer {ADMIN}", "x-api-key": "not-a-key"}
        assert http.get("/v1/users", headers=both).status_code == 200


# Whatever GET answers.


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/models", SIMILAR, "/v1/items/film-soup", "/"])
def test_head_answers_as_get_does_without_a_body(plain: httpx.Client, path: str) -> None:
    head, get = plain.head(path), plain.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"") == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


# What is wrong, in short.


def many_unknown() -> dict[str, Any]:
    return {f"{SECRET}-{n}": n for n in range(50_000)}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/recommend", {"query": "x"} | many_unknown()),
        ("/v1/recommend:batch", {"questions": [{"query": "x"} | many_unknown()]}),
        ("/v1/recommend", {"query": "x", SECRET * 100_000: 1}),
        ("/v1/recommend", {"query": "x", "filters": {SECRET * 100_000: 1}}),
        ("/v1/recommend", {"query": "x", "exclude": [""] * 10_000}),
        ("/v1/feedback", many_unknown()),
    ],
)
def test_however_much_is_wrong_the_answer_is_short(plain: httpx.Client, path: str, body: dict[str, Any]) -> None:
    refused = plain.post(path, json=body)
    assert refused.status_code == 422
    assert len(refused.content) < 5_000
    told = refused.json()
    assert 1 <= len(told["errors"]) <= 10
    assert all(len(fault["field"]) <= 100 for fault in told["errors"])


def test_how_many_more_faults_there_are_is_told(plain: httpx.Client) -> None:
    refused = plain.post("/v1/recommend", json={"query": "x", "exclude": [""] * 13})
    assert refused.json()["detail"].endswith("; and 10 more")


# The store.


def like(item_id: str) -> dict[str, Any]:
    return {"user": "ann", "item_id": item_id, "kind": "like", "consent": True}


def test_a_locked_store_is_told_and_nobody_else_waits(
    app_of: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedrec.serving.database.LOCK_TIMEOUT", 0.05)
    store = tmp_path / "store.db"
    with ready(app_of(store=store), ADMIN) as http, closing(sqlite3.connect(store)) as other:
        http.post("/v1/feedback", json=like(WATCHED[0])).raise_for_status()
        other.execute("BEGIN IMMEDIATE")
        for method, path, body in [
            ("POST", "/v1/feedback", like(WATCHED[1])),
            ("DELETE", "/v1/users/ann", None),
            ("PUT", "/v1/items/new", {"title": "x"}),
            ("DELETE", "/v1/items/film-soup", None),
        ]:
            refused = http.request(method, path, json=body)
            is_problem(refused, 503, None)
            assert refused.headers["retry-after"] == "5"
        other.rollback()
        assert [entry["item_id"] for entry in http.get("/v1/users/ann").json()["feedback"]] == [WATCHED[0]]
        assert http.get("/v1/items/new").status_code == 404
        assert http.get("/v1/items/film-soup").status_code == 200
        assert http.post("/v1/feedback", json=like(WATCHED[1])).status_code == 201


def test_a_full_store_is_told_and_goes_on_when_there_is_room(app_of: App, tmp_path: Path) -> None:
    """SQLite reports a file that may not grow as it does a full disk."""
    app = app_of(store=tmp_path / "store.db")
    with ready(app, ADMIN) as http:
        database = app.state.services.manager.store.database
        with database.reading() as db:
            pages = db.exec_driver_sql("PRAGMA page_count").scalar()
            db.exec_driver_sql(f"PRAGMA max_page_count = {pages}").one()
        new = {"title": "x", "text": "y" * 20_000}
        refused = http.put("/v1/items/new", json=new)
        is_problem(refused, 503, None)
        assert "full" in refused.json()["detail"]
        assert http.get("/v1/items/new").status_code == 404
        assert http.post("/v1/feedback", json=like(WATCHED[0])).status_code == 201
        with database.reading() as db:
            db.exec_driver_sql("PRAGMA max_page_count = 1000000").one()
        assert http.put("/v1/items/new", json=new).status_code == 200
