"""The server around the app: HTTP/1.1 whose requests arrive whole, in time, and with heads that fit.

Uvicorn waits as long as a caller likes for the rest of a request or for an answer to be read, and keeps a head of any
length.
"""

import asyncio
from functools import partial
from http import HTTPStatus
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fedrec.serving.http.problems import problem
from fedrec.serving.settings import Settings

LONGEST_HEAD = 65_536
"""Bytes of a request line and its headers."""

MOST_WAITING = 100
"""Requests on one connection that wait for the answers to those before them."""


def configured(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn runs the app: nothing is believed of a caller's headers, and nothing of a request is logged."""
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
    """A connection that is closed if a request on it takes longer than `receive_limit` seconds to arrive, or if so long
    nothing of an answer is read.

    The time begins when the connection is made, or with a further request's first byte.
    """

    def __init__(self, *args: Any, receive_limit: float, **more: Any) -> None:
        super().__init__(*args, **more)
        self._receive_limit = receive_limit
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._chunk = 0  # bytes that are being read
        self._head: int | None = 0  # bytes of the head that arrives, after the chunk it begins in; None: none does

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        self._chunk = len(data)
        super().data_received(data)
        if len(self.pipeline) > MOST_WAITING:
            self.transport.abort()
        if self._head is not None:
            self._head += self._chunk
            if self._head > LONGEST_HEAD:
                self._refuse(431, f"the headers are longer than {LONGEST_HEAD:,} bytes; send less")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = -self._chunk
        self._expect()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head = None

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._arrived()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self._receive_limit, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        self._read()
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self._receive_limit, self._give_up)

    def _arrived(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _give_up(self) -> None:
        self._refuse(408, f"the request did not arrive whole within {self._receive_limit:g} s; send it again")

    def _refuse(self, status: int, detail: str) -> None:
        """Close the connection, and say why unless an answer is on its way already."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            answer = problem(status, detail, headers={"connection": "close"})
            head = b"".join(b"%s: %s\r\n" % header for header in answer.raw_headers)
            phrase = HTTPStatus(status).phrase.encode()
            self.transport.write(b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, phrase, head, answer.body))
        self.transport.close()
