"""What can be asked under `/v1`, and by whom."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from starlette.exceptions import HTTPException

from fedrec.data.ids import id_fault
from fedrec.serving.batcher import Batcher
from fedrec.serving.cost import cost
from fedrec.serving.engine import Engine, UnanswerableError
from fedrec.serving.http.callers import Caller
from fedrec.serving.http.fast_json import FastJsonRoute, FastPathRoute
from fedrec.serving.http.middleware import Metrics
from fedrec.serving.http.problems import documented
from fedrec.serving.http.rates import Rates
from fedrec.serving.http.security_schemes import FOR_ADMINS, FOR_ALL, FOR_USERS
from fedrec.serving.http.tokens import Tokens
from fedrec.serving.live_catalogue import POPULARITY, ItemRecord
from fedrec.serving.model_manager import ModelManager
from fedrec.serving.schema import (
    MAX_K,
    Answer,
    Answers,
    Everybody,
    Feedback,
    ItemId,
    KnownItem,
    ModelInfo,
    Models,
    NewItem,
    NewToken,
    Question,
    Questions,
    SentId,
    StoredFeedback,
    Token,
    UserData,
    UserId,
)
from fedrec.serving.store import HIDDEN, LIKED
from fedrec.serving.threads import run_in_new_thread

LOADING = "the model is loading"
"""What a server tells that is not ready yet."""

K = Annotated[int, Query(ge=1, le=MAX_K, description="how many items to answer")]
Sent = Annotated[SentId, Path(description="an id, percent-encoded: a slash in it as %2F")]
"""An id to look up. It may break the rule for ids: what an older version took in can still be seen and erased."""

ASKING = documented(400, 401, 403, 413, 422, 429, 503)
LOOKING = documented(401, 404, 422, 429, 503)
CHANGING = documented(400, 401, 403, 404, 413, 422, 429, 503)
OWN = documented(401, 403, 422, 429, 503)


async def _live(request: Request) -> ModelManager:
    return request.app.state.live


async def _ready(request: Request) -> Engine:
    """The engine that answers this request, whatever takes its place meanwhile."""
    live: ModelManager = request.app.state.live
    if live.engine is None:
        failed = f"the model could not be loaded: {live.failure}"
        raise HTTPException(503, failed if live.failure else LOADING)
    return live.engine


async def _caller(request: Request) -> Caller:
    return request.state.caller


async def _admin(request: Request) -> None:
    request.state.caller.require_admin()


async def _tokens(request: Request) -> Tokens:
    if (tokens := request.app.state.tokens) is None:
        raise HTTPException(404, "this server has no token_secret, and makes no user tokens; set one")
    return tokens


async def _meters(request: Request) -> Metrics:
    return request.app.state.meters


@dataclass(frozen=True)
class RequestContext:
    """All that answering takes, as one dependency: FastAPI takes longer over each than an item takes to be told."""

    engine: Engine
    live: ModelManager
    together: Batcher
    rates: Rates
    caller: Caller
    request_id: str

    def charge(self, questions: Sequence[Question]) -> None:
        """Count what these cost beyond the plain question that the request has been counted as."""
        self.rates.charge(self.caller.name, sum(map(cost, questions)) - 1)

    async def resolved(self, question: Question) -> Question:
        """A question for a user who is remembered, as one with that history, and without what was hidden.

        Raises `HTTPException` if the caller is neither that user nor an administrator.
        """
        if question.user is None:
            return question
        self.caller.require_user(question.user)
        kept = await asyncio.to_thread(self.live.store.feedback_of, question.user)
        hidden = [feedback.item_id for feedback in kept if feedback.kind == HIDDEN]
        history = [feedback.item_id for feedback in kept if feedback.kind in LIKED]
        return question.model_copy(update={"user": None, "history": history, "exclude": [*question.exclude, *hidden]})


async def _desk(request: Request) -> RequestContext:
    state, own = request.app.state, request.state
    return RequestContext(await _ready(request), state.live, state.together, state.rates, own.caller, own.request_id)


def _row(engine: Engine, item_id: str) -> int:
    """Where an item stands. Raises `UnanswerableError` for one that is not on offer, or cannot be."""
    if (row := engine.shelf.row(item_id)) is None:
        raise _refused("item_id", item_id) or UnanswerableError("item_id", "is not on offer", status=404)
    return row


def _refused(where: str, text: str) -> UnanswerableError | None:
    fault = id_fault(text)
    return UnanswerableError(where, fault) if fault else None


EngineDep = Annotated[Engine, Depends(_ready)]
ManagerDep = Annotated[ModelManager, Depends(_live)]
MetricsDep = Annotated[Metrics, Depends(_meters)]
Asker = Annotated[Caller, Depends(_caller)]
Signing = Annotated[Tokens, Depends(_tokens)]

asking = APIRouter(prefix="/v1", tags=["asking"], route_class=FastJsonRoute)
remembering = APIRouter(prefix="/v1", tags=["remembering, by consent"], route_class=FastJsonRoute)
changing = APIRouter(prefix="/v1", tags=["administration"], route_class=FastJsonRoute, dependencies=[Depends(_admin)])


def _json(answer: Answer | Answers) -> Response:
    """As it is: the schema made it, and checking it again would take longer than the search."""
    return Response(answer.model_dump_json(), media_type="application/json")


async def recommend(question: Question, request: Request) -> Response:
    """The top k for a history, a text, both, or a user vector; seen items are left out unless asked for."""
    desk = await _desk(request)
    desk.charge([question])
    question = await desk.resolved(question)
    if question.vector is not None and cost(question) == 1 and desk.engine.shelf.index.quick:
        answer = desk.engine.recommend(question)  # sooner than a thread would begin
    else:
        answer = await desk.together.answer(desk.engine, question)
    answer.request_id = desk.request_id
    return _json(answer)


async def recommend_batch(asked: Questions, request: Request) -> Response:
    """Several questions at once; where one cannot be answered, none is."""
    desk = await _desk(request)
    desk.charge(asked.questions)
    questions = [await desk.resolved(question) for question in asked.questions]
    answers = await desk.together.answers(desk.engine, questions)
    for place, answer in enumerate(answers):
        if isinstance(answer, UnanswerableError):
            raise UnanswerableError(f"questions.{place}.{answer.where}", answer.detail)
        answer.request_id = f"{desk.request_id}-{place}"
    return _json(Answers.model_construct(answers=answers))


def add_recommend(app: FastAPI) -> None:
    """On the app itself, and read directly: FastAPI's way into an included router takes as long as a search."""
    for path, endpoint, answer in (
        ("/v1/recommend", recommend, Answer),
        ("/v1/recommend:batch", recommend_batch, Answers),
    ):
        app.router.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            response_model=answer,
            responses=ASKING,
            tags=["asking"],
            openapi_extra=FOR_ALL,
            route_class_override=FastPathRoute,
        )


