"""Recommending on the device: the same items as from the history, and nothing but a vector leaves."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import Request, Response
from pydantic import SecretStr
from starlette.middleware.base import RequestResponseEndpoint

from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.node_folders import partition_dataset
from fedrec.data.partition import partition_evenly
from fedrec.data.shard import Shard
from fedrec.data.user_ids import load_user_ids
from fedrec.recsys.recommender import Recommender
from fedrec.serving.engine import Engine
from fedrec.serving.http.app import create_app
from fedrec.serving.schema import MAX_K, Question
from fedrec.serving.settings import Settings
from tests.support.cli import Fedrec, is_refused
from tests.support.endpoint import running, until_ready
from tests.support.toy_world import write_toy


@pytest.fixture(scope="module")
def node(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second of three nodes."""
    return partition_dataset(Dataset.open(toy), tmp_path_factory.mktemp("split") / "out", partition_evenly(12, 3))[1]


def had(node: Path, user: str) -> list[str]:
    """All that a user has had, oldest first."""
    ids = Catalogue.load(node).ids
    return [ids[row] for row in Shard.load(node).full_history(load_user_ids(node).to_list().index(user))]


def test_a_user_of_a_node_gets_what_the_history_gets(run: Path, node: Path, fedrec: Fedrec) -> None:
    history = had(node, "person-07")
    asked = Question(history=history, k=5)
    expected = [item.item_id for item in Engine.from_recommender(Recommender.load(run)).recommend(asked).items]
    answer = fedrec("recommend", run, "--shard", node, "--user", "person-07", "-k", 5, "--json").answer
    assert [item["item_id"] for item in answer["items"]] == expected
    assert not set(expected) & set(history)


@pytest.fixture
def endpoint(run: Path) -> Iterator[tuple[str, list[bytes]]]:
    """A real one, and the bodies that it was sent."""
    app, bodies = create_app(lambda: Recommender.load(run)), []

    @app.middleware("http")
    async def keep(request: Request, call_next: RequestResponseEndpoint) -> Response:
        bodies.append(await request.body())
        return await call_next(request)

    with running(app) as client:
        until_ready(client)
        bodies.clear()
        yield str(client.base_url), bodies


def test_the_endpoint_is_told_a_vector_and_nothing_else(
    run: Path, node: Path, fedrec: Fedrec, endpoint: tuple[str, list[bytes]]
) -> None:
    url, bodies = endpoint
    asked = ["recommend", run, "--shard", node, "--user", "person-04", "-k", 4, "--json"]
    here, there = fedrec(*asked).answer, fedrec(*asked, "--endpoint", url).answer
    assert [item["item_id"] for item in there["items"]] == [item["item_id"] for item in here["items"]]
    assert len(there["items"]) == 4
    (body,) = bodies
    assert json.loads(body).keys() == {"vector", "k", "offset"}
    assert json.loads(body)["k"] == MAX_K  # whoever asks, so that it tells nothing of the history
    assert len(json.loads(body)["vector"]) == 384
    assert not [item for item in (*had(node, "person-04"), "person-04") if item.encode() in body]


def test_who_has_had_more_than_a_page_still_gets_the_rest(
    run: Path, node: Path, fedrec: Fedrec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["recommend", run, "--shard", node, "--user", "person-07", "-k", 5, "--json"]
    whole = fedrec(*asked).answer["items"]
    monkeypatch.setattr("fedrec.on_device.MAX_K", 3)
    assert fedrec(*asked).answer["items"] == whole


def test_an_endpoint_with_keys_is_asked_with_one(
    run: Path, node: Path, fedrec: Fedrec, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(lambda: Recommender.load(run), Settings(read_keys=(SecretStr("a-key-for-reading"),)))
    with running(app) as client:
        until_ready(client)
        asked = ["recommend", run, "--shard", node, "--user", "person-04", "-k", 4, "--endpoint", client.base_url]
        is_refused(fedrec(*asked), "401", "FEDREC_API_KEY")
        assert len(fedrec(*asked, "--json", "--api-key", "a-key-for-reading").answer["items"]) == 4
        monkeypatch.setenv("FEDREC_API_KEY", "a-key-for-reading")
        assert len(fedrec(*asked, "--json").answer["items"]) == 4


def test_what_cannot_be_recommended_on_the_device_is_refused(
    run: Path, node: Path, fedrec: Fedrec, tmp_path: Path
) -> None:
    asked = ["recommend", run, "--shard", node]
    is_refused(fedrec(*asked), "--shard goes with --user")
    is_refused(fedrec(*asked, "--user", "person-01", "--query", "x"), "none of --history, --item and --query")
    is_refused(fedrec("recommend", run, "--user", "person-01"), "--user goes with --shard")
    is_refused(fedrec(*asked, "--user", "person-00"), "user 'person-00' is not on this node", "'person-01'")
    known = [*asked, "--user", "person-01", "--endpoint"]
    is_refused(fedrec(*known, "example.org"), "--endpoint example.org", "give a URL")
    is_refused(fedrec(*known, "http://127.0.0.1:9"), "cannot be reached", "rank here")
    is_refused(fedrec("recommend", run, "--shard", tmp_path, "--user", "a"), "catalogue.parquet is missing")


def test_a_node_of_other_items_is_refused(run: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    folder = write_toy(tmp_path / "other")
    catalogue = Catalogue.load(folder)
    Catalogue(catalogue.frame.reverse()).save(folder)
    is_refused(fedrec("recommend", run, "--shard", folder, "--user", "person-01"), "prepared with other items")
