"""RFC 9457: whatever goes wrong is told the same way, names the field, and repeats nothing that was sent."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serving.engine import Refused
from serving.filters import Unfit
from serving.schema import Fault, Problem

_PROBLEM: dict[str, Any] = {
    "model": Problem,
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_WHY = {
    400: "the body is not JSON",
    401: "an API key is needed, or this one is not known",
    403: "this key may not do that",
    404: "not known",
    405: "another method is needed",
    413: "the body is too large",
    422: "a field is wrong; `errors` names it",
    429: "too many requests; `retry-after` tells when to come again",
    503: "the model is still loading, or the answer took too long",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route can answer beside success, for the OpenAPI."""
    return {status: _PROBLEM | {"description": _WHY[status]} for status in statuses}


def problem(
    status: int, detail: str, errors: list[Fault] | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors or [])
    return JSONResponse(body.model_dump(), status, headers, media_type="application/problem+json")


def add_problems(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return problem(error.status, str(error), [Fault(field=error.where, detail=error.detail)])

    @app.exception_handler(Unfit)
    async def unfit(_: Request, error: Unfit) -> JSONResponse:
        return problem(422, str(error), [Fault(field=error.column, detail=error.detail)])

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [Fault(field=_field(entry), detail=_detail(entry)) for entry in error.errors()]
        unreadable = any(entry["type"] == "json_invalid" for entry in error.errors())
        detail = "; ".join(f"{fault.field}: {fault.detail}" for fault in faults[:3])
        return problem(400 if unreadable else 422, detail, faults)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return problem(500, f"the server failed ({type(error).__name__}); its log tells more")

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
