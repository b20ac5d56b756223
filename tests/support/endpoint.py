"""An endpoint behind a real port, in a thread of the test's process."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import httpx
import uvicorn
from fastapi import FastAPI

from fedrec.serving.http.protocol import uvicorn_config
from fedrec.serving.settings import Settings
from tests.support.toy_world import COOKING, SPACE


def until_ready(client: httpx.Client) -> None:
    while client.get("/readyz").status_code != 200:
        time.sleep(0.02)


@contextmanager
def running(app: FastAPI, key: str | None = None, settings: Settings | None = None) -> Iterator[httpx.Client]:
    """Serve the app as `fedrec serve` does, from its start; the client sends this key with every request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn_config(app, settings or Settings()))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            url, headers = f"http://127.0.0.1:{listener.getsockname()[1]}", {"x-api-key": key} if key else {}
            with httpx.Client(base_url=url, timeout=60, headers=headers) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def ready(app: FastAPI, key: str | None = None, settings: Settings | None = None) -> Iterator[httpx.Client]:
    """Serve the app, and wait until it answers."""
    with running(app, key, settings) as client:
        until_ready(client)
        yield client


FILMS = {kind: [f"film-{word}" for word in words] for kind, words in {"cook": COOKING, "fly": SPACE}.items()}


WATCHED = FILMS["cook"][:6]


FIRST_STORE = """
CREATE TABLE items (item_id TEXT PRIMARY KEY, told TEXT) WITHOUT ROWID;
CREATE TABLE feedback (
    number INTEGER PRIMARY KEY, user TEXT NOT NULL, item_id TEXT NOT NULL, kind TEXT NOT NULL,
    request_id TEXT NOT NULL, at TEXT NOT NULL, UNIQUE (user, item_id, kind, request_id)
);
"""
"""The tables of a store of the first version."""


SECRET = "marzipan"
"""Stands where a caller's own words or ids would: it may come back from nowhere."""


def is_problem(response: httpx.Response, status: int, field: str | None) -> None:
    """Check for a problem by RFC 9457, with the field at fault first in `errors`, and nothing of the request."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["type"] == "about:blank"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert [error["field"] for error in body["errors"]][:1] == ([field] if field else [])
    assert SECRET not in response.text
