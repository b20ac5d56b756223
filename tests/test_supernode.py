"""A node's two processes: the connection to its server, and the one that answers its messages."""

import multiprocessing
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from flwr.app import Message, RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run, RunNotRunningException
from torch import Tensor

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.node_folders import partition_dataset
from fedrec.data.partition import partition_evenly
from fedrec.federation import client_app, wire
from fedrec.federation.config import to_flat
from fedrec.federation.deployment import message_process, supernode
from fedrec.federation.deployment.packed_message import PackedMessage, Question
from fedrec.federation.deployment.supernode import LOST, Connection, SuperNode
from fedrec.federation.deployment.worker import Worker
from fedrec.federation.parcel import unwrap
from tests.support import answering
from tests.support.toy_world import small_config

ROOT = Path(__file__).resolve().parents[1]
NODE = 2


def packed(kind: str, run: int) -> PackedMessage:
    metadata = Metadata(run, "", 1, NODE, "", "1", 0.0, 3600.0, kind)
    return PackedMessage.of(make_message(metadata, content=RecordDict()))


class Server:
    """A server with messages for one node, as the node's connection sees it."""

    def __init__(self, *kinds: str, run: int = 1) -> None:
        self.messages = [packed(kind, run) for kind in kinds]
        self.parts = {name: part for message in self.messages for name, part in message.contents.items()}
        self.told: list[str] = []  # by calls, what it was asked beside messages
        self.answers: list[tuple[Message, ObjectTree]] = []
        self.refused = 0  # answers that it will refuse
        self.pieces: dict[str, bytes] = {}

    def receive(self) -> tuple[Message, ObjectTree] | None:
        if not self.messages:
            return None
        first = self.messages.pop(0)
        return first.message, first.object_tree

    def send(self, message: Message, tree: ObjectTree, seconds: float) -> tuple[set[str], str]:
        if self.refused:
            self.refused -= 1
            raise OSError("the line is cut")
        self.answers.append((message, tree))
        names, branches = set[str](), [tree]
        while branches:
            branch = branches.pop()
            names.add(branch.object_id)
            branches.extend(branch.children)
        return names, "session"

    def get_run(self, run: int) -> Run:
        self.told.append("run")
        return Run.create_empty(run)

    def get_fab(self, digest: str, run: int) -> Fab:
        self.told.append("bundle")
        return Fab(digest, b"bundle", {})

    def connection(self) -> Connection:
        def keep(run: int, session: str, name: str, part: bytes) -> None:
            self.pieces[name] = part

        return Connection(
            NODE,
            self.receive,
            self.send,
            self.get_run,
            self.get_fab,
            lambda run, name: self.parts[name],
            keep,
            lambda run, name: None,
        )

    def answer(self, number: int) -> Message:
        head, tree = self.answers[number]
        return PackedMessage(b"", tree.SerializeToString(), self.pieces).unpack() if head.has_content() else head


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(supernode, "get_fused_config_from_fab", lambda bundle, run: {})
    with Worker(answering.__name__) as worker:
        yield worker


def about(server: Server, number: int) -> dict[str, Any]:
    tree = server.answers[number][1]
    message = PackedMessage(b"", tree.SerializeToString(), server.pieces).unpack()
    return dict(message.content.config_records["about"]) if not message.has_error() else {"error": message.error.reason}


def test_one_process_answers_until_it_is_killed_and_another_takes_its_place(worker: Worker) -> None:
    """The message that it had gets an error at once: the server does not wait for it, and the node misses no other."""
    server = Server("query.a", "query.b", "query.killed", "query.c", "query.last", "query.d")
    node = SuperNode(server.connection(), worker, {})
    assert [node.answer_next() for _ in range(7)] == [True] * 6 + [False]
    first, second, lost, third, last, fresh = [about(server, number) for number in range(6)]
    assert lost == {"error": LOST}
    assert [told["answered"] for told in (first, second, third, last, fresh)] == [1, 2, 1, 2, 1]
    assert first["process"] == second["process"] != third["process"] == last["process"] != fresh["process"]
    assert server.told == ["run", "bundle"]
    # at rest, memory is given back: the process that has answered is gone, and one waits that has opened nothing
    worker.rest()
    assert not psutil.pid_exists(fresh["process"])
    waiting = worker._process.pid
    worker.rest()
    assert worker._process.pid == waiting


def test_every_message_gets_an_answer(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error, if its parts do not come or its answer cannot be sent; none if its run has ended."""
    server = Server("query.a", "query.b", "query.c", "query.d")
    parts, server.parts = server.parts, {}
    node = SuperNode(server.connection(), worker, {})
    assert node.answer_next()
    assert about(server, 0) == {"error": "the message could not be fetched: KeyError"}
    server.parts, server.refused = parts, 1
    assert node.answer_next()
    assert about(server, 1) == {"error": "the answer could not be sent; the node's log says why"}
    ended = server.connection()._replace(confirm=ends)
    assert not SuperNode(ended, worker, {}).answer_next()
    assert node.answer_next()
    assert len(server.answers) == 3
    assert about(server, 2)["answered"] == 2


def ends(run: int, name: str) -> None:
    raise RunNotRunningException


def test_an_installation_that_cannot_answer_ends_the_node(worker: Worker) -> None:
    node = SuperNode(Server("query.broken").connection(), worker, {})
    with pytest.raises(InputError, match="mend the installation"):
        node.answer_next()


def test_a_run_gets_nothing_of_the_run_before(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    """One process, two runs with other settings, over other folders: the first one's node is closed, and each answer is
    of its own folder."""
    folders = partition_dataset(Dataset.open(toy), tmp_path / "split", partition_evenly(12, 2), keep_salts=True)
    ours, its = multiprocessing.Pipe()
    bundle = b"taken for ours"
    message_process.admit.cache_clear()
    serving = threading.Thread(target=message_process.serve, args=(its,))
    opened = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(message_process.app_bundle, "refuse_foreign", lambda content, expected: None)
        serving.start()
        for run, folder in enumerate(folders, start=1):
            config = to_flat(small_config(rounds=run))
            where = {"data": str(folder), "persistent": False, "simulated": True}
            ours.send(Question(packed(wire.CENSUS, run), run, NODE, where, config, bundle))
            content = unwrap(ours.recv().message.unpack().content)
            tickets = Dataset.open(folder).shard.tickets()
            assert sorted(content.array_records["census"]["tickets"].numpy()) == sorted(tickets)
            place = client_app.NodePlace.of(where)
            opened.append(weakref.ref(client_app.open_node(place, client_app.from_run_config(config))))
            assert client_app.open_node.cache_info().currsize == 1
        ours.close()
        serving.join()
    assert [node() is None for node in opened] == [True, False]
    message_process.admit.cache_clear()
    client_app.close_nodes()
