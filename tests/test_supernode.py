"""A node's two processes: what becomes of the SuperNode if the process of its messages ends."""

import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flwr.app import RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.supercore.constant import TaskType
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from fedrec.data.errors import InputError
from fedrec.federation.deployment import supernode
from fedrec.federation.deployment.supernode import LOST, NodeConfig

SUPERNODE = """
import sys, time
with open(sys.argv[1], "a+") as log:
    print("started", file=log, flush=True)
    log.seek(0)
    starts = len(log.readlines())
if starts < int(sys.argv[2]):
    time.sleep(600)
sys.exit(3)
"""
"""A stand-in that runs until it is ended, and from its n-th start on ends by itself with the status 3."""

PROCESS = """
import os, sys, time
while len(open(sys.argv[1]).readlines()) < int(sys.argv[2]):
    time.sleep(0.02)
exec(sys.argv[3])
"""
"""A stand-in that ends in a given way, when the SuperNode has started."""


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> NodeConfig:
    monkeypatch.setattr(supernode, "ABSENCE", 0.0)
    return NodeConfig("localhost:1", Path("ca.crt"), Path("key"), {})


def run(config: NodeConfig, folder: Path, monkeypatch: pytest.MonkeyPatch, ends: list[str], starts: int) -> int:
    """Run a node whose processes of messages end in these ways, one after the other, and whose SuperNode ends by
    itself at its last start; return its exit status."""
    script, log = folder / "supernode.py", folder / "log"
    script.write_text(SUPERNODE)
    log.touch()
    ways = iter(ends)
    asked: list[bool] = []

    def command(*_: object) -> list[str]:
        asked.append(True)
        return [sys.executable, str(script), str(log), str(starts)]

    def process(*_: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(log), str(len(asked)), next(ways, "time.sleep(600)")]
        )

    monkeypatch.setattr(supernode, "_command", command)
    monkeypatch.setattr(supernode, "_process", process)
    status = supernode.run_node(config)
    assert len(log.read_text().splitlines()) == starts
    return status


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", f"sys.exit({LOST})"])
def test_a_lost_message_starts_the_node_again(
    config: NodeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """flwr's SuperNode would wait for the answer for ever, and take in no other message."""
    assert run(config, tmp_path, monkeypatch, [end, end], starts=3) == 3


def test_an_answered_message_leaves_the_supernode_alone(
    config: NodeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = ["sys.exit(0)"] * 3 + ["os.kill(os.getpid(), 9)"]
    assert run(config, tmp_path, monkeypatch, ends, starts=2) == 3


def test_an_installation_that_cannot_answer_ends_the_node(
    config: NodeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="mend the installation"):
        run(config, tmp_path, monkeypatch, ["sys.exit(1)"], starts=2)


@pytest.mark.parametrize("fetched", [True, False])
def test_a_supernode_waits_for_ever_for_a_message_that_was_half_fetched(fetched: bool) -> None:
    """Why it is started again. The process of a task is gone: flwr 1.41 answers by an error if the process had fetched
    the message, and not at all if it had begun the task alone."""
    state = InMemoryNodeState(InMemoryObjectStore())
    state.set_node_id(2)
    message = make_message(Metadata(1, "1", 1, 2, "", "", time.time(), 60.0, "train"), content=RecordDict())
    state.store_message(message)
    task = state.create_task(TaskType.CLIENT_APP, run_id=1)
    assert task
    assert state.claim_task(task)
    assert state.activate_task(task)
    if fetched:
        state.record_message_processing_start("1")
        assert state.get_messages_legacy(run_ids=[1], is_reply=False, limit=1) == [message]
    state.task_token_store[task].active_until = datetime.now(UTC)
    replies = state.get_messages_legacy(is_reply=True)
    assert [reply.has_error() for reply in replies] == [True] * fetched
    assert not state.get_messages_legacy(is_reply=True)
