"""An index in Qdrant or pgvector gives the answers of the one in memory; its versions; what is said if it is away."""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from fedrec.data.errors import InputError
from fedrec.recsys.recommender import Recommender
from fedrec.serving.http.app import create_app
from fedrec.serving.index import external_search, vector_index
from fedrec.serving.index.address import IndexAddress
from fedrec.serving.index.external_index import ExternalIndexes, key_of, open_service
from fedrec.serving.index.external_search import ExternalSearch, named_rows, tuner
from fedrec.serving.index.inverted_file import RECALL_AT, RECALL_TARGET, mean_questions
from fedrec.serving.index.vector_index import Index, SearchRequest
from fedrec.serving.index.vector_service import KEPT, Hits, IndexAwayError, IndexKey, Rows, Tuning, VectorService
from fedrec.serving.settings import Settings
from tests.support.cli import Fedrec, is_refused
from tests.support.endpoint import WATCHED, is_problem, ready
from tests.support.postgresql import PASSWORD, find_programs_with_vectors, postgresql

WIDTH, ABANDONED = 6, 24 * 3600 * 10**9


@pytest.fixture(scope="module")
def pgvector_url() -> Iterator[str]:
    """A throw-away PostgreSQL with pgvector."""
    for package in ("psycopg_pool", "pgvector"):
        pytest.importorskip(package, reason="the extra `pgvector` is not installed")
    with postgresql(find_programs_with_vectors()) as url:
        yield url.replace("+psycopg", "")


@pytest.fixture(params=["qdrant", "pgvector"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], VectorService]]:
    """Open one service, as often as asked; Qdrant in local mode, which is for one client."""
    opened: list[VectorService] = []
    if request.param == "qdrant":
        pytest.importorskip("qdrant_client", reason="the extra `qdrant` is not installed")
        place = f"qdrant:{tmp_path / 'qdrant'}"
    else:
        place = f"pgvector:{request.getfixturevalue('pgvector_url')}"

    def again() -> VectorService:
        if not opened or request.param == "pgvector":
            opened.append(open_service(IndexAddress.parse(place)))
        return opened[-1]

    yield again
    for service in opened:
        service.close()


def items(count: int, seed: int = 0) -> np.ndarray:
    """Make unit vectors of which many are the same."""
    vectors = np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)
    vectors[::3] = vectors[0]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def key_for(matrix: np.ndarray, digest: str = "1", series: str = "fedrec_shop") -> IndexKey:
    return IndexKey(series, digest, *matrix.shape)


def published(service: VectorService, matrix: np.ndarray, digest: str = "1") -> Index:
    key = key_for(matrix, digest)
    tuning = service.publish(key, matrix, tuner(matrix, mean_questions(matrix)))
    return Index.from_base(matrix, ExternalSearch(service, key, matrix, tuning.effort), tuning.recall)


