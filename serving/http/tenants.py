"""Several deployments in one process, each below `/t/NAME` with everything that a single one has at `/`.

A tenant's app is the app of a single deployment: it knows its own models, rows, keys and callers, and no other's. So
nothing has to be kept apart but the paths.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI, Response
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fedrec.serving.http.app import add_middleware
from fedrec.serving.http.problems import add_problem_handlers, document_problems, problem_response
from fedrec.serving.http.process import Process
from fedrec.serving.http.rate_limiter import RateLimiter
from fedrec.serving.http.routes import metering
from fedrec.serving.schema.status import Health
from fedrec.serving.settings import Settings

PREFIX = "/t/"


def build_tenants_app(apps: Mapping[str, FastAPI], settings: Settings, process: Process) -> FastAPI:
    """Build the app around those of all tenants: it answers for the process, and hands the rest on."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for app in apps.values():
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield

    root = FastAPI(title="fedrec", version="1", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    _add_health(root, apps)
    root.router.routes += metering.router.routes
    add_problem_handlers(root)
    limiter = RateLimiter(settings.rate_per_minute, process.windows)
    add_middleware(root, settings, process.metrics.of_tenant("", lambda: ()), limiter)
    root.add_middleware(TenantPaths, apps=apps)
    return root


def _add_health(root: FastAPI, apps: Mapping[str, FastAPI]) -> None:
    """Answer for the process, without the names of tenants: anybody may ask."""

    @root.get("/healthz")
    async def healthz() -> Health:
        return Health(status="alive")

    @root.get("/readyz", responses=document_problems(503), response_model=Health)
    async def readyz() -> Health | Response:
        managers = [app.state.services.manager for app in apps.values()]
        ready = sum(manager.engine is not None for manager in managers)
        if ready == len(managers):
            return Health(status="ready")
        state = "failed" if any(manager.failure for manager in managers) else "loading"
        return problem_response(503, f"{ready} of {len(managers)} tenants are ready", state=state)


class TenantPaths:
    """ASGI middleware that hands a request below `/t/NAME` to that tenant's app, as one for its own `/`."""

    def __init__(self, app: ASGIApp, apps: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._apps = {f"{PREFIX}{name}": tenant for name, tenant in apps.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = (scope.get("raw_path") or b"").decode("latin-1") if scope["type"] == "http" else ""
        prefix = "/".join(sent.split("/", 3)[:3])  # as it was sent: a name has no character to encode
        if (app := self._apps.get(prefix)) is None:
            await self._app(scope, receive, send)
        elif sent == prefix:
            await RedirectResponse(f"{prefix.removeprefix(PREFIX)}/")(scope, receive, send)
        else:
            inner = {"path": scope["path"][len(prefix) :], "raw_path": sent[len(prefix) :].encode("latin-1")}
            await app({**scope, **inner, "state": dict(scope.get("state", {}))}, receive, send)
