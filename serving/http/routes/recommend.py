"""Recommendations and search."""

import asyncio
from functools import partial
from typing import Annotated

from fastapi import Query, Response

from fedrec.serving.http.context import Context
from fedrec.serving.http.routes.routers import GET_PROBLEMS, POST_PROBLEMS, Details, K, json_response, public_router
from fedrec.serving.http.security_schemes import FOR_ALL
from fedrec.serving.process_tuning import run_in_new_thread
from fedrec.serving.refusals import UnanswerableError
from fedrec.serving.schema.answers import Answer, Answers
from fedrec.serving.schema.questions import Question, Questions

router = public_router("recommendations")

Text = Annotated[
    str,
    Query(min_length=1, max_length=2000, description="a part of a title, or what it is about", examples=["heist"]),
]


@router.post("/recommend", response_model=Answer, responses=POST_PROBLEMS, openapi_extra=FOR_ALL)
async def recommend(question: Question, context: Context) -> Response:
    """Return the top k for a history, a text, both, or a user vector; by default without the items of the history."""
    cost, arm = context.charge([question]), context.arm_of(question.user)
    question, engine = await context.with_stored_history(question), context.engines[arm]
    if question.vector is not None and cost == 1 and engine.catalogue.index.is_small:
        answer = engine.recommend(question)  # faster than handing it to a thread
    else:
        answer = await context.services.batcher.answer(engine, question)
    return json_response(context.label_answer(answer, arm))


@router.post("/recommend:batch", response_model=Answers, responses=POST_PROBLEMS, openapi_extra=FOR_ALL)
async def recommend_batch(batch: Questions, context: Context) -> Response:
    """Answer several questions at once; if one cannot be answered, all are refused."""
    context.charge(batch.questions)
    arms = [context.arm_of(question.user) for question in batch.questions]
    questions = [await context.with_stored_history(question) for question in batch.questions]
    engines = [context.engines[arm] for arm in arms]
    answers = await context.services.batcher.answer_all(list(zip(engines, questions, strict=True)))
    answered: list[tuple[Answer, int, int]] = []
    for place, (answer, arm) in enumerate(zip(answers, arms, strict=True)):
        if isinstance(answer, UnanswerableError):
            raise UnanswerableError(f"questions.{place}.{answer.field}", answer.detail)
        answered.append((answer, arm, place))
    labelled = [context.label_answer(*each) for each in answered]  # a refused batch has shown nothing
    return json_response(Answers.model_construct(answers=labelled))


@router.get("/search", response_model=Answer, responses=GET_PROBLEMS)
async def search(q: Text, context: Context, k: K = 10, details: Details = False) -> Response:
    """Search items by text: those with it in their title first, then those about it."""
    context.charge([Question(query=q, k=k)])
    arm = context.arm_of()
    answer = await asyncio.to_thread(run_in_new_thread, partial(context.engines[arm].search, q, k, details))
    return json_response(context.label_answer(answer, arm))
