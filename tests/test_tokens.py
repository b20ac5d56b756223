"""What is kept of a user is read and written with that user's token or an admin key, and by nobody else."""

import base64
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest

from fedrec.client import Client, ProblemError
from fedrec.recsys.recommender import Recommender
from fedrec.serving.http.app import create_app
from fedrec.serving.schema import Feedback, Question
from fedrec.serving.settings import Settings
from tests.support.endpoint import WATCHED, is_problem, ready

READ, ADMIN = "a-key-to-read-0123456789", "a-key-to-change-9876543210"
SECRET = "a secret that the backend and the endpoint share"
ANN, BOB = "ann", "bob"


def app_of(run: Any, **settings: Any) -> Any:
    recommender = Recommender.load(run)
    asked = {"admin_keys": [ADMIN], "token_secret": SECRET} | settings
    return create_app(lambda: recommender, Settings.model_validate(asked))


def signed(user: str = ANN, secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token as an application's backend makes it, by any library."""
    given = {"sub": user, "aud": "fedrec", "exp": int(time.time()) + 86_400} | claims
    return jwt.encode({name: value for name, value in given.items() if value is not None}, secret, algorithm)


def like(user: str, item_id: str = WATCHED[0]) -> dict[str, Any]:
    return {"user": user, "item_id": item_id, "kind": "like", "consent": True}


def about(user: str) -> list[tuple[str, str, Any]]:
    """All requests that read or write what is kept of a user."""
    question = {"user": user, "explain": True, "k": 1000}
    return [
        ("POST", "/v1/feedback", like(user)),
        ("POST", "/v1/recommend", question),
        ("POST", "/v1/recommend", question | {"query": "x", "exclude_seen": False}),
        ("POST", "/v1/recommend:batch", {"questions": [{"query": "x"}, question]}),
        ("GET", f"/v1/users/{user}", None),
        ("DELETE", f"/v1/users/{user}", None),
    ]


@pytest.fixture(scope="module")
def url(run: Any) -> Iterator[str]:
    with ready(app_of(run)) as client:
        client.post("/v1/feedback", json=like(BOB), headers={"x-api-key": ADMIN}).raise_for_status()
        yield str(client.base_url)


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url) as http:
        yield http


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "x-user-token"])
def test_a_user_reads_writes_and_erases_its_own(http: httpx.Client, scheme: str) -> None:
    token = signed()
    headers = {scheme: token} if scheme == "x-user-token" else {"authorization": f"{scheme} {token}"}
    for method, path, body in about(ANN):
        http.request(method, path, json=body, headers=headers).raise_for_status()
    assert http.get("/v1/users/ann", headers=headers).json() == {"user": ANN, "feedback": []}


def test_another_users_token_is_refused_whether_or_not_anything_is_kept(http: httpx.Client) -> None:
    for user in (BOB, "nobody"):
        answers = [
            http.request(method, path, json=body, headers={"x-user-token": signed(ANN)})
            for method, path, body in about(user)
        ]
        for answer in answers:
            is_problem(answer, 403, None)
        assert {answer.json()["detail"] for answer in answers} == {"this token is of another user"}


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (None, "needs that user's token"),
        ("", "needs that user's token"),
        ("no.token.at-all", "not signed for this server"),
        (base64.urlsafe_b64encode(b"[" * 20_000).decode() + ".e30.x", "not signed for this server"),
        ("é", "not signed for this server"),
        (signed(BOB, secret="another secret, and as long as the right one"), "not signed for this server"),
        (signed(BOB, exp=int(time.time()) - 60), "has expired"),
        (signed(BOB, exp=None), "not signed for this server"),
        (signed(BOB, aud=None), "not signed for this server"),
        (signed(BOB, aud="shop"), "not signed for this server"),
        (signed(BOB, sub=None), "not signed for this server"),
        (signed(BOB, secret="s" * 64, algorithm="HS512"), "not signed for this server"),
        (jwt.encode({"sub": BOB, "aud": "fedrec", "exp": 2**40}, "", algorithm="none"), "not signed for this server"),
    ],
)
def test_without_a_good_token_nothing_of_a_user_is_told_or_changed(
    http: httpx.Client, token: str | None, why: str
) -> None:
    headers = {} if token is None else {b"x-user-token": token.encode()}
    for user in (BOB, "nobody"):
        for method, path, body in about(user):
            answer = http.request(method, path, json=body, headers=headers)
            is_problem(answer, 401, None)
            assert why in answer.json()["detail"]
            assert answer.headers["www-authenticate"] == "Bearer"
    kept = http.get("/v1/users/bob", headers={"x-api-key": ADMIN}).json()["feedback"]
    assert [entry["item_id"] for entry in kept] == [WATCHED[0]]


