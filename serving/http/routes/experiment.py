"""The A/B test, if two models answer."""

from fedrec.serving.http.context import Context
from fedrec.serving.http.routes.routers import ADMIN_PROBLEMS, admin_router
from fedrec.serving.http.security_schemes import FOR_ADMINS
from fedrec.serving.schema.experiment import ExperimentResult

administration = admin_router()


@administration.get("/experiment", responses=ADMIN_PROBLEMS, openapi_extra=FOR_ADMINS)
def read_experiment(context: Context) -> ExperimentResult:
    """Return what each arm has shown, how much of it was liked, and the difference with its confidence interval."""
    experiment = context.services.experiment
    assert experiment is not None  # the route is there only if it is
    return experiment.read_result(tuple(engine.recommender.version for engine in context.engines))
