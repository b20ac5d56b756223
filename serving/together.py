"""What arrives together is answered together: one pass of the encoder over many histories costs much less than many."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from serving.engine import Engine, Refused
from serving.schema import Answer, Question
from serving.threads import aside

MOST = 8
"""Questions in one pass: more gain little, and while some are encoded others are read and answered."""


@dataclass
class Waiting:
    """A question, the engine that was live when it came, and where its answer goes."""

    engine: Engine
    question: Question
    answer: asyncio.Future[Answer | Refused]


@dataclass(frozen=True)
class Failure:
    """What a question ran into that is no refusal."""

    error: Exception


@dataclass
class Together:
    """One thread encodes; what comes while it is busy waits, and goes together next. Nobody waits for company."""

    _waiting: list[Waiting] = field(default_factory=list)
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "fedrec-encode"))
    _busy: bool = False

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
        self._waiting += come
        if not self._busy:
            self._busy = True
            self._next()
        return list(await asyncio.gather(*(waiting.answer for waiting in come)))

    async def search(self, engine: Engine, text: str, k: int, details: bool) -> Answer:
        """Items by text."""
        await _able_to_read(engine)
        return await asyncio.get_running_loop().run_in_executor(self._thread, engine.search, text, k, details)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _next(self) -> None:
        """Hand over those that wait for the same engine as the first, and come back when they are answered."""
        self._waiting = [waiting for waiting in self._waiting if not waiting.answer.cancelled()]
        if not self._waiting:
            self._busy = False
            return
        engine = self._waiting[0].engine
        going = [waiting for waiting in self._waiting if waiting.engine is engine][:MOST]
        self._waiting = [waiting for waiting in self._waiting if waiting not in going]
        loop = asyncio.get_running_loop()
        done = loop.run_in_executor(self._thread, _each, engine, [waiting.question for waiting in going])
        done.add_done_callback(lambda answered: self._deliver(going, answered))

    def _deliver(self, going: list[Waiting], answered: asyncio.Future[list[Answer | Refused | Failure]]) -> None:
        for waiting, answer in zip(going, answered.result(), strict=True):
            if waiting.answer.cancelled():
                continue
            if isinstance(answer, Failure):
                waiting.answer.set_exception(answer.error)
            else:
                waiting.answer.set_result(answer)
        self._next()


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
