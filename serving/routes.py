"""What can be asked under `/v1`, and by whom."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from starlette.exceptions import HTTPException

from serving.body import Direct, Route
from serving.cost import cost
from serving.engine import Engine, Refused
from serving.gate import ADMIN, Meters
from serving.live import Live
from serving.problems import documented
from serving.schema import (
    MAX_K,
    Answer,
    Answers,
    Feedback,
    ItemId,
    Kept,
    Known,
    KnownItem,
    Models,
    NewItem,
    Person,
    Question,
    Questions,
)
from serving.shelf import POPULARITY, Goods
from serving.store import HIDDEN, LIKED, Busy
from serving.threads import aside
from serving.together import Together

LOADING = "the model is loading"
"""What a server tells that is not ready yet."""

K = Annotated[int, Query(ge=1, le=MAX_K, description="how many items to answer")]
ASKING = documented(400, 401, 413, 422, 429, 503)
LOOKING = documented(401, 404, 422, 429, 503)
CHANGING = documented(400, 401, 403, 404, 413, 422, 429, 503)


async def _live(request: Request) -> Live:
    return request.app.state.live


async def _ready(request: Request) -> Engine:
    """The engine that answers this request, whatever takes its place meanwhile."""
    live: Live = request.app.state.live
    if live.engine is None:
        failed = f"the model could not be loaded: {live.failure}"
        raise HTTPException(503, failed if live.failure else LOADING)
    return live.engine


async def _admin(request: Request) -> None:
    if request.scope["state"]["role"] != ADMIN:
        raise HTTPException(403, "this needs one of the server's admin_keys, in the header x-api-key")


async def _meters(request: Request) -> Meters:
    return request.app.state.meters


@dataclass(frozen=True)
class Desk:
    """All that answering takes, as one dependency: FastAPI takes longer over each than an item takes to be told."""

    engine: Engine
    live: Live
    together: Together
    request_id: str


async def _desk(request: Request) -> Desk:
    state = request.app.state
    return Desk(await _ready(request), state.live, state.together, request.state.request_id)


Ready = Annotated[Engine, Depends(_ready)]
Lively = Annotated[Live, Depends(_live)]
Metered = Annotated[Meters, Depends(_meters)]

asking = APIRouter(prefix="/v1", tags=["asking"], route_class=Route)
remembering = APIRouter(prefix="/v1", tags=["remembering, by consent"], route_class=Route)
changing = APIRouter(prefix="/v1", tags=["administration"], route_class=Route, dependencies=[Depends(_admin)])


def _json(answer: Answer | Answers) -> Response:
    """As it is: the schema made it, and checking it again would take longer than the search."""
    return Response(answer.model_dump_json(), media_type="application/json")


def _resolved(question: Question, live: Live) -> Question:
    """A question for a user who is remembered, as one with that history, and without what was hidden."""
    if question.user is None:
        return question
    kept = live.store.feedback_of(question.user)
    hidden = [feedback.item_id for feedback in kept if feedback.kind == HIDDEN]
    history = [feedback.item_id for feedback in kept if feedback.kind in LIKED]
    return question.model_copy(update={"user": None, "history": history, "exclude": [*question.exclude, *hidden]})


async def recommend(question: Question, request: Request) -> Response:
    """The top k for a history, a text, both, or a user vector; seen items are left out unless asked for."""
    desk = await _desk(request)
    question = _resolved(question, desk.live)
    if question.vector is not None and cost(question) == 1 and desk.engine.shelf.index.quick:
        answer = desk.engine.recommend(question)  # sooner than a thread would begin
    else:
        answer = await desk.together.answer(desk.engine, question)
    answer.request_id = desk.request_id
    return _json(answer)


def add_recommend(app: FastAPI) -> None:
    """On the app itself, and read directly: FastAPI's way into an included router takes as long as a search."""
    app.router.add_api_route(
        "/v1/recommend",
        recommend,
        methods=["POST"],
        response_model=Answer,
        responses=ASKING,
        tags=["asking"],
        route_class_override=Direct,
    )


