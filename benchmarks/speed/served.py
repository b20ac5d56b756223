"""`fedrec serve` in its own process, and its callers."""

import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fedrec.data.errors import InputError

POLL = 0.01
"""Seconds between two checks of readiness."""


@dataclass(frozen=True)
class Served:
    """A running server, and the file of its output."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    @contextmanager
    def caller(self, headers: Mapping[str, str] | None = None) -> "Iterator[Caller]":
        """Open a connection of a new caller."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"))
        with closing(connection):
            yield Caller(connection, dict(headers or {}))


@dataclass(frozen=True)
class Caller:
    """A caller with its own persistent connection."""

    connection: http.client.HTTPConnection
    headers: dict[str, str]

    def ask(self, path: str, body: bytes | None = None, method: str | None = None) -> tuple[int, bytes]:
        """Send a request and return the status and the body of the answer."""
        kind = {"content-type": "application/json"} if body else {}
        self.connection.request(method or ("POST" if body else "GET"), path, body, kind | self.headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def ask_json(self, path: str, body: bytes | None = None, method: str | None = None) -> Any:
        """Send a request and return the JSON of its answer. Raises `InputError` with the answer if it is an error."""
        status, content = self.ask(path, body, method)
        if status >= HTTPStatus.BAD_REQUEST:
            raise InputError(f"the server answered {status} to {path}: {content.decode()[:500]}")
        return json.loads(content)


@contextmanager
def serving(
    run: Path, log: Path, environment: Mapping[str, str] | None = None, options: Sequence[str] = ()
) -> Iterator[Served]:
    """Start `fedrec serve` on a free port and stop it after the block. Raises `InputError` if it does not get ready."""
    with log.open("wb") as output:
        command = [sys.executable, "-m", "fedrec", "serve", str(run), "--port", "0", *options]
        surroundings = os.environ | dict(environment or {})
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=surroundings)
    try:
        while not (address := re.search(r"http://[\d.]+:\d+(?= )", log.read_text("utf-8", "replace"))):
            if process.poll() is not None:
                raise InputError(f"fedrec serve {run} stopped: {log.read_text('utf-8', 'replace').strip()}")
            time.sleep(POLL)
        served = Served(process, address.group(), log)
        with served.caller() as caller:
            until_ready(caller)
        yield served
    finally:
        process.kill()
        process.wait()


def until_ready(caller: Caller) -> None:
    """Wait until the server is ready. Raises `InputError` with the server's reason if it will never be."""
    while (answer := caller.ask("/readyz"))[0] != HTTPStatus.OK:
        problem = json.loads(answer[1])
        if problem.get("state") != "loading":
            raise InputError(f"the server is not ready: {problem['detail']}")
        time.sleep(POLL)


def ask_all(served: Served, callers: int, bodies: Sequence[bytes], path: str) -> None:
    """Ask all of these, each once, with `callers` concurrent callers."""

    def ask(part: Sequence[bytes]) -> None:
        with served.caller() as caller:
            for body in part:
                caller.ask_json(path, body)

    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(ask, [bodies[place::callers] for place in range(callers)]))


def ask_at_rate(
    served: Served, callers: int, bodies: Sequence[bytes], path: str, rate: float, seconds: float
) -> tuple[list[float], int]:
    """Run an open-loop load of `rate` requests per second; return latencies (s, from the scheduled time) and errors."""
    count, started = int(rate * seconds), time.perf_counter() + 0.1

    def ask(first: int) -> tuple[list[float], int]:
        took, errors = [], 0
        with served.caller() as caller:
            for number in range(first, count, callers):
                due = started + number / rate
                time.sleep(max(0.0, due - time.perf_counter()))
                status, _ = caller.ask(path, bodies[number % len(bodies)])
                took.append(time.perf_counter() - due)
                errors += status != HTTPStatus.OK
        return took, errors

    with ThreadPoolExecutor(callers) as pool:
        outcomes = list(pool.map(ask, range(callers)))
    return [second for took, _ in outcomes for second in took], sum(errors for _, errors in outcomes)


def ask_meanwhile(
    served: Served, callers: int, ask: Callable[[Caller, int], bool], act: Callable[[], None]
) -> tuple[int, int]:
    """Ask with `callers` concurrent callers while `act` runs; return the numbers of answers and of wrong answers."""
    done = False

    def keep_asking(first: int) -> tuple[int, int]:
        number, wrong = first, 0
        with served.caller() as caller:
            while not done:
                wrong += not ask(caller, number)
                number += callers
        return (number - first) // callers, wrong

    with ThreadPoolExecutor(callers) as pool:
        asking = [pool.submit(keep_asking, first) for first in range(callers)]
        try:
            act()
        finally:
            done = True
        counts = [asked.result() for asked in asking]
    return sum(count for count, _ in counts), sum(wrong for _, wrong in counts)
