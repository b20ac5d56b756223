"""A framework's processes as the driver sees them: started with another Python, asked by lines, answered in JSON."""

import json
import os
import socket
import subprocess
import sys
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.frameworks.work import sum_file
from fedrec.data.errors import InputError
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.tensors import load_tensors

ROOT = Path(__file__).resolve().parent.parent.parent
WAYS = ("blazefl-threads", "blazefl-processes", "pfl")
JOINED = "pfl"  # each of its workers is a process that is started by itself

Environments = list[dict[str, str]]


class MissingFramework(InputError):
    """A framework that is not installed for the Python that was named."""


def environments(way: str, workers: int) -> Environments:
    """Return the environment variables of each process of a way: its torch threads, and how pfl's find each other."""
    shared = {"OMP_NUM_THREADS": "1"}  # of each worker: they use the cores together
    if way != JOINED:
        return [shared]
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    # the first address is where they meet; of the others their number counts
    addresses = ",".join(f"localhost:{port + rank}" for rank in range(workers))
    return [shared | {"PFL_WORKER_ADDRESSES": addresses, "PFL_WORKER_RANK": str(rank)} for rank in range(workers)]


def check_python(python: Path) -> Path:
    """Return the path of an interpreter. Raises `InputError` if there is none."""
    if not (python.is_file() and os.access(python, os.X_OK)):
        raise InputError(
            f"--python: {python} is no Python to run; make it by the commands in benchmarks/frameworks/__init__.py"
        )
    return python.absolute()  # not resolved: a link in an environment's bin/ is what selects that environment


def parse_answer(line: str, way: str) -> dict[str, Any]:
    """Parse a line of a framework's process. Raises `MissingFramework`, or `InputError` if it has ended."""
    try:
        answer = json.loads(line)
    except json.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        said = f"answered {line.strip()!r}" if line.strip() else "ended"
        raise InputError(f"{way}: the framework's process {said}; what it printed is above")
    if "missing" in answer:
        raise MissingFramework(f"{way}: {answer['missing']}")
    return answer


@dataclass
class Framework(AbstractContextManager["Framework"]):
    """A way to train the clients' work in a folder, ready in processes of its own until it is closed."""

    way: str
    folder: Path
    processes: list["subprocess.Popen[str]"]
    about: dict[str, str]  # the framework's name and version, torch's and Python's

    @classmethod
    def start(cls, way: str, folder: Path, python: Path, workers: int) -> "Framework":
        """Start the processes, and wait until they are ready. Raises `MissingFramework` and `InputError`."""
        command = [str(check_python(python)), "-m", "benchmarks.frameworks.serve", way, str(folder)]
        started = cls(way, folder, [], {})
        for environment in environments(way, workers):
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sys.stderr,
                env=os.environ | environment,
                cwd=ROOT,
                encoding="utf-8",
            )
            started.processes.append(process)
        try:
            started.about = started._answers()[0]
        except InputError:
            started.close()
            raise
        return started

    def run_round(self) -> None:
        """Let all processes run a round. Raises `InputError` if one of them ends."""
        self._ask("round")

    def total(self) -> Adapter:
        """Return the sum of the clients' changes in the last round."""
        self._ask("save")
        return load_tensors(sum_file(self.folder, self.way))

    def close(self) -> None:
        """End the processes: they read no further line. One that has not ended after ten seconds is killed."""
        for process in self.processes:
            with suppress(BrokenPipeError):
                if process.stdin:
                    process.stdin.close()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            with process:  # it waits, and closes the other pipe
                pass

    def _ask(self, line: str) -> None:
        for process in self.processes:
            if process.stdin:
                with suppress(BrokenPipeError):  # of a process that has ended: it gives no answer
                    print(line, file=process.stdin, flush=True)
        self._answers()

    def _answers(self) -> list[dict[str, Any]]:
        lines = [process.stdout.readline() if process.stdout else "" for process in self.processes]
        return [parse_answer(line, self.way) for line in lines]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
