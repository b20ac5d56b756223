"""An endpoint behind a real port, in a thread of the test's process."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import httpx
import uvicorn
from fastapi import FastAPI

from serving.server import configured
from serving.settings import Settings


def until_ready(client: httpx.Client) -> None:
    while client.get("/readyz").status_code != 200:
        time.sleep(0.02)


@contextmanager
def running(app: FastAPI, key: str | None = None, settings: Settings | None = None) -> Iterator[httpx.Client]:
    """The app, as it starts, served as `fedrec serve` does; the client sends this key with all it asks."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(configured(app, settings or Settings()))
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
    """The app, once it answers."""
    with running(app, key, settings) as client:
        until_ready(client)
        yield client
