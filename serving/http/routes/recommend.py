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
    cost = context.charge([question])
    question = await context.with_stored_history(question)
    if question.vector is not None and cost == 1 and context.engine.catalogue.index.is_small:
        answer = context.engine.recommend(question)  # faster than handing it to a thread
    else:
        answer = await context.services.batcher.answer(context.engine, question)
    answer.request_id = context.request_id
    return json_response(answer)


@router.post("/recommend:batch", response_model=Answers, responses=POST_PROBLEMS, openapi_extra=FOR_ALL)
async def recommend_batch(batch: Questions, context: Context) -> Response:
    """Answer several questions at once; if one cannot be answered, all are refused."""
    context.charge(batch.questions)
    questions = [await context.with_stored_history(question) for question in batch.questions]
    answers = await context.services.batcher.answer_all(context.engine, questions)
    for place, answer in enumerate(answers):
        if isinstance(answer, UnanswerableError):
            raise UnanswerableError(f"questions.{place}.{answer.field}", answer.detail)
        answer.request_id = f"{context.request_id}-{place}"
    return json_response(Answers.model_construct(answers=answers))


@router.get("/search", response_model=Answer, responses=GET_PROBLEMS)
async def search(q: Text, context: Context, k: K = 10, details: Details = False) -> Response:
    """Search items by text: those with it in their title first, then those about it."""
    context.charge([Question(query=q, k=k)])
    answer = await asyncio.to_thread(run_in_new_thread, partial(context.engine.search, q, k, details))
    answer.request_id = context.request_id
    return json_response(answer)
