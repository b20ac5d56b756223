"""A line between a node and its SuperLink that is listened in on, and can be cut: TLS ends here, and begins anew."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import h11

from fedrec.local_federation.certificates import AUTHORITY, CERTIFICATE, KEY

Body = tuple[str, bytes]
"""A request's path, and the body of the request or of the answer to it."""


@dataclass
class Talk:
    """What one connection carried."""

    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)


class Line:
    """Forwards connections on `port` to the SuperLink's, with its certificate, and notes what they carry."""

    def __init__(self, link: int, certificates: Path) -> None:
        self._link = link
        self._inward = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._inward.load_cert_chain(certificates / CERTIFICATE, certificates / KEY)
        self._outward = ssl.create_default_context(cafile=str(certificates / AUTHORITY))
        self._talks: list[Talk] = []
        self._open: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """End all connections, and let none through until the line is restored."""

        async def close() -> None:
            self._is_cut = True
            for writer in self._open:
                writer.transport.abort()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)

    def restore(self) -> None:
        self._is_cut = False

    def sent(self) -> list[Body]:
        """Return all requests of the node so far."""
        return [body for talk in self._talks for body in requests(bytes(talk.up))]

    def received(self) -> list[Body]:
        """Return all answers of the SuperLink so far."""
        return [body for talk in self._talks for body in answers(bytes(talk.up), bytes(talk.down))]

    async def _end(self) -> None:
        self._server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._connect, "127.0.0.1", 0, ssl=self._inward)

    async def _connect(self, node: asyncio.StreamReader, to_node: asyncio.StreamWriter) -> None:
        if self._is_cut:
            to_node.transport.abort()
            return
        link, to_link = await asyncio.open_connection("localhost", self._link, ssl=self._outward)
        talk = Talk()
        self._talks.append(talk)
        self._open |= {to_node, to_link}
        await asyncio.gather(_carry(node, to_link, talk.up), _carry(link, to_node, talk.down))
        self._open -= {to_node, to_link}


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter, note: bytearray) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := await source.read(65536):
            note += data
            target.write(data)
            await target.drain()
    target.transport.abort()


def requests(data: bytes) -> list[Body]:
    """Parse the requests of a client of HTTP/1.1 on one connection."""
    connection, found = h11.Connection(h11.SERVER), []
    connection.receive_data(data)
    for head, body in _messages(connection):
        assert isinstance(head, h11.Request)
        found.append((head.target.decode(), body))
        connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        connection.send(h11.EndOfMessage())
        connection.start_next_cycle()
    return found


def answers(asked: bytes, data: bytes) -> list[Body]:
    """Parse the answers of a server of HTTP/1.1 on the same connection."""
    connection, found = h11.Connection(h11.CLIENT), []
    connection.receive_data(data)
    for path, _ in requests(asked):
        connection.send(h11.Request(method="POST", target=path, headers=[("host", "a"), ("content-length", "0")]))
        connection.send(h11.EndOfMessage())
        for _, body in _messages(connection):
            found.append((path, body))
            break
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            break  # cut short
        connection.start_next_cycle()
    return found


def _messages(connection: h11.Connection) -> Iterator[tuple[h11.Event, bytes]]:
    """Iterate over whole messages."""
    head, body = None, bytearray()
    while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
        match event:
            case h11.Request() | h11.Response():
                head, body = event, bytearray()
            case h11.Data():
                body += event.data
            case h11.EndOfMessage():
                assert head
                yield head, bytes(body)
            case h11.ConnectionClosed():
                return
