"""What arrives together is answered together, and in turn: who asks a hundred questions at once, or costly ones, keeps
those who ask one waiting for no more than a pass."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Condition, Thread

from fedrec.serving.cost import cost
from fedrec.serving.engine import Engine, UnanswerableError
from fedrec.serving.schema import Answer, Question
from fedrec.serving.threads import run_in_new_thread

MAX_BATCH = 8
"""Plain questions in one pass: more gain little, and while some are encoded others are read and answered."""

WORK = 500
"""Plain questions whose work one request may ask for: some seconds of it."""


@dataclass(frozen=True, eq=False)
class PendingQuestion:
    """A question, the engine that was live when it came, and where its answer goes."""

    engine: Engine
    question: Question
    answer: asyncio.Future[Answer | UnanswerableError]


@dataclass(frozen=True)
class Failure:
    """What a question ran into that is no refusal."""

    error: Exception


class Batcher:
    """One thread encodes; what comes while it is busy waits, and goes together next. Nobody waits for company.

    The thread takes what waits by itself: were it handed over by the event loop, which reads and answers meanwhile, the
    cores would stand still between two passes for a tenth of the time.
    """

    def __init__(self) -> None:
        self._requests: deque[deque[PendingQuestion]] = deque()  # each with its questions that wait
        self._come = Condition()
        self._closed = False
        self._thread = Thread(target=self._encode, name="fedrec-encode", daemon=True)
        self._thread.start()

    async def answer(self, engine: Engine, question: Question) -> Answer:
        """Raises `UnanswerableError`."""
        (answer,) = await self.answers(engine, [question])
        if isinstance(answer, UnanswerableError):
            raise answer
        return answer

    async def answers(self, engine: Engine, questions: Sequence[Question]) -> list[Answer | UnanswerableError]:
        """One request's. Raises `UnanswerableError` if they are too much work together."""
        if (work := sum(map(cost, questions))) > WORK:
            raise UnanswerableError(
                "questions", f"are as much work as {work:,} plain ones, and {WORK:,} are the most; ask fewer"
            )
        if any(question.query is not None for question in questions):
            await _able_to_read(engine)
        loop = asyncio.get_running_loop()
        come = [PendingQuestion(engine, question, loop.create_future()) for question in questions]
        with self._come:
            self._requests.append(deque(come))
            self._come.notify()
        return list(await asyncio.gather(*(waiting.answer for waiting in come)))

    def close(self) -> None:
        """Answer who waits, and end."""
        with self._come:
            self._closed = True
            self._come.notify()
        self._thread.join()

    def _encode(self) -> None:
        while self._passed():
            pass

    def _passed(self) -> bool:
        """One pass, or False once it is closed. No question or answer of it is in reach while the next is awaited."""
        if going := self._next():
            answers = _each(going[0].engine, [waiting.question for waiting in going])
            going[0].answer.get_loop().call_soon_threadsafe(_deliver, going, answers)
        return bool(going)

    def _next(self) -> list[PendingQuestion]:
        """Who goes in the next pass, once somebody waits; nobody after it is closed.

        Requests take turns, a question each, so long as they are for one engine and no more work than `MAX_BATCH` plain
        questions has begun.
        """
        with self._come:
            self._come.wait_for(lambda: self._expecting() or self._closed)
            going: list[PendingQuestion] = []
            work = 0
            while self._requests and work < MAX_BATCH and (not going or self._requests[0][0].engine is going[0].engine):
                request = self._requests.popleft()
                going.append(request.popleft())
                work += cost(going[-1].question)
                if request:
                    self._requests.append(request)
            return going

    def _expecting(self) -> bool:
        """Whether somebody waits who has not given up; whoever has is forgotten."""
        waiting = (deque(each for each in request if not each.answer.cancelled()) for request in self._requests)
        self._requests = deque(request for request in waiting if request)
        return bool(self._requests)


def _deliver(going: Sequence[PendingQuestion], answers: Sequence[Answer | UnanswerableError | Failure]) -> None:
    for waiting, answer in zip(going, answers, strict=True):
        if waiting.answer.cancelled():
            continue
        if isinstance(answer, Failure):
            waiting.answer.set_exception(answer.error)
        else:
            waiting.answer.set_result(answer)


def _each(engine: Engine, questions: Sequence[Question]) -> list[Answer | UnanswerableError | Failure]:
    """All together; where that fails, one by one, so that none fails by another's fault."""
    try:
        return list(engine.recommend_all(questions))
    except Exception as error:
        if len(questions) == 1:
            return [Failure(error)]
        return [answer for question in questions for answer in _each(engine, [question])]


async def _able_to_read(engine: Engine) -> None:
    """The text encoder may still be loading: who asks by text waits, and nobody else."""
    if not engine.reads_texts:
        await asyncio.to_thread(run_in_new_thread, engine.load_encoder)
