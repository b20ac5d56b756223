"""The endpoint: `create_app(load)` → FastAPI. Histories, queries and vectors are neither logged nor kept."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from threading import Thread
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from recsys.recommender import Recommender
from serving.engine import Engine, Refused
from serving.schema import MAX_K, Answer, Fault, Health, Problem, Question

logger = logging.getLogger("fedrec")
_PROBLEM: dict[str, Any] = {
    "model": Problem,
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: _PROBLEM | {"description": "the body is not JSON"},
    422: _PROBLEM | {"description": "a field is wrong; `errors` names it"},
    503: _PROBLEM | {"description": "the model is still loading"},
}


def create_app(load: Callable[[], Recommender]) -> FastAPI:
    """The endpoint over what `load` returns, which runs once the server is up: alive at once, ready when loaded."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        Thread(target=_load, args=(app, load), daemon=True).start()
        yield

    app = FastAPI(
        title="fedrec",
        description="Top-k recommendations from a history, a text, or a vector computed on the device.",
        version="1",
        lifespan=lifespan,
    )
    app.state.engine, app.state.failure = None, None
    _add_routes(app)
    _add_problems(app)
    return app


def _load(app: FastAPI, load: Callable[[], Recommender]) -> None:
    try:
        app.state.engine = Engine(load()).warm()
    except Exception as error:  # readiness reports it; a thread's traceback would reach nobody
        app.state.failure = str(error)
        logger.error("the model could not be loaded: %s", error)


def _ready(request: Request) -> Engine:
    if request.app.state.engine is None:
        failure = request.app.state.failure
        raise HTTPException(503, f"the model could not be loaded: {failure}" if failure else "the model is loading")
    return request.app.state.engine


Ready = Annotated[Engine, Depends(_ready)]


def _add_routes(app: FastAPI) -> None:
    @app.post("/v1/recommend", responses=_PROBLEMS)
    def recommend(question: Question, engine: Ready) -> Answer:
        """The top k for a history, a text or a user vector; seen items are left out unless asked for."""
        return engine.recommend(question)

    @app.get(
        "/v1/items/{item_id:path}/similar", responses=_PROBLEMS | {404: _PROBLEM | {"description": "unknown item"}}
    )
    def similar(item_id: str, engine: Ready, k: Annotated[int, Query(ge=1, le=MAX_K)] = 10) -> Answer:
        """The items nearest to one item."""
        return engine.similar(item_id, k)

    @app.get("/healthz")
    def healthz() -> Health:
        """The process is alive."""
        return Health(status="alive")

    @app.get("/readyz", responses={503: _PROBLEMS[503]})
    def readyz(engine: Ready) -> Health:
        """The model is loaded and the index answers."""
        return Health(status="ready", model_version=engine.recommender.version, items=len(engine.index))


def _add_problems(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return problem(error.status, str(error), [Fault(field=error.where, detail=error.detail)])

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [Fault(field=_field(entry), detail=_detail(entry)) for entry in error.errors()]
        unreadable = any(entry["type"] == "json_invalid" for entry in error.errors())
        detail = "; ".join(f"{fault.field}: {fault.detail}" for fault in faults[:3])
        return problem(400 if unreadable else 422, detail, faults)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return problem(500, f"the server failed ({type(error).__name__}); its log tells more", [])

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        detail = str(error.detail)
        faults = [Fault(field="body", detail=detail)] if error.status_code == HTTPStatus.BAD_REQUEST else []
        return problem(error.status_code, detail, faults, error.headers)


def _field(entry: dict[str, Any]) -> str:
    """`("body", "history", 3)` → `history.3`; a whole body is `body`, also where it is not JSON."""
    place, *path = entry["loc"]
    return str(place) if entry["type"] == "json_invalid" else ".".join(map(str, path)) or str(place)


def _detail(entry: dict[str, Any]) -> str:
    """What is wrong, without the value: a refused history must not come back in an error or a log."""
    known = {
        "extra_forbidden": "this field is not known",
        "model_attributes_type": "should be a JSON object, sent as application/json",
    }
    return known.get(entry["type"], str(entry["msg"]).removeprefix("Value error, "))


def problem(status: int, detail: str, errors: list[Fault], headers: Mapping[str, str] | None = None) -> JSONResponse:
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors)
    return JSONResponse(body.model_dump(), status, headers, media_type="application/problem+json")
