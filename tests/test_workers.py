"""Several processes that serve one store: what one changes, all answer; they count together; a dead one is replaced."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.exceptions import HTTPException

from benchmarks.speed.served import serving
from fedrec.data.errors import InputError
from fedrec.recsys.recommender import Recommender
from fedrec.serving.http.app import create_app
from fedrec.serving.http.rate_limiter import RateLimiter, Windows
from fedrec.serving.http.shared_windows import SharedWindows
from fedrec.serving.model_manager import ModelManager
from fedrec.serving.settings import Settings
from tests.support.cli import Fedrec, is_refused
from tests.support.endpoint import WATCHED, is_problem, ready
from tests.support.postgresql import postgresql

ADMIN = "a-key-to-change-9876543210"
NEW = {"title": "The lander", "text": "The lander. A spaceship lands on the moon."}
WAIT = 60.0
"""Seconds after which a test gives up; a machine may be slow, the fleet is not."""


def until(seen: Callable[[], bool]) -> None:
    ends = time.monotonic() + WAIT
    while not seen():
        assert time.monotonic() < ends
        time.sleep(0.02)


def like(item_id: str) -> dict[str, Any]:
    return {"user": "ann", "item_id": item_id, "kind": "like", "consent": True}


def version_of(client: httpx.Client) -> str:
    return client.post("/v1/recommend", json={"history": WATCHED}).raise_for_status().json()["model_version"]


@pytest.fixture(scope="module")
def first(run: Path) -> Recommender:
    return Recommender.load(run)


@pytest.fixture(scope="module")
def second(second_run: Path) -> Recommender:
    return Recommender.load(second_run)


@pytest.fixture(params=["file", pytest.param("postgresql", marks=pytest.mark.long)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield str(tmp_path / "store.db")
        return
    with postgresql() as url:
        yield url


class Turns:
    """What a run's folder on one machine holds, which changes meanwhile."""

    def __init__(self, recommender: Recommender) -> None:
        self.now: Recommender | Exception = recommender

    def __call__(self) -> Recommender:
        if isinstance(self.now, Exception):
            raise self.now
        return self.now