def test_it_answers_as_the_index_in_memory(
    connect: Callable[[], VectorService], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal scores, all kinds of filters, items added and removed, and whatever a request names or does not."""
    monkeypatch.setattr(vector_index, "MAX_GATHERED", 0)
    monkeypatch.setattr(external_search, "MAX_LISTED", 10)
    matrix, rng = items(150), np.random.default_rng(1)
    inside, outside = Index.build(matrix), published(connect(), matrix, "answers")
    few, many, half = np.zeros(150, dtype=bool), np.ones(150, dtype=bool), rng.random(150) < 0.5
    few[rng.choice(150, 8, replace=False)], many[rng.choice(150, 8, replace=False)] = True, False
    assert [[rows is None for rows in named_rows(mask)] for mask in (few, many, half)] == [
        [False, True],
        [True, False],
        [True, True],
    ]
    added = items(4, seed=2)
    lives = [(inside, outside)]
    lives.append((inside.without_rows([0, 3]).with_vectors(added), outside.without_rows([0, 3]).with_vectors(added)))
    for ours, theirs in lives:
        more = np.ones(len(ours.living) - 150, dtype=bool)
        masks = [None, *(np.append(mask, more) for mask in (few, many, half))]
        requests = [SearchRequest(matrix[7], k, mask) for mask in masks for k in (1, 5, 120, 150)]
        for request in requests:
            assert theirs.search(*request) == ours.search(*request)
        assert theirs.search_all(requests) == ours.search_all(requests)
    assert (outside.recall, outside.probes, outside.is_small) == (1.0, None, False)


def test_versions_follow_one_another_and_the_oldest_goes(connect: Callable[[], VectorService]) -> None:
    """The one that is new is there at once and whole; another dataset's stay."""
    service, matrix = connect(), items(12)
    asked = matrix[5], 3, Rows(), 0
    other = key_for(matrix, "1", "fedrec_films")
    service.publish(other, matrix, lambda ask: Tuning(0, 1.0))
    keys = [key_for(matrix, str(number)) for number in range(KEPT + 2)]
    for key in keys:
        assert service.find(key) is None
        with pytest.raises(IndexAwayError):
            service.search(key, *asked)
        assert service.publish(key, matrix, lambda ask: Tuning(200, 0.5)) == Tuning(200, 0.5)
        assert set(service.search(key, *asked)[0]) <= set(range(12))
    assert [service.find(key) is not None for key in keys] == [False, False, *[True] * KEPT]
    assert service.find(other) == Tuning(0, 1.0)
    with pytest.raises(InputError, match="holds 12 vectors of width 6, and the model has 13 of 6; remove it"):
        service.find(replace(keys[-1], items=13))


def test_what_a_killed_process_left_is_removed_a_day_later(tmp_path: Path) -> None:
    qdrant_client = pytest.importorskip("qdrant_client", reason="the extra `qdrant` is not installed")
    sizes = qdrant_client.models.VectorParams(size=WIDTH, distance=qdrant_client.models.Distance.DOT)
    client = qdrant_client.QdrantClient(path=str(tmp_path / "qdrant"))
    now = time.time_ns()
    left = [
        f"fedrec_shop_a_{now - 2 * ABANDONED}",
        f"fedrec_shop_b_{now}",
        f"fedrec_other_a_{now - 2 * ABANDONED}",
        "mine",
    ]
    for name in left:
        client.create_collection(name, vectors_config=sizes)
    client.close()
    service = open_service(IndexAddress.parse(f"qdrant:{tmp_path / 'qdrant'}"))
    service.publish(key_for(items(12)), items(12), lambda ask: Tuning(0, 1.0))
    service.close()
    client = qdrant_client.QdrantClient(path=str(tmp_path / "qdrant"))
    there = {each.name for each in client.get_collections().collections}
    client.close()
    assert set(left) & there == set(left[1:])


def test_what_was_not_finished_is_not_found(connect: Callable[[], VectorService]) -> None:
    service, matrix = connect(), items(12)
    key = key_for(matrix, "torn", "fedrec_torn")

    def fail(ask: object) -> Tuning:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        service.publish(key, matrix, fail)
    assert service.find(key) is None
    service.publish(key, matrix, lambda ask: Tuning(0, 1.0))
    assert service.find(key) == Tuning(0, 1.0)


def test_processes_that_start_together_share_one(connect: Callable[[], VectorService]) -> None:
    matrix, services = items(12), [connect(), connect()]
    key = key_for(matrix, "both", "fedrec_both")
    if services[0] is services[1]:  # Qdrant's local mode has one client: the second comes while the first builds
        services[0].publish(key, matrix, lambda ask: services[0].publish(key, matrix, lambda ask: Tuning(0, 1.0)))
    else:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda service: service.publish(key, matrix, lambda ask: Tuning(0, 1.0)), services))
    assert {service.find(key) for service in services} == {Tuning(0, 1.0)}
    assert len(services[1].search(key, matrix[0], 100, Rows(), 0)[0]) == 12


