"""A federation of real processes over the toy world, with which things can go wrong."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import psutil
import pytest

from fedrec.data.dataset import Dataset
from fedrec.data.manifest import NODE_POLICY
from fedrec.data.node_folders import SERVER, partition_dataset
from fedrec.data.partition import UserPartition
from fedrec.federation import round_log
from fedrec.local_federation.certificates import AUTHORITY
from fedrec.local_federation.processes import LINK, Federation, federation, free_port, key_values
from tests.support import malicious_node
from tests.support.toy_world import SMALL

SERVER_APP = "flwr-serverapp"
PATIENCE = 240.0
"""Seconds for what must happen sooner or later; the machine may be busy."""

POLICY = """\
smallest_cohort = 1
smallest_open_statistics = 1
fewest_negatives = 16
methods = ["fedrec", "closed-form", "hybrid", "fedmf", "pfedrec"]
statistic_features = ["text", "ids"]
fewest_secure_clients = 1
"""
"""The policy of a node of one user and 24 items, as its owner writes it."""

RESTART = 5.0
"""Seconds between two starts of a node that is refused: each start costs seconds of processor time."""

WHOLE = 900.0
"""Seconds for a run to its end: on a busy machine a node takes half a minute to start the process of its messages."""


@dataclass
class Trial:
    """Its processes, the nodes' folders, and the run that they train."""

    here: Federation
    folders: list[Path]
    out: Path
    knobs: dict[str, Any]
    told: list[CompletedProcess[str]] = field(default_factory=list)

    def join(self, part: int, **how: Any) -> str:
        """Start the node that holds this part, for the first time or again; its name."""
        name = f"node-{part}"
        self.here.join(name, {"data": str(self.folders[part])}, **how)
        return name

    def join_unguarded(self, part: int, name: str) -> None:
        """Start Flower's own SuperNode over this part's folder: its executor runs whatever code a bundle brings."""
        here = self.here
        here.admit(name)
        command = ["flower-supernode", "--superlink", f"localhost:{here.port}", "--port", str(free_port())]
        command += ["--root-certificates", str(here.certificates / AUTHORITY)]
        command += ["--auth-supernode-private-key", str(here.keys / name)]
        command += ["--node-config", key_values({"data": str(self.folders[part])})]
        here.start(name, command)

    def join_malicious(self, part: int, lies: Mapping[int, str], pause: float = 0, port: int | None = None) -> None:
        """Start the node that holds this part, on a device that lies in these rounds: `slow` takes `pause` seconds, and
        `held` waits until `let_go` is called."""
        here, name = self.here, f"node-{part}"
        here.admit(name)
        arguments = here.node_arguments(name, {"data": str(self.folders[part])}, port)
        command = ["python", "-m", malicious_node.__name__, *arguments]
        here.start(name, command, surroundings=malicious_node.surroundings(lies, self._gate(name), pause))

    def let_go(self, name: str) -> None:
        """Let a node go on that is held."""
        self._gate(name).touch()

    def _gate(self, name: str) -> Path:
        return self.here.folder / f"{name}-goes-on"

    @contextmanager
    def running(self, **knobs: Any) -> Iterator[None]:
        """Run `flwr run` beside the block, and to its end; if the block fails, end it at once."""
        asked = self.knobs | knobs | {"data": str(self.folders[0].parent / SERVER), "out": str(self.out)}
        with ThreadPoolExecutor(1) as beside:
            run = beside.submit(self.here.run, asked, timeout=WHOLE)
            try:
                yield
            except BaseException:
                self.here.stop()
                raise
            self.told.append(run.result())

    def records(self) -> list[dict[str, Any]]:
        return round_log.read(self.out)

    def until(self, happened: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            if time.monotonic() > deadline:
                pytest.fail(f"{what} did not happen\n{self.story()}")
            time.sleep(0.1)

    def until_round(self, number: int) -> None:
        self.until(lambda: len(self.records()) >= number, f"the end of round {number}")

    def until_asked(self, name: str, round: int, kind: str = "train") -> None:
        """Wait until a node has got a message of this kind in this round."""
        self._until_told(name, f"ROUND {round}] {kind} message")

    def until_answered(self, name: str, round: int) -> None:
        """Wait until a node has answered a message of this round, in time or not."""
        self._until_told(name, f"ROUND {round}] answered")

    def _until_told(self, name: str, what: str) -> None:
        log = self.here.log(name)
        self.until(lambda: log.exists() and what in log.read_text(errors="replace"), f"{name}: {what}")

    def come_back(self, part: int) -> None:
        """Start a node that was killed, and again, as a supervisor does, while it is refused: until two heartbeats are
        missed, the SuperLink takes it for the one that it knows."""
        name = self.join(part)

        def is_back() -> bool:
            if (state := self.here.state(name)).startswith("ended"):
                self.here.kill(name)
                time.sleep(RESTART)
                self.join(part)
            return state == "connected"

        self.until(is_back, f"the return of {name}")

    def server_app(self) -> psutil.Process:
        """Find the process in which the rounds are run."""
        children = psutil.Process(self.here.running[LINK].pid).children(recursive=True)
        (found,) = [child for child in children if SERVER_APP in command_line(child)]
        return found

    def story(self) -> str:
        """Return the last lines of every log, to tell why a test failed."""
        logs = [
            f"{round_log.name}: {round_log.read_text(errors='replace')[-2500:]}"
            for round_log in self.here.folder.glob("*.log")
        ]
        said = [f"{done.stdout[-2500:]}\n{done.stderr[-2500:]}" for done in self.told]
        return "\n".join([*said, *logs, *(str(record) for record in self.records())])


@contextmanager
def trial(toy: Path, folder: Path, sizes: list[int], start: int, **knobs: Any) -> Iterator[Trial]:
    """Start a federation that deals the toy users by these numbers, with the first `start` of its nodes."""
    starts = np.cumsum([0, *sizes])
    partitions = [UserPartition(f"users {a} to {b - 1}", np.arange(a, b)) for a, b in pairwise(starts)]
    folders = partition_dataset(Dataset.open(toy), folder / "split", partitions, keep_salts=True)
    for node in folders:
        (node / NODE_POLICY).write_text(POLICY)
    with federation(folder / "flower", {}) as here:
        made = Trial(here, folders, folder / "run", SMALL | {"clients_per_round": 12} | knobs)
        for part in range(start):
            made.join(part)
        yield made


def command_line(process: psutil.Process) -> str:
    """Return the command of a process; empty if it has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie, too
        return ""