def test_what_one_process_changes_all_of_them_answer(
    first: Recommender, second: Recommender, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Two endpoints with connections and models of their own, over one store."""
    folders = [Turns(first), Turns(first)]
    settings = Settings.model_validate({"admin_keys": [ADMIN], "store": store})
    with ExitStack() as stack:
        one, two = (stack.enter_context(ready(create_app(folder, settings), ADMIN)) for folder in folders)
        # Feedback is read from the store with each question.
        one.post("/v1/feedback", json=like(WATCHED[0])).raise_for_status()
        assert len(two.get("/v1/users/ann").json()["feedback"]) == 1
        two.delete("/v1/users/ann").raise_for_status()
        assert one.get("/v1/users/ann").json()["feedback"] == []
        # Items are adopted, whoever adds, replaces or removes them.
        one.put("/v1/items/new", json=NEW | {"title": "Old"}).raise_for_status()
        until(lambda: two.get("/v1/items/new").status_code == 200)
        two.put("/v1/items/new", json=NEW).raise_for_status()
        two.delete("/v1/items/film-soup").raise_for_status()
        until(lambda: one.get("/v1/items/film-soup").status_code == 404)
        assert one.get("/v1/items/new").json()["title"] == "The lander"
        together = [client.put(f"/v1/items/n{place}", json=NEW) for place, client in enumerate([one, two] * 2)]
        assert [answer.status_code for answer in together] == [200] * 4
        until(lambda: one.get("/readyz").json()["items"] == two.get("/readyz").json()["items"] == 28)
        # Equal scores are in the same order everywhere.
        orders = [client.get("/v1/search", params={"q": "lander"}).json()["items"] for client in (one, two)]
        assert [item["item_id"] for item in orders[0]] == [item["item_id"] for item in orders[1]]
        # A reload is of all; where the run is another one, the old model goes on.
        for folder in folders:
            folder.now = second
        assert one.post("/v1/models:reload").json()["model_version"] == second.version
        until(lambda: version_of(two) == second.version)
        assert two.get("/v1/items/new").status_code == 200
        folders[0].now = InputError("towers.safetensors is missing")
        is_problem(one.post("/v1/models:reload"), 503, None)
        assert [version_of(client) for client in (one, two)] == [second.version] * 2
        folders[1].now = first
        assert two.post("/v1/models:reload").json()["model_version"] == first.version
        until(lambda: "could not be here: towers.safetensors is missing" in caplog.text)
        folders[0].now = second
        two.post("/v1/models:reload").raise_for_status()
        until(lambda: f"the run here is {second.version}; copy the same run to every machine" in caplog.text)
        assert version_of(one) == second.version
        # A process that starts with another model than the others answer from has them load theirs again.
        folders[0].now = folders[1].now = first
        two.post("/v1/models:reload").raise_for_status()
        until(lambda: version_of(one) == first.version)
        folders[0].now = folders[1].now = second
        three = stack.enter_context(ready(create_app(Turns(second), settings), ADMIN))
        until(lambda: {version_of(client) for client in (one, two, three)} == {second.version})
        assert three.get("/readyz").json()["items"] == 28


def test_processes_switch_to_a_reloaded_model_at_one_time(
    first: Recommender, second: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is agreed on before; nobody answers from the new model before it."""
    switched: list[tuple[float, float]] = []
    switch = ModelManager._switch

    def noted(manager: ModelManager, loaded: Any, state: Any) -> None:
        switch(manager, loaded, state)
        switched.append((state.switch_at, time.time()))

    monkeypatch.setattr(ModelManager, "_switch", noted)
    settings = Settings.model_validate({"admin_keys": [ADMIN], "store": tmp_path / "store.db"})
    folders = [Turns(first), Turns(first)]
    with ExitStack() as stack:
        one, _ = (stack.enter_context(ready(create_app(folder, settings), ADMIN)) for folder in folders)
        switched.clear()
        for folder in folders:
            folder.now = second
        one.post("/v1/models:reload").raise_for_status()
        until(lambda: len(switched) == 2)
    assert switched[0][0] == switched[1][0]
    assert all(at >= agreed for agreed, at in switched)


def test_callers_are_counted_together(tmp_path: Path) -> None:
    """By processes with the same file, under names that are not theirs."""
    limiters = [RateLimiter(4, Windows(SharedWindows(tmp_path / "windows"), b"k" * 32)) for _ in range(2)]
    for limiter in limiters * 2:
        limiter.charge("key marzipan", 1)
    for limiter in limiters:
        with pytest.raises(HTTPException) as refused:
            limiter.charge("key marzipan", 1)
        assert refused.value.status_code == 429
        assert 0 < int((refused.value.headers or {})["retry-after"]) <= 60
        limiter.charge("another", 1)
    with pytest.raises(HTTPException, match="this counts as 6 plain questions"):
        limiters[0].charge("another", 5)
    assert b"marzipan" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_workers_need_a_store(fedrec: Fedrec, run: Path) -> None:
    refused = fedrec("serve", run, "--port", "0", "--workers", "2")
    is_refused(refused, "setting workers: 2 processes need a store that they share; add --store FILE")
    is_refused(fedrec("serve", run, "--port", "0", "--set", "workers=0"), "setting workers")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_workers_answer_as_one_and_a_dead_one_is_replaced(run: Path, tmp_path: Path) -> None:
    settings = ["--set", "rate_per_minute=150", "--set", "time_limit=300"]
    options = ["--workers", "2", "--store", str(tmp_path / "store.db"), *settings]
    environment = {"FEDREC_ADMIN_KEYS": f'["{ADMIN}"]'}
    with serving(run, tmp_path / "log", environment, options) as served:

        def ask(path: str, body: dict[str, Any] | None = None, method: str | None = None, key: str = ADMIN) -> Reply:
            with served.caller({"x-api-key": key}) as caller:  # a connection of its own: to any of the workers
                return caller.ask(path, json.dumps(body).encode() if body else None, method)

        workers = _workers_of(served.process.pid)
        assert len(workers) == 2
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: ask("/v1/recommend", {"history": WATCHED}), range(40)))
        assert {status for status, _ in found} == {200}
        assert len({str(json.loads(content)["items"]) for _, content in found}) == 1
        assert ask("/v1/items/new", NEW, "PUT")[0] == 200
        until(lambda: all(ask("/v1/items/new")[0] == 200 for _ in range(8)))
        samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(ask("/metrics")[1].decode())
            for sample in family.samples
        }
        assert samples["fedrec_requests_total", "/v1/recommend", "200"] == 40
        assert samples[("fedrec_items",)] == 25
        workers[0].send_signal(signal.SIGKILL)
        until(lambda: len(_workers_of(served.process.pid)) == 2 and workers[0] not in _workers_of(served.process.pid))
        assert {ask("/v1/items/new")[0] for _ in range(8)} == {200}
        # Half of these go to each worker, which is less than the limit for one.
        assert 429 in {ask("/v1/models", key="")[0] for _ in range(200)}
        workers = _workers_of(served.process.pid)
        os.kill(served.process.pid, signal.SIGKILL)
        until(lambda: not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers))


Reply = tuple[int, bytes]


def _workers_of(supervisor: int) -> list[psutil.Process]:
    living = [child for child in psutil.Process(supervisor).children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in living if any("spawn_main" in word for word in child.cmdline())]
