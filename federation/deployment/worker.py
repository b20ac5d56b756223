"""A node's end of the process that answers its messages: it is started ahead, asked, and replaced if it ends."""

import logging
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from fedrec.data.errors import InputError
from fedrec.federation.deployment.packed_message import PackedMessage, Question, Reply
from fedrec.federation.deployment.tether import tethered

MODULE = "fedrec.federation.deployment.message_process"

logger = logging.getLogger("fedrec")


class Worker:
    """A process that answers messages, started ahead of its first one: its imports take longer than most answers.

    Where it ends, another takes its place.
    """

    def __init__(self, module: str = MODULE) -> None:
        self._module = module
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def ask(self, question: Question) -> PackedMessage | None:
        """Return the answer to a question, or None if the process ended before it had one.

        Raises `InputError` if what is installed cannot answer messages.
        """
        self.check()
        self._used = True
        try:
            self._line.send(question)
            reply: Reply = self._line.recv()
        except (EOFError, OSError):
            self._process.wait()
            self.check()
            return None
        if reply.last:
            self._restart()
        return reply.message

    def check(self) -> None:
        """Start another process if this one has ended. Raises `InputError` if it could not start."""
        if (status := self._process.poll()) is None:
            return
        if status > 0:
            raise InputError("this node cannot answer messages; the lines above say why: mend the installation")
        logger.warning("the process of the messages has ended with %s; another takes its place", status)
        self._restart()

    def rest(self) -> None:
        """Give back the memory of a process that has answered, and start one that has opened nothing."""
        if self._used:
            self._restart()

    def _start(self) -> None:
        """Start a process. `-P` keeps the working folder off the path, so that no file in it shadows a package."""
        ours, its = socket.socketpair()
        with its:
            command = [sys.executable, "-P", "-m", self._module, str(its.fileno())]
            self._process = subprocess.Popen(tethered(command), pass_fds=[its.fileno()])
        self._line, self._used = Connection(ours.detach()), False

    def _end(self) -> None:
        self._line.close()
        self._process.kill()
        self._process.wait()

    def _restart(self) -> None:
        self._end()
        self._start()
