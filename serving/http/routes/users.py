"""Feedback of users who consent to its storage, and the tokens by which they access it."""

from typing import Annotated

from fastapi import Query

from fedrec.serving.http.context import Context, check_id
from fedrec.serving.http.routes.routers import (
    ADMIN_PROBLEMS,
    POST_PROBLEMS,
    USER_PROBLEMS,
    Sent,
    admin_router,
    public_router,
)
from fedrec.serving.http.security_schemes import FOR_ADMINS, FOR_USERS
from fedrec.serving.refusals import UnanswerableError
from fedrec.serving.schema.feedback import Everybody, Feedback, NewToken, StoredFeedback, Token, UserData
from fedrec.serving.schema.fields import UserId
from fedrec.serving.schema.questions import MAX_K

router, administration = public_router("feedback, by consent"), admin_router()

After = Annotated[str, Query(description="the last user of the previous page")]
PageSize = Annotated[int, Query(ge=1, le=MAX_K, description="number of users to return")]


@router.post("/feedback", status_code=201, responses=POST_PROBLEMS, openapi_extra=FOR_USERS)
def add_feedback(feedback: Feedback, context: Context) -> StoredFeedback:
    """Store a consenting user's action on an item, with the user's token. Sent again, it counts once."""
    engines, services = context.engines, context.services
    context.caller.require_user(feedback.user)
    if all(engine.catalogue.find_row(feedback.item_id) is None for engine in engines):
        raise UnanswerableError("item_id", "is not on offer")
    experiment, store = services.experiment, services.manager.store
    arm = experiment.find_arm(feedback.request_id) if experiment else None
    stored, is_new = store.add_feedback(feedback, experiment.name if experiment and arm else None, arm)
    if arm and is_new and feedback.kind == "like":
        services.metrics.count_liked(arm)
    return stored


@router.get("/users/{user:id}", responses=USER_PROBLEMS, openapi_extra=FOR_USERS)
def read_user(user: Sent, context: Context) -> UserData:
    """Return all that is stored of a user, with the user's token; the list is empty for a user who never consented."""
    context.caller.require_user(user)
    stored = context.services.manager.store.feedback_of(user)
    if not stored:
        check_id("user", user)
    return UserData(user=user, feedback=stored)


@router.delete("/users/{user:id}", status_code=204, responses=USER_PROBLEMS, openapi_extra=FOR_USERS)
def erase_user(user: Sent, context: Context) -> None:
    """Erase all that is stored of a user, with the user's token."""
    context.caller.require_user(user)
    if not context.services.manager.store.erase_user(user):
        check_id("user", user)


@administration.get("/users", responses=ADMIN_PROBLEMS, openapi_extra=FOR_ADMINS)
def list_users(context: Context, after: After = "", k: PageSize = 100) -> Everybody:
    """List users with stored feedback, also those whose ids would be refused today."""
    return Everybody(users=context.services.manager.store.list_users(after, k))


@administration.post("/users/{user:id}/token", status_code=201, responses=ADMIN_PROBLEMS, openapi_extra=FOR_ADMINS)
def create_token(user: UserId, context: Context, new: NewToken | None = None) -> Token:
    """Issue a token that identifies one user, to be given to that user's browser or app alone."""
    signed, expires = context.tokens.sign(user, (new or NewToken()).seconds)
    return Token(user=user, token=signed, expires=expires.isoformat())