def test_a_key_to_read_is_no_key_to_a_user_and_a_token_is_enough_to_ask(run: Any) -> None:
    with ready(app_of(run, read_keys=[READ]), READ) as reader, httpx.Client(base_url=reader.base_url) as http:
        for method, path, body in about(BOB):
            is_problem(reader.request(method, path, json=body), 401, None)
        assert http.post("/v1/recommend", json={"query": "x"}).status_code == 401
        http.headers["authorization"] = f"Bearer {signed()}"
        assert http.post("/v1/recommend", json={"query": "x"}).status_code == 200
        for method, path, body in about(ANN):
            http.request(method, path, json=body).raise_for_status()
        for method, path in [("PUT", "/v1/items/a"), ("GET", "/v1/users"), ("POST", "/v1/users/ann/token")]:
            is_problem(http.request(method, path, json={"title": "x"}), 403, None)
        http.headers["authorization"] = f"Bearer {signed(exp=1)}"
        refused = http.post("/v1/recommend", json={"query": "x"})
        is_problem(refused, 401, None)
        assert "has expired" in refused.json()["detail"]


def test_an_administrator_makes_tokens_and_acts_for_everybody(url: str) -> None:
    with Client(url, ADMIN) as admin:
        made = admin.token("cy/token", seconds=60)
        claims = jwt.decode(made.token, SECRET, ["HS256"], audience="fedrec")
        assert (claims["sub"], made.user) == ("cy/token", "cy/token")
        assert 50 <= claims["exp"] - time.time() <= 60
        with Client(url, token=made.token) as user:
            kept = user.feedback(Feedback(user="cy/token", item_id=WATCHED[0], kind="like", consent=True))
            assert user.user("cy/token").feedback == admin.user("cy/token").feedback == [kept]
            (answer,) = user.recommend_batch([Question(user="cy/token")])
            assert answer.items == admin.recommend(user="cy/token").items
            with pytest.raises(ProblemError, match="403"):
                user.token("cy/token")
            user.erase_user("cy/token")
        assert admin.user("cy/token").feedback == []


def test_without_a_secret_there_are_no_tokens(run: Any) -> None:
    with ready(app_of(run, token_secret=None)) as http:
        is_problem(http.post("/v1/users/ann/token", headers={"x-api-key": ADMIN}), 404, None)
        for method, path, body in about(ANN):
            is_problem(http.request(method, path, json=body, headers={"x-user-token": signed()}), 401, None)
        http.headers["x-api-key"] = ADMIN
        for method, path, body in about(ANN):
            http.request(method, path, json=body).raise_for_status()


def test_the_openapi_tells_where_keys_and_tokens_go(http: httpx.Client) -> None:
    told = http.get("/openapi.json").json()
    schemes = told["components"]["securitySchemes"]
    assert schemes["key"] | {"description": ""} == {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "",
    }
    for path, method in [("/v1/users/{user}", "get"), ("/v1/users/{user}", "delete"), ("/v1/feedback", "post")]:
        assert told["paths"][path][method]["security"] == [{"user token": []}, {"admin key": []}]
    assert {name for need in told["security"] for name in need} <= set(schemes)
