"""What every request passes: who may ask, how often, how much, for how long; counted and logged, without its content.

A log line and a metric name the route as it is documented (`/v1/items/{item_id}`), never the path as it came.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedrec.serving.http.callers import Callers
from fedrec.serving.http.hosts import Hosts
from fedrec.serving.http.paths import routed
from fedrec.serving.http.problems import RETRY, problem
from fedrec.serving.http.rates import Rates
from fedrec.serving.settings import Settings

PUBLIC_PATHS = ("/healthz", "/readyz", "/", "/docs", "/openapi.json")
"""Paths that need no key: they tell nothing that is not public, and a page has to load before it can ask."""

NO_TIME_LIMIT = ("/v1/models:reload",)
"""Paths without a time limit: given up, they would go on all the same."""

HEALTH = ("/healthz", "/readyz")
"""Paths that are answered under any name: whoever watches asks by address."""

PROBES = (*HEALTH, "/metrics")
"""Routes that are asked every few seconds by those who watch: they are counted, and not logged."""

logger = logging.getLogger("fedrec.access")


@dataclass(frozen=True, eq=False)
class Metrics:
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


class RequestGuard:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, settings: Settings, meters: Metrics, rates: Rates) -> None:
        self._app, self._settings, self._meters, self._rates = app, settings, meters, rates
        self._callers, self._hosts = Callers(settings), Hosts.of(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "method": "GET" if scope["method"] == "HEAD" else scope["method"]}  # servers drop its body
        scope["path"] = routed(scope)
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
        try:
            self._admit(scope)
        except HTTPException as refused:
            await problem(refused.status_code, refused.detail, headers=refused.headers)(scope, receive, send)
            return
        try:
            async with asyncio.timeout(None if scope["path"] in NO_TIME_LIMIT else self._settings.time_limit):
                await self._app(scope, self._measured(receive), send)
        except TimeoutError:
            if told["begun"]:
                raise
            limit = self._settings.time_limit
            await problem(503, f"no answer within {limit:g} s; try again", headers=RETRY)(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        """Note in the scope who asks. Raises `HTTPException` for a caller who is not let through."""
        headers = {name: value for name, value in scope["headers"] if name in (b"host", b"content-length")}
        if scope["path"] not in HEALTH and not self._hosts.allow(headers.get(b"host", b"")):
            raise HTTPException(421, "the server is not known by this Host; add the name to its allowed_hosts")
        is_open = _is_open(scope["path"])
        caller = self._callers.of(scope, is_open)
        scope.setdefault("state", {}).update(caller=caller, request_id=uuid4().hex)
        if not is_open:
            self._rates.charge(caller.name, 1)
        if caller.role is None:
            why = caller.fault or "give an API key in the header x-api-key"
            raise HTTPException(401, why, {"www-authenticate": "Bearer" if caller.fault else "ApiKey"})
        if int(headers.get(b"content-length", b"0")) > self._settings.max_body_bytes:
            raise HTTPException(413, self._too_large())

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
        route = getattr(scope.get("route"), "path_format", "(none)")
        self._meters.seconds.labels(route).observe(seconds)
        self._meters.answers.labels(route, str(status)).inc()
        if route not in PROBES:
            logger.info("request", extra={"route": route, "status": status, "ms": round(1000 * seconds, 2)})


def _is_open(path: str) -> bool:
    return path in PUBLIC_PATHS or path.startswith("/static/")
