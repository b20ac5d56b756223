"""The endpoint: `create_app(load)` → FastAPI. Histories, queries and vectors are neither logged nor stored."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from fedrec.serving.database import Database
from fedrec.serving.experiment import ARMS, Experiment
from fedrec.serving.follower import Follower
from fedrec.serving.http.context import Services
from fedrec.serving.http.documentation import add_documentation
from fedrec.serving.http.metrics import Meters
from fedrec.serving.http.middleware import RequestGuard
from fedrec.serving.http.problems import add_problem_handlers
from fedrec.serving.http.process import Process
from fedrec.serving.http.rate_limiter import RateLimiter
from fedrec.serving.http.routes import experiment as experiments
from fedrec.serving.http.routes import health, items, metering, models, recommend, users
from fedrec.serving.http.security_schemes import add_security_schemes
from fedrec.serving.http.tokens import Tokens
from fedrec.serving.index.external_index import open_indexes
from fedrec.serving.model_manager import ModelManager
from fedrec.serving.model_source import Load, ModelSource
from fedrec.serving.settings import Settings
from fedrec.serving.store import Store

STATIC = Path(__file__).parent / "static"
ROUTERS = (
    *(recommend.router, items.router, models.router, users.router),
    *(users.administration, items.administration, models.administration, health.router),
)


def create_app(load: Load, settings: Settings | None = None, against: Load | None = None) -> FastAPI:
    """Build an endpoint of the model that `load` returns, or of two that an A/B test compares.

    They load once the server is up. Raises `InputError` if the store or the index cannot be used.
    """
    settings = settings or Settings()
    indexes = open_indexes(settings.index_address, settings.index_key)
    process = Process(Database.open(settings.store_address), indexes=indexes)
    sources = [ModelSource(each, indexes=indexes) for each in (load, against) if each]
    return host_app(build_app(sources, settings, process), process)


def build_app(sources: Sequence[ModelSource], settings: Settings, process: Process, tenant: str = "") -> FastAPI:
    """Build the app of a deployment: one model, or two that an A/B test compares, and its rows of the store.

    With `tenant`, it is one of several in a process.
    """
    store, secret = (
        Store(process.database, tenant),
        settings.token_secret.get_secret_value() if settings.token_secret else None,
    )
    tokens = Tokens(secret) if secret else None
    experiment = None
    if len(sources) > 1:
        experiment = Experiment(settings.experiment, settings.share, store, (secret or "").encode())
    manager = ModelManager(sources, store, process.loaded)
    arms = ARMS if experiment else (None,)
    meters = process.metrics.of_tenant(tenant, lambda: zip(arms, manager.engines, strict=False))
    limiter = RateLimiter(settings.rate_per_minute, process.windows, tenant)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.services = Services(manager, process.batcher, limiter, meters, tokens, experiment)
        follower = Follower(manager, experiment)
        follower.start()
        if process.waits:
            await asyncio.to_thread(manager.started.wait)
        yield
        follower.close()

    app = FastAPI(
        title="fedrec",
        description="Top-k recommendations from a history, a text, or a vector computed on the device.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        servers=[{"url": f"/t/{tenant}"}] if tenant else None,
    )
    more = [experiments.administration] if experiment else []
    for router in (*ROUTERS, *more, *([] if tenant else [metering.router])):  # the metrics are of all tenants
        app.router.routes += router.routes  # `include_router` would nest them, which costs as much as a search
    _add_page(app)
    add_problem_handlers(app)
    add_security_schemes(app)
    add_middleware(app, settings, meters, limiter)
    return app


def host_app(app: FastAPI, process: Process) -> FastAPI:
    """Run an app within its process: what they share is there before it, and closed after it."""
    own_lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with process.running():
            async with own_lifespan(app):
                yield

    app.router.lifespan_context = lifespan
    app.state.metrics = process.metrics
    return app


def add_middleware(app: FastAPI, settings: Settings, metrics: Meters, limiter: RateLimiter) -> None:
    """Let every request pass the checks and limits of the settings."""
    app.add_middleware(RequestGuard, settings=settings, metrics=metrics, limiter=limiter)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(map(str, settings.trusted_proxies)))
    if settings.cors_origins:  # outside the guard: a browser's preflight request has no key
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.cors_origins), allow_methods=["*"], allow_headers=["*"]
        )


def _add_page(app: FastAPI) -> None:
    """Add the web page and the documentation. The page's content-security policy allows this origin only."""

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"content-security-policy": "default-src 'self'"})

    add_documentation(app)
    app.mount("/static", StaticFiles(directory=STATIC))
