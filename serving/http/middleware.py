"""Checks and limits of every request: host, key, rate, size and time; it is counted and logged, without its content.

A log line and a metric contain the route as documented (`/v1/items/{item_id}`), never the requested path.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from uuid import uuid4

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedrec.serving.http.allowed_hosts import AllowedHosts
from fedrec.serving.http.callers import Callers
from fedrec.serving.http.metrics import Meters
from fedrec.serving.http.paths import routed_path
from fedrec.serving.http.problems import RETRY, problem_response
from fedrec.serving.http.rate_limiter import RateLimiter
from fedrec.serving.settings import Settings

PUBLIC_PATHS = ("/healthz", "/readyz", "/", "/docs", "/openapi.json")
"""Paths that need no key: their answers are public, and a page has to load before it can send a key."""

NO_TIME_LIMIT = ("/v1/models:reload",)
"""Paths without a time limit: a reload cannot be cancelled."""

HEALTH = ("/healthz", "/readyz")
"""Paths that are answered under any host name: monitors ask by address."""

PROBES = (*HEALTH, "/metrics")
"""Routes that monitors request every few seconds: they are counted, but not logged."""

logger = logging.getLogger("fedrec.access")


@dataclass
class _Outcome:
    """The status of an answer, and whether it has begun."""

    status: int = 500
    has_begun: bool = False


class RequestGuard:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Meters, limiter: RateLimiter) -> None:
        self._app, self._settings, self._metrics, self._limiter = app, settings, metrics, limiter
        self._callers, self._hosts = Callers(settings), AllowedHosts.from_settings(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "method": "GET" if scope["method"] == "HEAD" else scope["method"]}  # servers drop its body
        scope["path"] = routed_path(scope)
        started, outcome = time.perf_counter(), _Outcome()

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                outcome.status, outcome.has_begun = message["status"], True
            await send(message)

        try:
            await self._answer_in_time(scope, receive, send_and_note, outcome)
        finally:
            self._record(scope, outcome.status, time.perf_counter() - started)

    async def _answer_in_time(self, scope: Scope, receive: Receive, send: Send, outcome: _Outcome) -> None:
        try:
            self._admit(scope)
        except HTTPException as refusal:
            response = problem_response(refusal.status_code, refusal.detail, headers=refusal.headers)
            await response(scope, receive, send)
            return
        try:
            async with asyncio.timeout(None if scope["path"] in NO_TIME_LIMIT else self._settings.time_limit):
                await self._app(scope, self._limit_body(receive), send)
        except TimeoutError:
            if outcome.has_begun:
                raise
            limit = self._settings.time_limit
            response = problem_response(503, f"no answer within {limit:g} s; try again", headers=RETRY)
            await response(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        """Record the caller in the scope. Raises `HTTPException` if the request may not pass."""
        headers = {name: value for name, value in scope["headers"] if name in (b"host", b"content-length")}
        if scope["path"] not in HEALTH and not self._hosts.allow(headers.get(b"host", b"")):
            raise HTTPException(421, "the server is not known by this Host; add the name to its allowed_hosts")
        is_public = _is_public(scope["path"])
        caller = self._callers.identify(scope, is_public)
        scope.setdefault("state", {}).update(caller=caller, request_id=uuid4().hex)
        if not is_public:
            self._limiter.charge(caller.name, 1)
        if caller.role is None:
            detail = caller.fault or "give an API key in the header x-api-key"
            raise HTTPException(401, detail, {"www-authenticate": "Bearer" if caller.fault else "ApiKey"})
        if int(headers.get(b"content-length", b"0")) > self._settings.max_body_bytes:
            raise HTTPException(413, self._too_large())

    def _too_large(self) -> str:
        return f"the body is larger than {self._settings.max_body_bytes:,} bytes; send less"

    def _limit_body(self, receive: Receive) -> Receive:
        """Return a `receive` that raises `HTTPException` 413 once the body is too large: it may be sent in chunks."""
        received = 0

        async def receive_and_count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._settings.max_body_bytes:
                raise HTTPException(413, self._too_large())
            return message

        return receive_and_count

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path_format", "(none)")
        self._metrics.count_answer(route, status, seconds)
        if route not in PROBES:
            told = {"route": route, "status": status, "ms": round(1000 * seconds, 2)}
            logger.info("request", extra=told | dict(zip(("tenant",), self._metrics.labels, strict=False)))


def _is_public(path: str) -> bool:
    return path in PUBLIC_PATHS or path.startswith("/static/")
