"""Errors in the format of RFC 9457: they name the field, and repeat nothing of the request."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fedrec.serving.index.filters import ColumnError
from fedrec.serving.index.vector_service import IndexAwayError
from fedrec.serving.model_manager import ModelNotReadyError
from fedrec.serving.refusals import UnanswerableError
from fedrec.serving.schema.status import FieldError, Problem
from fedrec.serving.store import StoreBusyError

MAX_FAULTS = 10
"""Faults reported of one request."""

MAX_DETAIL, MAX_FIELD = 1_000, 100
"""Characters of a problem's detail, and of a field's name, which may be the caller's own word."""

RETRY = {"retry-after": "5"}
logger = logging.getLogger("fedrec")

_PROBLEM: dict[str, Any] = {
    "model": Problem,
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_DESCRIPTIONS = {
    400: "the body is not JSON",
    401: "a key or a user's token is needed, or this one is not known",
    403: "this key or token may not do that",
    404: "not found",
    405: "another method is needed",
    408: "the request did not arrive whole in time",
    413: "the body is too large",
    421: "the server is not known by this Host",
    422: "a field is wrong; `errors` names it",
    429: "the rate limit is exceeded; `retry-after` says when to try again",
    431: "the headers are too long",
    503: "the model is still loading, the store is locked or full, the index is away, or the answer took too long",
}


def document_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a route for the OpenAPI."""
    return {status: _PROBLEM | {"description": _DESCRIPTIONS[status]} for status in statuses}


def problem_response(
    status: int,
    detail: str,
    errors: list[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
    state: Literal["loading", "failed"] | None = None,
) -> JSONResponse:
    """Build an answer of limited size, however long the caller's own words (the names of unknown fields) are."""
    faults = [
        FieldError(field=_shorten(fault.field, MAX_FIELD), detail=_shorten(fault.detail, MAX_DETAIL))
        for fault in (errors or [])[:MAX_FAULTS]
    ]
    title = HTTPStatus(status).phrase
    body = Problem(title=title, status=status, detail=_shorten(detail, MAX_DETAIL), errors=faults, state=state)
    return JSONResponse(body.model_dump(exclude_none=True), status, headers, media_type="application/problem+json")


def add_problem_handlers(app: FastAPI) -> None:
    @app.exception_handler(UnanswerableError)
    async def refuse_question(_: Request, error: UnanswerableError) -> JSONResponse:
        return problem_response(error.status, str(error), [FieldError(field=error.field, detail=error.detail)])

    @app.exception_handler(ColumnError)
    async def refuse_column(_: Request, error: ColumnError) -> JSONResponse:
        return problem_response(422, str(error), [FieldError(field=error.column, detail=error.detail)])

    @app.exception_handler(RequestValidationError)
    async def refuse_request(_: Request, error: RequestValidationError) -> JSONResponse:
        entries = error.errors()
        faults = [FieldError(field=_field_path(entry), detail=_fault_detail(entry)) for entry in entries[:MAX_FAULTS]]
        unreadable = any(entry["type"] == "json_invalid" for entry in entries)
        detail = "; ".join(f"{_shorten(fault.field, MAX_FIELD)}: {fault.detail}" for fault in faults[:3])
        more = f"; and {len(entries) - 3:,} more" if len(entries) > 3 else ""
        return problem_response(400 if unreadable else 422, detail + more, faults)

    @app.exception_handler(StoreBusyError)
    async def report_busy_store(_: Request, error: StoreBusyError) -> JSONResponse:
        logger.error("%s", error)
        return problem_response(503, str(error), headers=RETRY)

    @app.exception_handler(IndexAwayError)
    async def report_absent_index(_: Request, error: IndexAwayError) -> JSONResponse:
        logger.error("%s", error)
        return problem_response(503, "the index cannot be used now; see the server's log", headers=RETRY)

    @app.exception_handler(ModelNotReadyError)
    async def report_state(_: Request, error: ModelNotReadyError) -> JSONResponse:
        return problem_response(503, str(error), state=error.state)

    @app.exception_handler(Exception)
    async def report_failure(_: Request, error: Exception) -> JSONResponse:
        return problem_response(500, f"the server failed ({type(error).__name__}); see its log")

    @app.exception_handler(HTTPException)
    async def report_http_error(_: Request, error: HTTPException) -> JSONResponse:
        detail = str(error.detail)
        faults = [FieldError(field="body", detail=detail)] if error.status_code == HTTPStatus.BAD_REQUEST else []
        return problem_response(error.status_code, detail, faults, error.headers)


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _field_path(entry: dict[str, Any]) -> str:
    """Convert `("body", "history", 3)` to `history.3`; the whole body is `body`, also if it is not JSON."""
    place, *path = entry["loc"]
    return str(place) if entry["type"] == "json_invalid" else ".".join(map(str, path)) or str(place)


def _fault_detail(entry: dict[str, Any]) -> str:
    """Describe a fault without the value: a history must not appear in an error or a log."""
    known = {
        "extra_forbidden": "this field is not known",
        "model_attributes_type": "should be a JSON object, sent as application/json",
    }
    return known.get(entry["type"], str(entry["msg"]).removeprefix("Value error, "))
