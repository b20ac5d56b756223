"""Metrics, for monitors."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from fedrec.serving.http.problems import document_problems
from fedrec.serving.http.routes.routers import COMMON_PROBLEMS

router = APIRouter(responses=COMMON_PROBLEMS)


@router.get("/metrics", responses=document_problems(401, 429), response_class=Response)
def metrics(request: Request) -> Response:
    """Return metrics for Prometheus."""
    return Response(request.app.state.metrics.render(), media_type=CONTENT_TYPE_LATEST)
