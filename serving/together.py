"""What arrives together is answered together: one pass of the encoder over many histories costs much less than many."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Condition, Thread

from serving.engine import Engine, Refused
from serving.schema import Answer, Question
from serving.threads import aside

MOST = 8
"""Questions in one pass: more gain little, and while some are encoded others are read and answered."""


@dataclass(frozen=True, eq=False)
class Waiting:
    """A question, the engine that was live when it came, and where its answer goes."""

    engine: Engine
    question: Question
    answer: asyncio.Future[Answer | Refused]


@dataclass(frozen=True)
class Failure:
    """What a question ran into that is no refusal."""

    error: Exception


class Together:
    """One thread encodes; what comes while it is busy waits, and goes together next. Nobody waits for company.

    The thread takes what waits by itself: were it handed over by the event loop, which reads and answers meanwhile, the
    cores would stand still between two passes for a tenth of the time.
    """

    def __init__(self) -> None:
        self._waiting: list[Waiting] = []
        self._come = Condition()
        self._closed = False
        self._thread = Thread(target=self._encode, name="fedrec-encode", daemon=True)
        self._thread.start()

    async def answer(self, engine: Engine, question: Question) -> Answer:
        """Raises `Refused`."""
        (answer,) = await self.answers(engine, [question])
        if isinstance(answer, Refused):
            raise answer
        return answer

    async def answers(self, engine: Engine, questions: Sequence[Question]) -> list[Answer | Refused]:
        if any(question.query is not None for question in questions):
            await _able_to_read(engine)
        loop = asyncio.get_running_loop()
        come = [Waiting(engine, question, loop.create_future()) for question in questions]
        with self._come:
            self._waiting += come
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

    def _next(self) -> list[Waiting]:
        """The first who wait for one engine, once there are some; nobody after it is closed."""
        with self._come:
            self._come.wait_for(lambda: self._expecting() or self._closed)
            going = [waiting for waiting in self._waiting if waiting.engine is self._waiting[0].engine][:MOST]
            self._waiting = [waiting for waiting in self._waiting if waiting not in going]
            return going

    def _expecting(self) -> bool:
        """Whether somebody waits who has not given up."""
        self._waiting = [waiting for waiting in self._waiting if not waiting.answer.cancelled()]
        return bool(self._waiting)


def _deliver(going: Sequence[Waiting], answers: Sequence[Answer | Refused | Failure]) -> None:
    for waiting, answer in zip(going, answers, strict=True):
        if waiting.answer.cancelled():
            continue
        if isinstance(answer, Failure):
            waiting.answer.set_exception(answer.error)
        else:
            waiting.answer.set_result(answer)


def _each(engine: Engine, questions: Sequence[Question]) -> list[Answer | Refused | Failure]:
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
        await asyncio.to_thread(aside, engine.load_encoder)
