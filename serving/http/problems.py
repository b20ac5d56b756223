"""RFC 9457: whatever goes wrong is told the same way, names the field, and repeats nothing that was sent."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fedrec.serving.engine import UnanswerableError
from fedrec.serving.index.filters import ColumnError
from fedrec.serving.schema import FieldError, Problem
from fedrec.serving.store import StoreBusyError

MOST = 10
"""Faults told of one request."""

LONGEST, LONGEST_FIELD = 1_000, 100
"""Characters of a problem's detail, and of a field's name, which may be the caller's own word."""

RETRY = {"retry-after": "5"}
logger = logging.getLogger("fedrec")

_PROBLEM: dict[str, Any] = {
    "model": Problem,
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_WHY = {
    400: "the body is not JSON",
    401: "a key or a user's token is needed, or this one is not known",
    403: "this key or token may not do that",
    404: "not known",
    405: "another method is needed",
    408: "the request did not arrive whole in time",
    413: "the body is too large",
    421: "the server is not known by this Host",
    422: "a field is wrong; `errors` names it",
    429: "too much is asked; `retry-after` tells when to come again",
    431: "the headers are too long",
    503: "the model is still loading, the store is locked or full, or the answer took too long",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route can answer beside success, for the OpenAPI."""
    return {status: _PROBLEM | {"description": _WHY[status]} for status in statuses}


def problem(
    status: int, detail: str, errors: list[FieldError] | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An answer in bounds, whatever a caller's own words (the names of unknown fields) come to."""
    told = [
        FieldError(field=_short(fault.field, LONGEST_FIELD), detail=_short(fault.detail, LONGEST))
        for fault in (errors or [])[:MOST]
    ]
    title = HTTPStatus(status).phrase
    body = Problem(title=title, status=status, detail=_short(detail, LONGEST), errors=told)
    return JSONResponse(body.model_dump(), status, headers, media_type="application/problem+json")


def add_problems(app: FastAPI) -> None:
    @app.exception_handler(UnanswerableError)
    async def refused(_: Request, error: UnanswerableError) -> JSONResponse:
        return problem(error.status, str(error), [FieldError(field=error.where, detail=error.detail)])

    @app.exception_handler(ColumnError)
    async def unfit(_: Request, error: ColumnError) -> JSONResponse:
        return problem(422, str(error), [FieldError(field=error.column, detail=error.detail)])

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        entries = error.errors()
        faults = [FieldError(field=_field(entry), detail=_detail(entry)) for entry in entries[:MOST]]
        unreadable = any(entry["type"] == "json_invalid" for entry in entries)
        detail = "; ".join(f"{_short(fault.field, LONGEST_FIELD)}: {fault.detail}" for fault in faults[:3])
        more = f"; and {len(entries) - 3:,} more" if len(entries) > 3 else ""
        return problem(400 if unreadable else 422, detail + more, faults)

    @app.exception_handler(StoreBusyError)
    async def busy(_: Request, error: StoreBusyError) -> JSONResponse:
        logger.error("%s", error)
        return problem(503, str(error), headers=RETRY)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return problem(500, f"the server failed ({type(error).__name__}); its log tells more")

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        detail = str(error.detail)
        faults = [FieldError(field="body", detail=detail)] if error.status_code == HTTPStatus.BAD_REQUEST else []
        return problem(error.status_code, detail, faults, error.headers)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


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
