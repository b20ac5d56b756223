"""Routers of `/v1`, query parameters, and the errors that groups of routes document."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from fedrec.serving.http.context import require_admin
from fedrec.serving.http.json_route import JsonRoute
from fedrec.serving.http.problems import document_problems
from fedrec.serving.schema.answers import Answer, Answers
from fedrec.serving.schema.fields import SentId
from fedrec.serving.schema.questions import MAX_K

K = Annotated[int, Query(ge=1, le=MAX_K, description="number of items to return")]
Details = Annotated[bool, Query(description="add each item's columns")]
Sent = Annotated[SentId, Path(description="an id, percent-encoded: a slash in it as %2F")]
"""An id to look up. It may break today's rule for ids, so that entries of an older version can be read and erased."""

COMMON_PROBLEMS = document_problems(405, 408, 421, 431)
POST_PROBLEMS = document_problems(400, 401, 403, 413, 422, 429, 503)
GET_PROBLEMS = document_problems(401, 404, 422, 429, 503)
USER_PROBLEMS = document_problems(401, 403, 422, 429, 503)
ADMIN_PROBLEMS = document_problems(400, 401, 403, 404, 413, 422, 429, 503)


def public_router(tag: str) -> APIRouter:
    return APIRouter(prefix="/v1", tags=[tag], route_class=JsonRoute, responses=COMMON_PROBLEMS)


def admin_router() -> APIRouter:
    """Build a router whose routes need an admin key."""
    router = public_router("administration")
    router.dependencies.append(Depends(require_admin))
    return router


def json_response(answer: Answer | Answers) -> Response:
    """Convert an answer to JSON without validating it again, which would take longer than the search."""
    return Response(answer.model_dump_json(), media_type="application/json")
