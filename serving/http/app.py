"""The endpoint: `create_app(load)` → FastAPI. Histories, queries and vectors are neither logged nor stored."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from fedrec.serving.batcher import Batcher
from fedrec.serving.http.context import Services
from fedrec.serving.http.documentation import add_documentation
from fedrec.serving.http.metrics import Metrics
from fedrec.serving.http.middleware import RequestGuard
from fedrec.serving.http.problems import add_problem_handlers
from fedrec.serving.http.rate_limiter import RateLimiter
from fedrec.serving.http.routes import health, items, models, recommend, users
from fedrec.serving.http.security_schemes import add_security_schemes
from fedrec.serving.http.tokens import Tokens
from fedrec.serving.index.external_index import open_indexes
from fedrec.serving.model_manager import Load, ModelManager
from fedrec.serving.settings import Settings
from fedrec.serving.store import Store

STATIC = Path(__file__).parent / "static"
ROUTERS = (
    *(recommend.router, items.router, models.router, users.router),
    *(users.administration, items.administration, models.administration, health.router),
)


def create_app(
    load: Load,
    settings: Settings | None = None,
    folder: Path | None = None,
    loaded: Callable[[], object] = lambda: None,
) -> FastAPI:
    """Build the endpoint over the model that `load` returns; it loads once the server is up.

    `folder`, the run's, may hold a saved index. `loaded` is called when everything is loaded. Raises `InputError` if
    the store or the index cannot be used.
    """
    settings, metrics = settings or Settings(), Metrics()
    limiter, secret = RateLimiter(settings.rate_per_minute), settings.token_secret
    tokens = Tokens(secret.get_secret_value()) if secret else None
    store, indexes = Store(settings.store), open_indexes(settings.index_address, settings.index_key)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        manager = ModelManager(load, store, folder, loaded, indexes)
        services = Services(manager, Batcher(), limiter, metrics, tokens)
        app.state.services = services
        Thread(target=services.manager.start, daemon=True).start()
        yield
        services.batcher.close()
        store.close()
        if indexes:
            indexes.close()

    app = FastAPI(
        title="fedrec",
        description="Top-k recommendations from a history, a text, or a vector computed on the device.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    for router in ROUTERS:
        app.router.routes += router.routes  # `include_router` would nest them, which costs as much as a search
    _add_page(app)
    add_problem_handlers(app)
    add_security_schemes(app)
    _add_middleware(app, settings, metrics, limiter)
    return app


def _add_middleware(app: FastAPI, settings: Settings, metrics: Metrics, limiter: RateLimiter) -> None:
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
