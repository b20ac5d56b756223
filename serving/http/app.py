"""The endpoint: `create_app(load)` → FastAPI. Histories, queries and vectors are neither logged nor kept."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread

from fastapi import FastAPI, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from fedrec.serving.batcher import Batcher
from fedrec.serving.http.documentation import add_documentation
from fedrec.serving.http.middleware import Metrics, RequestGuard
from fedrec.serving.http.problems import add_problems, documented
from fedrec.serving.http.rates import Rates
from fedrec.serving.http.routes import EngineDep, ManagerDep, MetricsDep, add_recommend, asking, changing, remembering
from fedrec.serving.http.security_schemes import add_security
from fedrec.serving.http.tokens import Tokens
from fedrec.serving.model_manager import Load, ModelManager
from fedrec.serving.schema import Health
from fedrec.serving.settings import Settings
from fedrec.serving.store import Store

STATIC = Path(__file__).parent / "static"


def create_app(
    load: Load,
    settings: Settings | None = None,
    folder: Path | None = None,
    loaded: Callable[[], object] = lambda: None,
) -> FastAPI:
    """The endpoint over what `load` returns, which runs once the server is up: alive at once, ready when loaded.

    `folder`, the run's, may keep an index that takes long to build. `loaded` is called when nothing more is to load.
    Raises `InputError` where the store cannot be used.
    """
    settings, meters = settings or Settings(), Metrics()
    rates, secret = Rates(settings.rate_per_minute), settings.token_secret
    store = Store(settings.store)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.together = Batcher()
        app.state.live = ModelManager(load, store, folder, loaded)
        Thread(target=app.state.live.start, daemon=True).start()
        yield
        app.state.together.close()
        store.close()

    app = FastAPI(
        title="fedrec",
        description="Top-k recommendations from a history, a text, or a vector computed on the device.",
        version="1",
        lifespan=lifespan,
        responses=documented(405, 408, 421, 431),
        docs_url=None,
        redoc_url=None,
    )
    app.state.meters, app.state.rates = meters, rates
    app.state.tokens = Tokens(secret.get_secret_value()) if secret else None
    add_recommend(app)
    for router in (asking, remembering, changing):
        app.include_router(router)
    _add_health(app)
    add_problems(app)
    add_security(app)
    app.add_middleware(RequestGuard, settings=settings, meters=meters, rates=rates)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(map(str, settings.trusted_proxies)))
    if settings.cors_origins:  # outside the gate: a browser asks whether it may ask without a key
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.cors_origins), allow_methods=["*"], allow_headers=["*"]
        )
    return app


def _add_health(app: FastAPI) -> None:
    @app.get("/healthz")
    async def healthz() -> Health:
        """The process is alive."""
        return Health(status="alive")

    @app.get("/readyz", responses=documented(503))
    async def readyz(engine: EngineDep) -> Health:
        """The model is loaded and the index answers."""
        return Health(status="ready", model_version=engine.recommender.version, items=len(engine.shelf))

    @app.get("/metrics", responses=documented(401, 429), response_class=Response)
    def metrics(meters: MetricsDep, live: ManagerDep) -> Response:
        """For Prometheus."""
        if live.engine:
            meters.tell(live.engine.recommender.version, len(live.engine.shelf))
        return Response(generate_latest(meters.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        """For people. What it loads and whom it asks is here, and nowhere else."""
        return FileResponse(STATIC / "index.html", headers={"content-security-policy": "default-src 'self'"})

    add_documentation(app)
    app.mount("/static", StaticFiles(directory=STATIC))
