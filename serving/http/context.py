"""What handlers need of the server and of the request: one dependency for all of them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from fedrec.data.ids import id_fault
from fedrec.serving.batcher import Batcher
from fedrec.serving.cost import question_cost
from fedrec.serving.engine import Engine
from fedrec.serving.experiment import ARMS, Experiment
from fedrec.serving.http.callers import Caller
from fedrec.serving.http.metrics import Meters
from fedrec.serving.http.rate_limiter import RateLimiter
from fedrec.serving.http.tokens import Tokens
from fedrec.serving.model_manager import ModelManager
from fedrec.serving.refusals import UnanswerableError
from fedrec.serving.schema.answers import Answer
from fedrec.serving.schema.questions import Question
from fedrec.serving.store import HIDDEN, LIKED


@dataclass(frozen=True, eq=False)
class Services:
    """The parts of a running server, in `app.state.services`."""

    manager: ModelManager
    batcher: Batcher
    limiter: RateLimiter
    metrics: Meters
    tokens: Tokens | None
    experiment: Experiment | None = None


@dataclass(frozen=True, eq=False)
class RequestContext:
    """Everything a handler needs, as one dependency: resolving several costs more than looking up an item."""

    services: Services
    caller: Caller
    request_id: str

    @cached_property
    def engines(self) -> tuple[Engine, ...]:
        """The engines that answer this request, whatever replaces them meanwhile. Raises `ModelNotReadyError`."""
        return self.services.manager.require_engines()

    @property
    def engine(self) -> Engine:
        """The engine of the caller's arm."""
        return self.engines[self.arm_of()]

    def arm_of(self, user: str | None = None) -> int:
        """Return the arm of a stored user, or else of the caller: 0 unless two models answer."""
        experiment = self.services.experiment
        if experiment is None:
            return 0
        return experiment.choose_arm(self.caller.unit if user is None else f"user {user}")

    def label_answer(self, answer: Answer, arm: int, place: int | None = None) -> Answer:
        """Name the request, and the arm if two models answer; `place` is the question's in a batch."""
        request_id, experiment = self.request_id, self.services.experiment
        if experiment is not None:
            answer.arm, request_id = ARMS[arm], experiment.mark_request(request_id, arm)
            experiment.count_shown(arm)
            self.services.metrics.count_shown(ARMS[arm])
        answer.request_id = request_id if place is None else f"{request_id}-{place}"
        return answer

    @property
    def tokens(self) -> Tokens:
        """Raises `HTTPException` 404 if the server has no token secret."""
        if self.services.tokens is None:
            raise HTTPException(404, "this server has no token_secret, and issues no user tokens; set one")
        return self.services.tokens

    def charge(self, questions: Sequence[Question]) -> int:
        """Count the cost beyond the plain question that the request was already counted as; return the whole cost."""
        cost = sum(map(question_cost, questions))
        self.services.limiter.charge(self.caller.name, cost - 1)
        return cost

    async def with_stored_history(self, question: Question) -> Question:
        """Replace a question's `user` by that user's stored history, and exclude hidden items.

        Raises `HTTPException` if the caller is neither that user nor an administrator.
        """
        if question.user is None:
            return question
        self.caller.require_user(question.user)
        stored = await asyncio.to_thread(self.services.manager.store.feedback_of, question.user)
        hidden = [feedback.item_id for feedback in stored if feedback.kind == HIDDEN]
        history = [feedback.item_id for feedback in stored if feedback.kind in LIKED]
        return question.model_copy(update={"user": None, "history": history, "exclude": [*question.exclude, *hidden]})

    def require_row(self, item_id: str) -> int:
        """Return an item's row. Raises `UnanswerableError` if it is not on offer, or is no valid id."""
        if (row := self.engine.catalogue.find_row(item_id)) is None:
            check_id("item_id", item_id)
            raise UnanswerableError("item_id", "is not on offer", status=404)
        return row


def check_id(field: str, text: str) -> None:
    """Raise `UnanswerableError` if a text cannot be an id."""
    if fault := id_fault(text):
        raise UnanswerableError(field, fault)


async def request_context(request: Request) -> RequestContext:
    """Collect the context of a request that passed `RequestGuard`."""
    return RequestContext(request.app.state.services, request.state.caller, request.state.request_id)


async def require_admin(request: Request) -> None:
    """Raise `HTTPException` 403 for a caller without an admin key."""
    request.state.caller.require_admin()


Context = Annotated[RequestContext, Depends(request_context)]
