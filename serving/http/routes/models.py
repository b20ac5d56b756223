"""The model that answers: its description, and its reload."""

from starlette.exceptions import HTTPException

from fedrec.serving.engine import Engine
from fedrec.serving.experiment import ARMS
from fedrec.serving.http.context import Context
from fedrec.serving.http.problems import document_problems
from fedrec.serving.http.routes.routers import ADMIN_PROBLEMS, admin_router, public_router
from fedrec.serving.http.security_schemes import FOR_ADMINS
from fedrec.serving.live_catalogue import POPULARITY
from fedrec.serving.schema.status import ModelInfo, Models

router, administration = public_router("recommendations"), admin_router()


@router.get("/models", responses=document_problems(401, 429, 503))
def list_models(context: Context) -> Models:
    """Describe the model that answers, or both models of an A/B test."""
    since, arms = context.services.manager.since, ARMS if context.services.experiment else [None]
    return Models(models=[_describe_model(*each, since) for each in zip(context.engines, arms, strict=True)])


@administration.post("/models:reload", responses=ADMIN_PROBLEMS, openapi_extra=FOR_ADMINS)
def reload_model(context: Context) -> ModelInfo:
    """Open the model's folder again, or those of both models of an A/B test.

    Each request is answered by an old model or by a new one, and none fails.
    """
    manager = context.services.manager
    try:
        arm = ARMS[0] if context.services.experiment else None
        return _describe_model(manager.reload()[0], arm, manager.since)
    except Exception as error:
        raise HTTPException(503, f"the model could not be reloaded, the old one keeps answering: {error}") from error


def _describe_model(engine: Engine, arm: str | None, since: str) -> ModelInfo:
    recommender = engine.recommender
    return ModelInfo(
        model_version=recommender.version,
        arm=arm,
        items=len(engine.catalogue),
        since=since,
        name=recommender.card["data"]["name"],
        recall=engine.catalogue.index.recall,
        mode=recommender.card["config"].get("mode"),
        fallback=None if engine.catalogue.popularity is None else POPULARITY,
    )