def test_a_graph_reaches_the_recall_and_pages_continue(pgvector_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many items pgvector searches by HNSW: with a filter, too, and however far down."""
    monkeypatch.setattr(vector_index, "MAX_GATHERED", 0)
    for module in ("external_search", "pgvector_service"):
        monkeypatch.setattr(sys.modules[f"fedrec.serving.index.{module}"], "MAX_EXACT_ITEMS", 500)
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((40, 16))[rng.integers(0, 40, 1500)] + 0.3 * rng.standard_normal((1500, 16))
    matrix = (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)
    service = open_service(IndexAddress.parse(f"pgvector:{pgvector_url}"))
    inside, outside = Index.build(matrix), published(service, matrix, "graph")
    base = outside.base
    assert isinstance(base, ExternalSearch)
    assert (base.effort > 0, outside.recall >= RECALL_TARGET) == (True, True)
    mask = rng.random(1500) < 0.9
    for allowed in (None, mask):
        ours, theirs = ([row for row, _ in each.search(matrix[3], 400, allowed)] for each in (inside, outside))
        assert len(np.intersect1d(ours, theirs)) >= RECALL_TARGET * 400
        assert [row for row, _ in outside.search(matrix[3], RECALL_AT + 50, allowed)] == theirs[: RECALL_AT + 50]
        assert allowed is None or mask[theirs].all()
    service.close()


# ---- the endpoint


class Cut:
    """A service that can be away."""

    def __init__(self, service: VectorService) -> None:
        self.service, self.is_away = service, False

    def find(self, key: IndexKey) -> Tuning | None:
        return self.service.find(key)

    def publish(self, key: IndexKey, matrix: np.ndarray, tune: Callable[..., Tuning]) -> Tuning:
        return self.service.publish(key, matrix, tune)

    def search(self, key: IndexKey, vector: np.ndarray, count: int, rows: Rows, effort: int) -> Hits:
        if self.is_away:
            raise IndexAwayError(f"the index at {PASSWORD} cannot be used")
        return self.service.search(key, vector, count, rows, effort)

    def close(self) -> None:
        self.service.close()


def test_an_endpoint_answers_from_it(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("qdrant_client", reason="the extra `qdrant` is not installed")
    monkeypatch.setattr(vector_index, "MAX_GATHERED", 0)
    address, cuts = f"qdrant:{tmp_path / 'index'}", []

    def open_cut(*arguments: object) -> ExternalIndexes:
        cuts.append(Cut(open_service(IndexAddress.parse(address))))
        return ExternalIndexes(cuts[0])

    monkeypatch.setattr("fedrec.serving.http.app.open_indexes", open_cut)
    question = {"history": WATCHED, "k": 5, "filters": {"year": {"min": 1995}}}
    outside = create_app(lambda: Recommender.load(run), Settings(index=SecretStr(address)))
    with ready(outside) as client:
        found = client.post("/v1/recommend", json=question).json()["items"]
        cuts[0].is_away = True
        response = client.post("/v1/recommend", json=question)
        is_problem(response, 503, None)
        assert PASSWORD not in response.text
        assert response.headers["retry-after"]
    monkeypatch.undo()
    with ready(create_app(lambda: Recommender.load(run))) as client:
        assert client.post("/v1/recommend", json=question).json()["items"] == found


def test_a_version_has_a_name_of_its_own(run: Path) -> None:
    recommender = Recommender.load(run)
    matrix = recommender.items.searched.numpy()
    key = key_of(recommender, matrix)
    assert (key.items, key.width) == matrix.shape
    other = replace(recommender, card=recommender.card | {"model_version": "another"})
    assert key_of(other, matrix).series == key.series
    assert key_of(other, matrix).name != key.name


def test_an_address_keeps_its_password_to_itself(
    run: Path, fedrec: Fedrec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"pgvector:postgresql://ann:{PASSWORD}@127.0.0.1:1/shop"
    address = IndexAddress.parse(url)
    assert str(address) == "pgvector:postgresql://ann:***@127.0.0.1:1/shop"
    assert PASSWORD not in repr(address)
    assert str(IndexAddress.parse(f"pgvector:postgresql://h/d?password={PASSWORD}&a=b")).endswith("?password=***&a=b")
    for way in (("--index", url), ("--set", f"index={url}")):
        refused = fedrec("serve", run, *way)
        is_refused(refused, "index", "holds a password", "FEDREC_INDEX")
        assert PASSWORD not in refused.err + refused.out
    is_refused(fedrec("serve", run, "--index", "faiss:x"), "qdrant:URL or pgvector:URL")
    pytest.importorskip("psycopg_pool", reason="the extra `pgvector` is not installed")
    monkeypatch.setenv("FEDREC_INDEX", url)
    refused = fedrec("serve", run, "--port", 0)
    is_refused(refused, "pgvector:postgresql://ann:***@127.0.0.1:1/shop cannot be used", "check that PostgreSQL runs")
    assert PASSWORD not in refused.err + refused.out


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedrec.serving.index.address.find_spec", lambda package: None)
    with pytest.raises(
        InputError, match=r"needs the package qdrant_client; install it by pip install 'fedrec\[qdrant\]'"
    ):
        open_service(IndexAddress.parse("qdrant:http://localhost:6333"))
