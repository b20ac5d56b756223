"""Dynamic batching: requests that arrive together are answered together, fairly: a request with a hundred questions,
or costly ones, delays a request with a single question by at most one batch."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Condition, Thread

from fedrec.serving.cost import question_cost
from fedrec.serving.engine import Engine
from fedrec.serving.process_tuning import run_in_new_thread
from fedrec.serving.refusals import UnanswerableError
from fedrec.serving.schema.answers import Answer
from fedrec.serving.schema.questions import Question

MAX_BATCH = 8
"""Plain questions in a batch: more gain little, and meanwhile other requests are read and answered."""

MAX_WORK = 500
"""The work of one request at most, in plain questions: a few seconds."""


@dataclass(frozen=True, eq=False)
class PendingQuestion:
    """A question, the engine that was live when it arrived, and the future of its answer."""

    engine: Engine
    question: Question
    cost: int
    answer: asyncio.Future[Answer | UnanswerableError]


@dataclass(frozen=True)
class Failure:
    """An unexpected error while a question was answered."""

    error: Exception


class Batcher:
    """One thread encodes. Requests that arrive meanwhile form the next batch; a lone request is never delayed.

    The thread takes the next batch by itself: if the event loop handed it over, between reading and answering requests,
    the cores would idle between two batches for a tenth of the time.
    """

    def __init__(self) -> None:
        self._requests: deque[deque[PendingQuestion]] = deque()  # each with its pending questions
        self._arrival = Condition()
        self._closed = False
        self._thread = Thread(target=self._run, name="fedrec-encode", daemon=True)
        self._thread.start()

    async def answer(self, engine: Engine, question: Question) -> Answer:
        """Answer a request of one question. Raises `UnanswerableError`."""
        (answer,) = await self.answer_all([(engine, question)])
        if isinstance(answer, UnanswerableError):
            raise answer
        return answer

    async def answer_all(self, asked: Sequence[tuple[Engine, Question]]) -> list[Answer | UnanswerableError]:
        """Answer a request of questions, each to an engine.

        Raises `UnanswerableError` if they are too much work together.
        """
        costs = [question_cost(question) for _, question in asked]
        if (work := sum(costs)) > MAX_WORK:
            raise UnanswerableError(
                "questions", f"are as much work as {work:,} plain ones, and {MAX_WORK:,} are the most; ask fewer"
            )
        for engine in {engine for engine, question in asked if question.query is not None}:
            await _wait_for_text_encoder(engine)
        loop = asyncio.get_running_loop()
        pending = [
            PendingQuestion(engine, question, cost, loop.create_future())
            for (engine, question), cost in zip(asked, costs, strict=True)
        ]
        with self._arrival:
            self._requests.append(deque(pending))
            self._arrival.notify()
        return list(await asyncio.gather(*(each.answer for each in pending)))

    def close(self) -> None:
        """Answer all pending requests, and stop the thread."""
        with self._arrival:
            self._closed = True
            self._arrival.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._answer_batch():
            pass

    def _answer_batch(self) -> bool:
        """Answer the next batch; return False once closed. Nothing refers to a batch while the next one is awaited."""
        if batch := self._next_batch():
            answers = _answer_or_fail(batch[0].engine, [pending.question for pending in batch])
            batch[0].answer.get_loop().call_soon_threadsafe(_deliver, batch, answers)
        return bool(batch)

    def _next_batch(self) -> list[PendingQuestion]:
        """Wait for requests and form a batch; it is empty once the batcher is closed.

        Requests take turns, a question each, while they are for one engine and the batch has less work than `MAX_BATCH`
        plain questions.
        """
        with self._arrival:
            self._arrival.wait_for(lambda: self._has_requests() or self._closed)
            batch: list[PendingQuestion] = []
            work = 0
            while self._requests and work < MAX_BATCH and (not batch or self._requests[0][0].engine is batch[0].engine):
                request = self._requests.popleft()
                batch.append(request.popleft())
                work += batch[-1].cost
                if request:
                    self._requests.append(request)
            return batch

    def _has_requests(self) -> bool:
        """Drop cancelled questions; return whether any are left."""
        waiting = (deque(each for each in request if not each.answer.cancelled()) for request in self._requests)
        self._requests = deque(request for request in waiting if request)
        return bool(self._requests)


def _deliver(batch: Sequence[PendingQuestion], answers: Sequence[Answer | UnanswerableError | Failure]) -> None:
    for pending, answer in zip(batch, answers, strict=True):
        if pending.answer.cancelled():
            continue
        if isinstance(answer, Failure):
            pending.answer.set_exception(answer.error)
        else:
            pending.answer.set_result(answer)


def _answer_or_fail(engine: Engine, questions: Sequence[Question]) -> list[Answer | UnanswerableError | Failure]:
    """Answer questions together; if that fails, one by one, so that none fails because of another."""
    try:
        return list(engine.recommend_all(questions))
    except Exception as error:
        if len(questions) == 1:
            return [Failure(error)]
        return [answer for question in questions for answer in _answer_or_fail(engine, [question])]


async def _wait_for_text_encoder(engine: Engine) -> None:
    """Load the text encoder if it is not loaded yet: only questions by text wait for it."""
    if not engine.reads_texts:
        await asyncio.to_thread(run_in_new_thread, engine.load_text_encoder)