@asking.get("/search", response_model=Answer, responses=LOOKING)
async def search(
    q: Annotated[
        str,
        Query(min_length=1, max_length=2000, description="a part of a title, or what it is about", examples=["heist"]),
    ],
    desk: Annotated[RequestContext, Depends(_desk)],
    k: K = 10,
    details: Annotated[bool, Query(description="tell each item's columns, too")] = False,
) -> Response:
    """Items by text: those with it in their title first, then those that are about it."""
    desk.charge([Question(query=q, k=k)])
    answer = await asyncio.to_thread(run_in_new_thread, partial(desk.engine.search, q, k, details))
    answer.request_id = desk.request_id
    return _json(answer)


@asking.get("/items/{item_id:id}/similar", response_model=Answer, responses=LOOKING)
def similar(item_id: Sent, desk: Annotated[RequestContext, Depends(_desk)], k: K = 10) -> Response:
    """The items nearest to one item."""
    desk.charge([Question(history=["one"], k=k)])
    _row(desk.engine, item_id)
    answer = desk.engine.similar(item_id, k)
    answer.request_id = desk.request_id
    return _json(answer)


@asking.get("/items/{item_id:id}", responses=LOOKING)
def item(item_id: Sent, engine: EngineDep) -> KnownItem:
    """All that is told of an item."""
    row = _row(engine, item_id)
    told = engine.shelf.properties(row)
    return KnownItem(item_id=told["item_id"], title=told["title"], text=told["text"], columns=engine.shelf.told(row))


