"""What every request passes: who may ask, how often, how much, for how long; counted and logged, without its content.

A log line and a metric name the route as it is declared (`/v1/items/{item_id}`), never the path as it came.
"""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from pydantic import SecretStr
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.problems import problem
from serving.settings import Settings

READ, ADMIN = "read", "admin"
OPEN = ("/healthz", "/readyz", "/", "/docs", "/openapi.json")
"""Paths that need no key: they tell nothing that is not public, and a page has to load before it can ask."""

UNHURRIED = ("/v1/models:reload",)
"""Paths without a time limit: given up, they would go on all the same."""

PROBES = ("/healthz", "/readyz", "/metrics")
"""Routes that are asked every few seconds by those who watch: they are counted, and not logged."""

logger = logging.getLogger("fedrec.access")


@dataclass(frozen=True, eq=False)
class Keys:
    """The digests of the keys that are known: comparing digests tells nothing of how much of a key was right."""

    read: Sequence[bytes]
    admin: Sequence[bytes]

    @classmethod
    def of(cls, settings: Settings) -> "Keys":
        return cls([_digest(key) for key in settings.read_keys], [_digest(key) for key in settings.admin_keys])

    def role(self, key: str | None) -> str | None:
        """What a key lets its holder do; None for one that is not known. Every known key is compared."""
        told = hashlib.sha256((key or "").encode()).digest()
        admin = sum(hmac.compare_digest(told, known) for known in self.admin)
        read = sum(hmac.compare_digest(told, known) for known in self.read)
        return ADMIN if admin else READ if read else None


@dataclass(frozen=True, eq=False)
class Meters:
    """What Prometheus reads. A registry of its own, so that two apps in one process do not mix."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    seconds: Histogram = field(init=False)
    answers: Counter = field(init=False)
    items: Gauge = field(init=False)
    model: Gauge = field(init=False)

    def __post_init__(self) -> None:
        buckets = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
        made: dict[str, Any] = {
            "seconds": Histogram(
                "fedrec_request_seconds", "Time to answer.", ["route"], registry=self.registry, buckets=buckets
            ),
            "answers": Counter("fedrec_requests", "Answers by status.", ["route", "status"], registry=self.registry),
            "items": Gauge("fedrec_items", "Items on offer.", registry=self.registry),
            "model": Gauge("fedrec_model", "1 for the model that answers.", ["version"], registry=self.registry),
        }
        for name, meter in made.items():
            object.__setattr__(self, name, meter)

    def tell(self, version: str, items: int) -> None:
        """Which model answers now."""
        self.model.clear()
        self.model.labels(version).set(1)
        self.items.set(items)


class Gate:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, settings: Settings, meters: Meters) -> None:
        self._app, self._settings, self._meters = app, settings, meters
        self._keys = Keys.of(settings)
        self._rate = RateLimitItemPerMinute(settings.rate_per_minute) if settings.rate_per_minute else None
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, told = time.perf_counter(), {"status": 500, "begun": False}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                told.update(status=message["status"], begun=True)
            await send(message)

        try:
            await self._answered(scope, receive, sending, told)
        finally:
            self._noted(scope, int(told["status"]), time.perf_counter() - started)

    async def _answered(self, scope: Scope, receive: Receive, send: Send, told: dict[str, Any]) -> None:
        refused = self._refusal(scope)
        if refused is not None:
            await refused(scope, receive, send)
            return
        try:
            async with asyncio.timeout(None if scope["path"] in UNHURRIED else self._settings.time_limit):
                await self._app(scope, self._measured(receive), send)
        except TimeoutError:
            if told["begun"]:
                raise
            limit = self._settings.time_limit
            await problem(503, f"no answer within {limit:g} s; try again", headers={"retry-after": "5"})(
                scope, receive, send
            )

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        """The answer to whom is not let through; None for whoever is. Notes the caller's role in the scope."""
        headers = {name: value for name, value in scope["headers"] if name in (b"x-api-key", b"content-length")}
        key = headers.get(b"x-api-key", b"").decode("latin-1") or None
        role, is_open = self._keys.role(key), _is_open(scope["path"])
        caller = key if role and key else (scope.get("client") or ("",))[0]  # a key that is not known is nobody's
        if not role and (is_open or not self._keys.read):
            role = READ
        scope.setdefault("state", {}).update(role=role, request_id=uuid4().hex)
        if self._rate and not is_open and (wait := self._wait(self._rate, caller)):
            return problem(429, f"more than {self._rate}; come again later", headers={"retry-after": str(wait)})
        if role is None:
            return problem(401, "give an API key in the header x-api-key", headers={"www-authenticate": "ApiKey"})
        if int(headers.get(b"content-length", b"0")) > self._settings.max_body_bytes:
            return problem(413, self._too_large())
        return None

    def _wait(self, rate: RateLimitItemPerMinute, caller: str) -> int:
        """Seconds until this caller may come again; 0 for one who may now."""
        name = hashlib.sha256(caller.encode()).hexdigest()
        if self._limiter.hit(rate, name):
            return 0
        return max(1, round(self._limiter.get_window_stats(rate, name).reset_time - time.time()))

    def _too_large(self) -> str:
        return f"the body is larger than {self._settings.max_body_bytes:,} bytes; send less"

    def _measured(self, receive: Receive) -> Receive:
        """The body as it comes, until it is too large: not every sender tells its length before."""
        taken = 0

        async def receiving() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._settings.max_body_bytes:
                raise HTTPException(413, self._too_large())
            return message

        return receiving

    def _noted(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "(none)")
        self._meters.seconds.labels(route).observe(seconds)
        self._meters.answers.labels(route, str(status)).inc()
        if route not in PROBES:
            logger.info("request", extra={"route": route, "status": status, "ms": round(1000 * seconds, 2)})


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith("/static/")


def _digest(key: SecretStr) -> bytes:
    return hashlib.sha256(key.get_secret_value().encode()).digest()
