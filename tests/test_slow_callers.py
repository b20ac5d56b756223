"""Callers who send half of a request, or too much of one: they are let go in time, and nobody waits for them."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Response

from fedrec.recsys.recommender import Recommender
from fedrec.serving.http.app import create_app
from fedrec.serving.http.protocol import MAX_HEAD_BYTES
from fedrec.serving.settings import Settings
from tests.support.endpoint import ready, running

LIMIT = 0.5
GET = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n"
POST = b"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def http(run: Path) -> Iterator[httpx.Client]:
    recommender, settings = Recommender.load(run), Settings(receive_limit=LIMIT)
    with ready(create_app(lambda: recommender, settings), settings=settings) as http:
        yield http


def connected(http: httpx.Client) -> socket.socket:
    return socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=60)


def until_closed(caller: socket.socket) -> bytes:
    """All that the server says before it closes the connection."""
    told = b""
    while piece := caller.recv(65_536):
        told += piece
    return told


def problem_of(answer: bytes) -> dict[str, object]:
    head, _, body = answer.rpartition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    return json.loads(body)


@pytest.mark.parametrize(
    "half",
    [
        b"",
        b"GET /hea",
        GET,
        GET + b"x-slow: ",
        POST + b'content-length: 100\r\n\r\n{"query": ',
        POST + b"content-length: 9\r\n\r\n",
    ],
    ids=["nothing", "a path", "headers", "a header", "a body", "no body"],
)
def test_half_a_request_is_given_up(http: httpx.Client, half: bytes) -> None:
    with connected(http) as caller:
        caller.sendall(half)
        assert problem_of(until_closed(caller))["status"] == 408


def test_half_a_chunked_body_is_given_up(http: httpx.Client) -> None:
    with connected(http) as caller:
        caller.sendall(POST + b'transfer-encoding: chunked\r\n\r\n5\r\n{"que\r\n')
        assert problem_of(until_closed(caller))["status"] == 408


def test_half_of_a_second_request_is_given_up(http: httpx.Client) -> None:
    with connected(http) as caller:
        caller.sendall(GET + b"\r\n" + GET)
        told = until_closed(caller)
    assert told.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.1 408 Request Timeout" in told


def test_a_trickle_does_not_keep_a_connection(http: httpx.Client) -> None:
    """A byte now and then is no request: what counts is when all of it is there."""
    with connected(http) as caller:
        caller.sendall(GET)
        caller.settimeout(LIMIT / 10)
        for _ in range(1000):
            try:
                told = caller.recv(65_536)
                break
            except TimeoutError:
                caller.sendall(b"x")
        assert told.startswith(b"HTTP/1.1 408 ")


def test_many_who_are_slow_keep_nobody_else_from_an_answer(http: httpx.Client) -> None:
    with ExitStack() as crowd:
        callers = [crowd.enter_context(connected(http)) for _ in range(300)]
        for number, caller in enumerate(callers):
            caller.sendall(GET if number % 2 else POST + b"content-length: 100\r\n\r\n{")
        assert http.post("/v1/recommend", json={"query": "x"}).status_code == 200
        for caller in callers:
            with suppress(ConnectionResetError):  # it was let go before it sent anything
                assert until_closed(caller).startswith(b"HTTP/1.1 408 ")


def test_a_request_that_arrives_whole_may_take_its_time_to_be_answered(http: httpx.Client) -> None:
    """On one connection, one after the other, in pieces and at once: nothing is cut off."""
    body = b'{"query": "x"}'
    with connected(http) as caller:
        for part in (POST, b"content-length: %d\r\n\r\n" % len(body), body):
            caller.sendall(part)
        caller.sendall((GET + b"\r\n") * 2 + GET + b"connection: close\r\n\r\n")
        assert until_closed(caller).count(b"HTTP/1.1 200 OK") == 4


def test_headers_that_never_end_are_refused(http: httpx.Client) -> None:
    with connected(http) as caller:
        caller.sendall(GET)
        try:
            for _ in range(16 * MAX_HEAD_BYTES // 1000):
                caller.sendall(b"x: " + b"y" * 995 + b"\r\n")
            told = until_closed(caller)
        except ConnectionError:  # it closed while more was on the way
            return
    assert problem_of(told)["status"] == 431


def test_an_answer_that_nobody_reads_is_not_kept() -> None:
    """It fills the buffers between them, and some of the server's own memory, until the connection is cut."""
    app, settings = FastAPI(), Settings(receive_limit=LIMIT)
    app.add_api_route("/large", lambda: Response(bytes(2**24)))
    with running(app, settings=settings) as http, connected(http) as caller:
        caller.sendall(b"GET /large HTTP/1.1\r\n\r\n" + GET + b"x: ")
        with pytest.raises(ConnectionError):
            send_without_end(caller, b"x")


def test_requests_that_wait_for_one_another_are_limited(http: httpx.Client) -> None:
    with connected(http) as caller, pytest.raises(ConnectionError):
        send_without_end(caller, (GET + b"\r\n") * 1000)


def send_without_end(caller: socket.socket, piece: bytes) -> None:
    while True:
        caller.sendall(piece)
        time.sleep(0.01)


def test_the_longest_id_fits_into_a_path(http: httpx.Client) -> None:
    assert http.get(f"/v1/items/{'%F0%9F%98%80' * 512}").status_code == 404
