"""Health, for monitors."""

from fastapi import APIRouter

from fedrec.serving.http.context import Context
from fedrec.serving.http.problems import document_problems
from fedrec.serving.http.routes.routers import COMMON_PROBLEMS
from fedrec.serving.schema.status import Health

router = APIRouter(responses=COMMON_PROBLEMS)


@router.get("/healthz")
async def healthz() -> Health:
    """Report that the process is alive."""
    return Health(status="alive")


@router.get("/readyz", responses=document_problems(503))
async def readyz(context: Context) -> Health:
    """Report whether the model is loaded: if not, the problem's `state` is `loading` or `failed`."""
    engines = context.engines
    versions = " ".join(engine.recommender.version for engine in engines)
    return Health(status="ready", model_version=versions, items=len(engines[0].catalogue))
