"""The server around the app: HTTP/1.1 with limits on the time and the size of a request.

Uvicorn by itself waits forever for the rest of a request or for an answer to be read, and accepts headers of any
length.
"""

import asyncio
from functools import partial
from http import HTTPStatus
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fedrec.serving.http.problems import problem_response
from fedrec.serving.settings import Settings

MAX_HEAD_BYTES = 65_536
"""Bytes of a request line and its headers."""

MAX_PIPELINED = 100
"""Requests on one connection that wait for earlier answers."""


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Configure uvicorn so that it trusts no header of a caller, and logs nothing of a request."""
    protocol = partial(PunctualProtocol, receive_limit=settings.receive_limit)
    return uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
    )


class PunctualProtocol(HttpToolsProtocol):
    """A connection that is closed if a request takes longer than `receive_limit` seconds to arrive, or if the caller
    reads nothing of an answer for that long.

    The time starts when the connection is made, or with the first byte of a later request.
    """

    def __init__(self, *args: Any, receive_limit: float, **more: Any) -> None:
        super().__init__(*args, **more)
        self._receive_limit = receive_limit
        self._receive_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._chunk = 0  # bytes of the chunk being read
        self._head: int | None = 0  # bytes of the current head, after the chunk it begins in; None: no head

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_receive_timer()

    def data_received(self, data: bytes) -> None:
        self._chunk = len(data)
        super().data_received(data)
        if len(self.pipeline) > MAX_PIPELINED:
            self.transport.abort()
        if self._head is not None:
            self._head += self._chunk
            if self._head > MAX_HEAD_BYTES:
                self._refuse(431, f"the headers are longer than {MAX_HEAD_BYTES:,} bytes; send less")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = -self._chunk
        self._start_receive_timer()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head = None

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._stop_receive_timer()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._receive_limit, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_receive_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def _start_receive_timer(self) -> None:
        if self._receive_timer is None:
            self._receive_timer = self.loop.call_later(self._receive_limit, self._give_up)

    def _stop_receive_timer(self) -> None:
        if self._receive_timer is not None:
            self._receive_timer.cancel()
            self._receive_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _give_up(self) -> None:
        self._refuse(408, f"the request did not arrive whole within {self._receive_limit:g} s; send it again")

    def _refuse(self, status: int, detail: str) -> None:
        """Close the connection, with an error response unless an answer has begun."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            answer = problem_response(status, detail, headers={"connection": "close"})
            head = b"".join(b"%s: %s\r\n" % header for header in answer.raw_headers)
            phrase = HTTPStatus(status).phrase.encode()
            self.transport.write(b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, phrase, head, answer.body))
        self.transport.close()
