"""The Python client against a real endpoint: every call, and what a refusal looks like."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fedrec.client import Client, ProblemError
from fedrec.recsys.recommender import Recommender
from fedrec.serving.http.app import create_app
from fedrec.serving.schema import Feedback, Question
from fedrec.serving.settings import Settings
from tests.support.endpoint import WATCHED, ready

ADMIN = "a-key-to-change-9876543210"


@pytest.fixture(scope="module")
def client(run: Path) -> Iterator[Client]:
    recommender = Recommender.load(run)
    app = create_app(lambda: recommender, Settings.model_validate({"admin_keys": [ADMIN]}))
    with ready(app, ADMIN) as http, Client(str(http.base_url), ADMIN) as client:
        yield client


def test_asking(client: Client) -> None:
    answer = client.recommend(history=WATCHED, k=3, explain=True, details=True)
    assert len(answer.items) == 3
    assert answer.items[0].because
    assert answer.items[0].columns
    assert answer.items[0].columns["genres"] == "Cooking"
    questions = [Question(history=WATCHED, k=3), Question(query="a rocket")]
    one, two = client.recommend_batch(questions)
    assert [item.item_id for item in one.items] == [item.item_id for item in answer.items]
    assert [item.item_id for item in two.items] == [item.item_id for item in client.recommend(questions[1]).items]
    assert client.search("the soup", k=1).items[0].item_id == "film-soup"
    assert len(client.similar("film-soup", k=4).items) == 4
    assert client.item("film-soup").columns == {"year": 1991, "genres": "Cooking"}
    (model,) = client.models()
    assert model.model_version == client.ready().model_version == answer.model_version


def test_changing_and_remembering(client: Client) -> None:
    put = client.put_item("odd/id?#%", "The lander", "A spaceship lands on the moon.", year=2026)
    assert client.item("odd/id?#%") == put
    assert client.similar("odd/id?#%", k=1).items
    kept = client.feedback(Feedback(user="u/1", item_id="odd/id?#%", kind="like", consent=True))
    assert client.user("u/1").feedback == [kept]
    assert client.recommend(user="u/1").items
    client.erase_user("u/1")
    assert client.user("u/1").feedback == []
    client.drop_item("odd/id?#%")
    assert client.reload().items == 24


def test_a_refusal_tells_the_field(client: Client) -> None:
    with pytest.raises(ProblemError, match=r"404 Not Found: item_id") as refusal:
        client.item("gone")
    assert [fault.field for fault in refusal.value.problem.errors] == ["item_id"]
    with pytest.raises(ProblemError, match="401 Unauthorized"), Client(str(client._http.base_url), "é") as stranger:
        stranger.user("u")
    with pytest.raises(httpx.ConnectError), Client("http://127.0.0.1:9") as nobody:
        nobody.ready()
