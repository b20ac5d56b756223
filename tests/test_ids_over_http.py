"""An id that comes in anywhere is asked for, answered, exported and erased everywhere, and never in another's place."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fedrec.client import Client, ProblemError
from fedrec.data.ids import LONGEST_ID, id_fault
from fedrec.recsys.recommender import Recommender
from fedrec.serving.http.app import create_app
from fedrec.serving.schema import Feedback
from fedrec.serving.settings import Settings
from tests.support.cli import Fedrec
from tests.support.endpoint import FIRST_STORE, is_problem, ready

ADMIN = "a-key-to-change-9876543210"
ODD = [
    "a/b",
    "p1/similar",
    "similar",
    "/similar",
    "u/token",
    "a//b",
    "a%2Fb",
    "a?b#c&d",
    " a ",
    "a,b",
    "…",
    "😀",
    "...",
    "ü",
]


@pytest.fixture(scope="module")
def recommender(run: Path) -> Recommender:
    return Recommender.load(run)


@pytest.fixture(scope="module")
def http(recommender: Recommender) -> Iterator[httpx.Client]:
    app = create_app(lambda: recommender, Settings.model_validate({"admin_keys": [ADMIN]}))
    with ready(app, ADMIN) as http:
        yield http


@pytest.fixture(scope="module")
def client(http: httpx.Client) -> Iterator[Client]:
    with Client(str(http.base_url), ADMIN) as client:
        yield client


def twins(text: str) -> list[str]:
    """Ids that a careless way through a URL would take for this one."""
    others = [
        f"{text}/similar",
        f"{text}/token",
        f"{text}/",
        f"/{text}",
        quote(text, safe=""),
        text.strip(),
        f" {text}",
    ]
    return [other for other in dict.fromkeys(others) if other != text and id_fault(other) is None]


def accepted() -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(lambda text: id_fault(text) is None)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(accepted())
@example("p1/similar")
@example("a%2Fb/token/")
@example("/")
@example("ü" * LONGEST_ID)
def test_an_accepted_user_is_remembered_exported_and_erased_and_its_twins_are_not(client: Client, user: str) -> None:
    everybody = [user, *twins(user)]
    for each in everybody:
        client.feedback(Feedback(user=each, item_id="film-soup", kind="like", consent=True))
    kept = {told.user: told.entries for told in client.users(k=1000)}
    assert kept == dict.fromkeys(everybody, 1)
    assert client.recommend(user=user, k=1).items
    client.erase_user(user)
    assert client.user(user).feedback == []
    for twin in twins(user):
        assert [(kept.user, kept.item_id) for kept in client.user(twin).feedback] == [(twin, "film-soup")]
        client.erase_user(twin)
    assert client.users() == []


@pytest.mark.parametrize("item_id", ODD)
def test_an_accepted_item_is_asked_for_answered_and_dropped_and_its_twins_are_not(client: Client, item_id: str) -> None:
    twin = f"{item_id}/similar"
    for each in (item_id, twin):
        client.put_item(each, f"About {each}", "A spaceship lands on the moon.")
    assert client.item(item_id).title == f"About {item_id}"
    assert client.item(twin).title == f"About {twin}"
    assert item_id in [item.item_id for item in client.similar(twin, k=3).items]
    assert client.recommend(history=[item_id], k=1).unknown_ids == []
    assert client.recommend(query="moon", include=[item_id]).items[0].item_id == item_id
    kept = client.feedback(Feedback(user="u", item_id=item_id, kind="like", consent=True))
    assert kept.item_id == item_id
    client.erase_user("u")
    client.drop_item(item_id)
    with pytest.raises(ProblemError, match="404"):
        client.item(item_id)
    assert client.item(twin).item_id == twin
    client.drop_item(twin)


def test_slashes_may_be_sent_as_slashes_but_before_a_word_of_the_api(http: httpx.Client) -> None:
    for path in ("a/b", "a/b%2Fsimilar"):
        http.put(f"/v1/items/{path}", json={"title": path}).raise_for_status()
    assert http.get("/v1/items/a/b").json()["item_id"] == "a/b"
    assert http.get("/v1/items/a%2Fb%2Fsimilar").json()["item_id"] == "a/b/similar"
    near = http.get("/v1/items/a/b/similar").json()["items"]
    assert near == http.get("/v1/items/a%2Fb/similar").json()["items"]
    assert len(near) == 10
    assert http.delete("/v1/items/a/b/similar").status_code == http.delete("/v1/items/a/b").status_code == 204


@pytest.mark.parametrize("sent", ["ann%0A", "b%0Aob", "%00", "%E2%80%A8", "%2E", "%2E%2E", "x" * 513])
def test_what_is_no_id_comes_in_nowhere(http: httpx.Client, sent: str) -> None:
    text = httpx.URL(f"http://x/?id={sent}").params["id"]
    told = {"user": "ann", "item_id": "film-soup", "kind": "like", "consent": True}
    http.post("/v1/feedback", json=told).raise_for_status()
    is_problem(http.post("/v1/feedback", json=told | {"user": text}), 422, "user")
    is_problem(http.post("/v1/feedback", json=told | {"item_id": text}), 422, "item_id")
    is_problem(http.post("/v1/recommend", json={"user": text}), 422, "user")
    for field in ("history", "exclude", "include"):
        asked = {"query": "x", "history": [], field: [text]}
        is_problem(http.post("/v1/recommend", json=asked), 422, f"{field}.0")
    is_problem(http.put(f"/v1/items/{sent}", json={"title": "x"}), 422, "item_id")
    for method, path in [
        ("GET", f"/v1/items/{sent}"),
        ("GET", f"/v1/items/{sent}/similar"),
        ("DELETE", f"/v1/items/{sent}"),
    ]:
        is_problem(http.request(method, path), 422, "item_id")
    for method in ("GET", "DELETE"):
        is_problem(http.request(method, f"/v1/users/{sent}"), 422, "user")
    assert len(http.get("/v1/users/ann").json()["feedback"]) == 1
    http.delete("/v1/users/ann").raise_for_status()


@pytest.mark.parametrize("sent", ["%FF", "a%ED%A0%80", "%C3", "ann%80"])
def test_bytes_that_are_no_text_are_no_other_id(http: httpx.Client, sent: str) -> None:
    http.put("/v1/items/%EF%BF%BD", json={"title": "The replacement character"}).raise_for_status()
    for method, path in [
        ("GET", "items"),
        ("DELETE", "items"),
        ("PUT", "items"),
        ("GET", "users"),
        ("DELETE", "users"),
    ]:
        field = "item_id" if path == "items" else "user"
        is_problem(http.request(method, f"/v1/{path}/{sent}", json={"title": "x"}), 422, field)
    http.delete("/v1/items/%EF%BF%BD").raise_for_status()


@pytest.mark.parametrize(
    "path", ["/v1%2Fitems/film-soup", "/v1/items%2Ffilm-soup", "/v1/models%0A", "/v1/%69tems/a%2541"]
)
def test_a_path_leads_nowhere_if_its_own_slashes_or_words_are_encoded(http: httpx.Client, path: str) -> None:
    is_problem(http.get(path), 404, None)


def test_ids_that_an_older_version_took_in_are_seen_and_erased(recommender: Recommender, tmp_path: Path) -> None:
    store, old = tmp_path / "store.db", ["ann", "ann\n", "b\nob", "..", "x" * 600]
    with closing(sqlite3.connect(store)) as db:
        db.executescript(FIRST_STORE)
        insert = (
            "INSERT INTO feedback (user, item_id, kind, request_id, at) VALUES (?, 'film-soup', 'like', '', '2020')"
        )
        db.executemany(insert, [(user,) for user in old])
        db.execute("""INSERT INTO items VALUES ('p\n', '{"item_id": "p\\n", "title": "Old", "text": "Old"}')""")
        db.commit()
    app = create_app(lambda: recommender, Settings.model_validate({"admin_keys": [ADMIN], "store": store}))
    with ready(app, ADMIN) as http, Client(str(http.base_url), ADMIN) as client:
        assert [told.user for told in client.users()] == sorted(old)
        assert [told.user for told in client.users(after="ann", k=2)] == ["ann\n", "b\nob"]
        assert client.item("p\n").title == "Old"
        client.drop_item("p\n")
        for user in old[1:]:
            assert [kept.user for kept in client.user(user).feedback] == [user]
            client.erase_user(user)
        assert [told.user for told in client.users()] == ["ann"]


def test_the_command_line_takes_ids_with_commas_and_blanks(fedrec: Fedrec, run: Path) -> None:
    ids = ["film-soup", "a,b", " c "]
    asked = [word for item_id in ids for word in ("--item", item_id)]
    answer = fedrec("recommend", run, *asked, "-k", "3", "--json").answer
    assert answer["unknown_ids"] == ["a,b", " c "]
    by_commas = fedrec("recommend", run, "--history", "film-soup, lost ,", "-k", "3", "--json").answer
    assert by_commas["unknown_ids"] == ["lost"]
    assert [item["item_id"] for item in answer["items"]] == [item["item_id"] for item in by_commas["items"]]