@asking.get("/models", responses=documented(401, 429, 503))
def models(engine: EngineDep, live: ManagerDep) -> Models:
    """The model that answers."""
    return Models(models=[_known(engine, live)])


def _known(engine: Engine, live: ModelManager) -> ModelInfo:
    recommender = engine.recommender
    return ModelInfo(
        model_version=recommender.version,
        items=len(engine.shelf),
        since=live.since,
        name=recommender.card["data"]["name"],
        recall=engine.shelf.index.recall,
        mode=recommender.card["config"].get("mode"),
        fallback=None if engine.shelf.popularity is None else POPULARITY,
    )


@remembering.post("/feedback", status_code=201, responses=ASKING, openapi_extra=FOR_USERS)
def feedback(told: Feedback, engine: EngineDep, live: ManagerDep, caller: Asker) -> StoredFeedback:
    """Keep what a user did with an item, if the user has agreed: with the user's token. Sent again, it counts once."""
    caller.require_user(told.user)
    if engine.shelf.row(told.item_id) is None:
        raise UnanswerableError("item_id", "is not on offer")
    return live.store.note(told)


@remembering.get("/users/{user:id}", responses=OWN, openapi_extra=FOR_USERS)
def user(user: Sent, live: ManagerDep, caller: Asker) -> UserData:
    """All that is kept of a user, with the user's token: nothing, of one who never agreed."""
    caller.require_user(user)
    kept = live.store.feedback_of(user)
    if not kept and (refused := _refused("user", user)):
        raise refused
    return UserData(user=user, feedback=kept)


@remembering.delete("/users/{user:id}", status_code=204, responses=OWN, openapi_extra=FOR_USERS)
def erase(user: Sent, live: ManagerDep, caller: Asker) -> None:
    """Forget a user, with the user's token."""
    caller.require_user(user)
    if not live.store.erase(user) and (refused := _refused("user", user)):
        raise refused


@changing.get("/users", responses=CHANGING, openapi_extra=FOR_ADMINS)
def users(
    live: ManagerDep,
    after: Annotated[str, Query(description="the last user of the page before")] = "",
    k: Annotated[int, Query(ge=1, le=MAX_K, description="how many users to answer")] = 100,
) -> Everybody:
    """Of whom something is kept, also under ids that could not come in any more."""
    return Everybody(users=live.store.users(after, k))


@changing.post("/users/{user:id}/token", status_code=201, responses=CHANGING, openapi_extra=FOR_ADMINS)
def token(user: UserId, tokens: Signing, new: NewToken | None = None) -> Token:
    """A token by which one user is known, to be handed to that user's browser or app alone."""
    signed, expires = tokens.sign(user, (new or NewToken()).seconds)
    return Token(user=user, token=signed, expires=expires.isoformat())


@changing.put("/items/{item_id:id}", responses=CHANGING, openapi_extra=FOR_ADMINS)
def put_item(item_id: ItemId, new: NewItem, engine: EngineDep, live: ManagerDep) -> KnownItem:
    """Offer an item from now on, by its text, or in place of the one with this id. No training is needed."""
    return item(item_id, live.put(ItemRecord(item_id, new.title, new.text or new.title, new.columns)))


@changing.delete("/items/{item_id:id}", status_code=204, responses=CHANGING, openapi_extra=FOR_ADMINS)
def drop_item(item_id: Sent, engine: EngineDep, live: ManagerDep) -> None:
    """Offer an item no more."""
    if not live.drop(item_id):
        _row(engine, item_id)


@changing.post("/models:reload", responses=CHANGING, openapi_extra=FOR_ADMINS)
def reload(live: ManagerDep) -> ModelInfo:
    """Open the model's folder anew. It answers once it can; no request fails, and none sees two models."""
    try:
        return _known(live.reload(), live)
    except Exception as error:
        raise HTTPException(503, f"the old model goes on: {error}") from error