@asking.post("/recommend:batch", response_model=Answers, responses=ASKING)
async def recommend_batch(asked: Questions, desk: Annotated[Desk, Depends(_desk)]) -> Response:
    """Several questions at once; where one cannot be answered, none is."""
    questions = [_resolved(question, desk.live) for question in asked.questions]
    answers = await desk.together.answers(desk.engine, questions)
    for place, answer in enumerate(answers):
        if isinstance(answer, Refused):
            raise Refused(f"questions.{place}.{answer.where}", answer.detail)
        answer.request_id = f"{desk.request_id}-{place}"
    return _json(Answers.model_construct(answers=answers))


@asking.get("/search", response_model=Answer, responses=LOOKING)
async def search(
    q: Annotated[
        str,
        Query(min_length=1, max_length=2000, description="a part of a title, or what it is about", examples=["heist"]),
    ],
    desk: Annotated[Desk, Depends(_desk)],
    k: K = 10,
    details: Annotated[bool, Query(description="tell each item's columns, too")] = False,
) -> Response:
    """Items by text: those with it in their title first, then those that are about it."""
    answer = await asyncio.to_thread(aside, partial(desk.engine.search, q, k, details))
    answer.request_id = desk.request_id
    return _json(answer)


@asking.get("/items/{item_id:path}/similar", response_model=Answer, responses=LOOKING)
def similar(item_id: str, desk: Annotated[Desk, Depends(_desk)], k: K = 10) -> Response:
    """The items nearest to one item."""
    answer = desk.engine.similar(item_id, k)
    answer.request_id = desk.request_id
    return _json(answer)


@asking.get("/items/{item_id:path}", responses=LOOKING)
def item(item_id: str, engine: Ready) -> KnownItem:
    """All that is told of an item."""
    if (row := engine.shelf.row(item_id)) is None:
        raise Refused("item_id", "is not on offer", status=404)
    told = engine.shelf.properties(row)
    return KnownItem(item_id=told["item_id"], title=told["title"], text=told["text"], columns=engine.shelf.told(row))


@asking.get("/models", responses=documented(401, 429, 503))
def models(engine: Ready, live: Lively) -> Models:
    """The model that answers."""
    return Models(models=[_known(engine, live)])


def _known(engine: Engine, live: Live) -> Known:
    recommender = engine.recommender
    return Known(
        model_version=recommender.version,
        items=len(engine.shelf),
        since=live.since,
        name=recommender.card["data"]["name"],
        recall=engine.shelf.index.recall,
        mode=recommender.card["config"].get("mode"),
        fallback=None if engine.shelf.popularity is None else POPULARITY,
    )


@remembering.post("/feedback", status_code=201, responses=ASKING)
def feedback(told: Feedback, engine: Ready, live: Lively) -> Kept:
    """Keep what a user did with an item, if the user has agreed. Sent again, it counts once."""
    if engine.shelf.row(told.item_id) is None:
        raise Refused("item_id", "is not on offer")
    return live.store.note(told)


@changing.get("/users/{user:path}", responses=CHANGING)
def user(user: ItemId, live: Lively) -> Person:
    """All that is kept of a user: nothing, of one who never agreed."""
    return Person(user=user, feedback=live.store.feedback_of(user))


@changing.delete("/users/{user:path}", status_code=204, responses=CHANGING)
def erase(user: ItemId, live: Lively) -> None:
    """Forget a user."""
    try:
        live.store.erase(user)
    except Busy as busy:
        raise HTTPException(503, str(busy), {"retry-after": "5"}) from busy


@changing.put("/items/{item_id:path}", responses=CHANGING)
def put_item(item_id: ItemId, new: NewItem, engine: Ready, live: Lively) -> KnownItem:
    """Offer an item from now on, by its text, or in place of the one with this id. No training is needed."""
    return item(item_id, live.put(Goods(item_id, new.title, new.text or new.title, new.columns)))


@changing.delete("/items/{item_id:path}", status_code=204, responses=CHANGING)
def drop_item(item_id: str, engine: Ready, live: Lively) -> None:
    """Offer an item no more."""
    if not live.drop(item_id):
        raise Refused("item_id", "is not on offer", status=404)


@changing.post("/models:reload", responses=CHANGING)
def reload(live: Lively) -> Known:
    """Open the model's folder anew. It answers once it can; no request fails, and none sees two models."""
    try:
        return _known(live.reload(), live)
    except Exception as error:
        raise HTTPException(503, f"the old model goes on: {error}") from error
