"""The same apps as real Flower processes, which share no memory: TLS, registered keys, and a folder each."""

import io
import json
import os
import re
import signal
import subprocess
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from flwr.app import Message
from flwr.proto.fab_pb2 import GetFabResponse
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from torch import Tensor

from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.shard import Shard
from fedrec.federation import wire
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.parcel import unwrap
from fedrec.federation.training_run import METRICS, open_run, train
from fedrec.local_federation.certificates import AUTHORITY, node_key
from fedrec.local_federation.processes import BIN, CONNECTED, Federation, environment, free_port, key_values, write_home
from fedrec.recsys.evaluation.ranking import metric_sums
from fedrec.recsys.recommender import Recommender
from tests.support import foreign_app
from tests.support.cli import Fedrec, is_refused
from tests.support.federation import Trial, trial
from tests.support.nginx import NGINX, front_door, reached
from tests.support.tls_proxy import Body, Line
from tests.support.toy_world import small_config

pytestmark = pytest.mark.timeout(900)  # one federation for most of them, whose first run they wait for

UNGUARDED = "unguarded"
KNOBS = {"rounds": 2, "nodes": 3, "bits": 8, "clients_per_round": 12}
BASELINE = {"method": "pfedrec", "bits": 32, "nodes": 2}
PHONES = KNOBS | {"nodes": 12, "rounds": 1, "validate_every": 1, "exposure_base": "auto"}

ASKED_OF_THE_LINK = (
    *("activate-node", "deactivate-node", "send-node-heartbeat", "get-run", "get-fab"),
    *("pull-messages", "pull-object", "confirm-message-received", "push-messages", "push-object"),
)


@dataclass(frozen=True)
class Told:
    """What a whole run over real processes left behind, and all that went between its nodes and the SuperLink."""

    trial: Trial
    sent: list[Body]
    received: list[Body]
    strangers: tuple[str, str]  # what a SuperNode says whose key nobody registered, and one without TLS
    loot: dict[str, Any]  # what a stranger's app, let run, had from each node: its three, and one that is not guarded
    at_the_door: subprocess.CompletedProcess[str] | None  # what `flwr run` of the same app says that comes as nodes do
    ports: list[int]  # on which a node, or the process that answers its messages, listens
    reached: tuple[set[str], set[str]]  # what of the SuperLink answered to tricks played at the door, and without one


@pytest.fixture(scope="module")
def told(toy: Path, embeddings: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A run of three nodes: one with ten users, and two of one user each, who answer in few bits."""
    folder = tmp_path_factory.mktemp("flower")
    with (
        trial(toy, folder, [10, 1, 1], 0, **KNOBS) as made,
        ExitStack() as stack,
        ThreadPoolExecutor(3) as beside,
    ):
        door = stack.enter_context(front_door(made.here)) if NGINX else made.here.port
        line = stack.enter_context(Line(door, made.here.certificates))
        unknown = beside.submit(refused, made.here, folder / "unknown", key=True)
        plain = beside.submit(refused, made.here, folder / "plain", key=False)
        for part in range(3):
            made.join(part, port=line.port)
        with made.running():
            pass
        assert (made.out / METRICS).exists(), made.story()
        sent, received = line.sent(), line.received()
        spy = foreign_app.write(folder / "spy")
        at_the_door = beside.submit(come_to_the_door, made.here, spy, door) if NGINX else None
        loot = plunder(made, spy)
        strangers, said = (unknown.result(), plain.result()), at_the_door and at_the_door.result()
        ports = [port for part in range(3) for port in listened_on(made.here, f"node-{part}")]
        tried = reached(made.here, door), reached(made.here, made.here.port)
        return Told(made, sent, received, strangers, loot, said, ports, tried)


def come_to_the_door(here: Federation, spy: Path, door: int) -> subprocess.CompletedProcess[str]:
    """`flwr run` by a stranger who knows what a node knows: the address, and the authority's certificate."""
    write_home(here.folder / "stranger", door, here.certificates / AUTHORITY)
    return here.flwr("run", str(spy), "here", home=here.folder / "stranger", timeout=200)


def plunder(made: Trial, spy: Path) -> dict[str, Any]:
    """What the stranger's app brings back from each node, if it is let run as if it were the operator's. A fourth
    node has the folder of the first, and Flower's own executor."""
    made.join_unguarded(0, UNGUARDED)
    made.until(lambda: made.here.state(UNGUARDED) == "connected", "the arrival of the unguarded node")
    loot = made.here.folder / "loot.json"
    told = made.here.flwr("run", str(spy), "here", "--run-config", key_values({"loot": str(loot)}), timeout=200)
    assert told.returncode == 0, told.stderr
    made.until(loot.exists, "the end of the stranger's run")
    made.here.kill(UNGUARDED)
    return json.loads(loot.read_text())


def listened_on(here: Federation, name: str) -> list[int]:
    """The ports on which a node's two processes listen."""
    node = psutil.Process(here.running[name].pid)
    processes = [node, *node.children(recursive=True)]
    assert len(processes) == 2
    met = [met for process in processes for met in process.net_connections("inet")]
    assert met  # the node's own, to the SuperLink
    return [met.laddr.port for met in met if met.status == psutil.CONN_LISTEN]


def here_too(toy: Path, out: Path, **knobs: object) -> Path:
    """The same run in this process."""
    run = open_run(out, Dataset.open(toy), small_config(**knobs), resume=False)
    train(LocalGrid.over(run.setup), run)
    return out


def test_supernodes_train_what_one_process_trains(told: Told, toy: Path, tmp_path: Path) -> None:
    ours, theirs = Recommender.load(here_too(toy, tmp_path / "here", **KNOBS)), Recommender.load(told.trial.out)
    assert theirs.adapter.keys() == ours.adapter.keys()
    for name, tensor in ours.adapter.items():
        assert float((tensor - theirs.adapter[name]).abs().max()) <= 1e-5, name
    assert theirs.version == ours.version


def test_who_is_not_registered_or_speaks_plain_http_is_refused(told: Told) -> None:
    unknown, plain = told.strangers
    assert "Failed to activate SuperNode" in unknown
    assert "Exit Code: 305" in plain
    assert re.search("Server disconnected without|Connection reset by peer", plain), plain  # whichever is seen first


def test_a_strangers_app_gets_nothing_from_a_node_and_everything_from_an_unguarded_one(told: Told) -> None:
    """Three nodes refuse it, since it is not what they have installed. The fourth shows that it would have worked."""
    taken = [answer for answer in told.loot.values() if isinstance(answer, dict)]
    refusals = [answer for answer in told.loot.values() if isinstance(answer, str)]
    assert taken == [foreign_app.histories(told.trial.folders[0])]
    assert len(taken[0]) > 0
    assert len(refusals) == 3
    assert all(answer.startswith("the bundle is not the fedrec that is installed here") for answer in refusals)
    for part in range(3):
        assert "refused a message of run" in told.trial.here.log(f"node-{part}").read_text()


@pytest.mark.skipif(not NGINX, reason="needs nginx")
def test_a_stranger_who_comes_as_nodes_do_cannot_start_a_run(told: Told) -> None:
    """The same app, with the certificate and the address that every node has, at the front door."""
    assert told.at_the_door
    assert told.at_the_door.returncode != 0
    assert "Successfully started run" not in told.at_the_door.stdout
    assert "404" in told.at_the_door.stdout + told.at_the_door.stderr


def test_a_nodes_messages_are_for_its_own_processes(told: Told) -> None:
    """Flower's own SuperNode passes them on over a port of the machine; a node has none."""
    assert not told.ports


@pytest.mark.skipif(not NGINX, reason="needs nginx")
def test_nothing_but_the_calls_of_nodes_gets_through_the_door(told: Told) -> None:
    """Detours in paths, other paths in headers, requests within requests, upgrades. Without the door, most work."""
    through, without = told.reached
    assert through <= {f"POST /v1/fleet/{name}" for name in ASKED_OF_THE_LINK}
    assert "POST /v1/fleet/get-run" in through
    assert {"POST /v1/control/list-nodes", "GET /v1/runtime/pull-messages", "POST /docs"} <= without


@pytest.mark.long
def test_private_parts_outlive_the_processes(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    """A node's process can end after any message: the client state is in files, and the figures are the same."""
    with trial(toy, tmp_path, [10, 2], 2, **KNOBS | BASELINE) as made:
        with made.running():
            pass
        assert (made.out / METRICS).exists(), made.story()
    ours = here_too(toy, tmp_path / "here", **KNOBS | BASELINE)
    assert json.loads((ours / METRICS).read_text()) == json.loads((made.out / METRICS).read_text())
    for folder in made.folders:
        kept = {file.name: file.stat().st_mode & 0o777 for file in (folder / "keep").iterdir()}
        assert kept == {"part-0-of-1.pt": 0o600, "orders.db": 0o600}


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_phones_train_what_one_process_trains(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    """Twelve nodes, each with a user of its own, who count what they would be shown as they do by default."""
    with trial(toy, tmp_path, [1] * 12, 12, **PHONES) as made:
        with made.running():
            pass
        assert (made.out / METRICS).exists(), made.story()
    ours, theirs = Recommender.load(here_too(toy, tmp_path / "here", **PHONES)), Recommender.load(made.out)
    assert theirs.version == ours.version
    assert theirs.card["exposure"] == ours.card["exposure"]
    assert (theirs.card["exposure"]["base"], theirs.card["exposure"]["users"]) == (0.015, 12)
    assert "Exposure is bounded" in made.story()


def test_nothing_of_a_user_crosses(told: Told, toy: Path) -> None:
    """No byte of a whole run holds an item's id, a user's id or salt, or a stretch of a history, as nodes send it."""
    catalogue, shard = Catalogue.load(toy), Shard.load(toy)
    secrets = [item_id.encode() for item_id in catalogue.ids] + [b"person-"]
    secrets += [int(salt).to_bytes(8, order) for salt in shard.salts for order in ("little", "big")]
    histories = [shard.full_history(user) for user in range(len(shard))]
    secrets += [rows[:4].astype(kind).tobytes() for rows in histories for kind in ("<i8", ">i8", "<i4", "<i2", "<f4")]
    crossed = b"\0".join(body for _, body in told.sent)
    assert len(crossed) > 100_000
    assert not [secret for secret in secrets if secret in crossed]
    assert {path for path, _ in told.sent} <= {f"/v1/fleet/{name}" for name in ASKED_OF_THE_LINK}


def test_every_answer_holds_what_the_design_allows_and_no_more(told: Told) -> None:
    kinds = {"query.census": [], "train": [], "evaluate": []}
    for message in answers_of(told.sent):
        content = message.content
        records = {
            name: set(getattr(record, "keys", dict)())
            for kind in (content.array_records, content.config_records, content.metric_records)
            for name, record in kind.items()
        }
        kinds[message.metadata.message_type].append(records)
    adapter = set(Recommender.load(told.trial.out).adapter)
    count = {"count": {"round", "users"}}
    stamp = {"catalogue", "encoder", "revision", "sha256"}
    assert kinds["query.census"] == 3 * [{"census": {"tickets"}, "stamp": stamp}]
    trained = count | {"sums": {"loss", "learners", "clipped", "diverged"}}
    alone, together = trained | {"codes": {"flips", "scales", "levels"}}, trained | {"deltas": adapter}
    assert (kinds["train"].count(alone), kinds["train"].count(together)) == (2 * 2, 2)
    assert len(kinds["train"]) == 6
    ranked = count | {"sums": set(metric_sums(np.zeros(0))), "deltas": set()}
    assert kinds["evaluate"] == 3 * 3 * [ranked]  # three nodes: after a round, for the test, for validation


def test_sizes_are_told_round_by_round(told: Told) -> None:
    """The log's bytes are those of the answers that crossed, to the byte; on the wire they are little more."""
    messages = answers_of(told.sent)
    for record in told.trial.records():
        crossed: dict[tuple[int, str], Message] = {}  # each node's first of a kind: the next ones end the run
        for message in messages:
            kind, node = message.metadata.message_type, message.metadata.src_node_id
            if message.metadata.group_id == str(record["round"]) and (kind == "train" or record["validation"]):
                crossed.setdefault((node, kind), message)
        assert len(crossed) == (6 if record["validation"] else 3)
        assert record["bytes_up"] == sum(wire.payload_bytes(message.content) for message in crossed.values())
    payload = sum(wire.payload_bytes(message.content) for message in messages)
    pushed = sum(len(body) for path, body in told.sent if path.endswith("/push-object"))
    assert payload < pushed < 1.5 * payload


def test_the_bundle_holds_code_only(told: Told) -> None:
    bundles = {body for path, body in told.received if path.endswith("/get-fab")}
    assert bundles
    for body in bundles:
        names = zipfile.ZipFile(io.BytesIO(GetFabResponse.FromString(body).fab.content)).namelist()
        assert "fedrec/federation/client_app.py" in names
        ours = [name for name in names if not name.startswith(".info/")]
        assert {Path(name).suffix for name in ours} <= {".py", ".toml", ".md", ""}
        code = {tuple(name.split("/")[:2]) for name in ours if name.endswith(".py")}
        assert code == {("fedrec", part) for part in ("__init__.py", "data", "federation", "recsys")}


def answers_of(sent: list[Body]) -> list[Message]:
    """The nodes' answers, put together again from the pieces in which they were sent."""
    pieces: dict[str, bytes] = {}
    for path, body in sent:
        if path.endswith("/push-object"):
            piece = PushObjectRequest.FromString(body)
            pieces[piece.object_id] = piece.object_content
    found = []
    for path, body in sent:
        if path.endswith("/push-messages"):
            for announced in PushMessagesRequest.FromString(body).messages_list:
                number = announced.metadata.message_id
                message: Any = inflate_object_from_contents(number, pieces, keep_object_contents=True)
                if message.has_content():
                    message.content = unwrap(message.content)
                found.append(message)
    return found


def refused(here: Federation, folder: Path, key: bool) -> str:
    """What a SuperNode says that is not let in: one with a key that nobody registered, or without TLS and key."""
    folder.mkdir()
    command = [str(BIN / "flower-supernode"), "--superlink", f"localhost:{here.port}", "--port", str(free_port())]
    command += ["--max-retries", "2"]
    if key:
        node_key(folder / "key")
        command += ["--auth-supernode-private-key", str(folder / "key")]
        command += ["--root-certificates", str(here.certificates / AUTHORITY)]
    else:
        command += ["--insecure"]
    log = folder / "stranger.log"
    with log.open("wb") as output:  # a file: what the node starts would hold a pipe open
        foreign_app = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment(here.home), start_new_session=True
        )
    deadline = time.monotonic() + 150
    while "Exit Code: 305" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(foreign_app.pid, signal.SIGKILL)
    foreign_app.wait()
    return log.read_text()


@pytest.mark.timeout(300)
def test_a_federation_for_a_try_is_up_until_ctrl_c(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    command = [str(BIN / "fedrec"), "federation", "up", str(toy), "--nodes", "2", "--folder", "try"]
    with (tmp_path / "told").open("w") as told:
        shown = subprocess.Popen(command, cwd=tmp_path, stdout=told, stderr=told)
    logs = [tmp_path / "try" / f"node-{part}.log" for part in range(2)]
    try:
        deadline = time.monotonic() + 200
        while not all(log.exists() and CONNECTED in log.read_text(errors="replace") for log in logs):
            assert shown.poll() is None, (tmp_path / "told").read_text()
            assert time.monotonic() < deadline, (tmp_path / "told").read_text()
            time.sleep(0.5)
        children = psutil.Process(shown.pid).children(recursive=True)
        assert len(children) >= 3
    finally:
        shown.send_signal(signal.SIGINT)
        shown.wait(60)
    assert shown.returncode == 0
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    said = " ".join((tmp_path / "told").read_text().split())
    assert f"flwr run {tmp_path / 'try' / 'app'} here" in said
    assert "Stopped all processes" in said


def test_what_cannot_be_up_is_refused(toy: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    is_refused(fedrec("federation", "up", toy, "--folder", "taken"), "--folder taken is not empty")
    is_refused(fedrec("federation", "up", toy, "--nodes", 13, "--folder", "new"), "--nodes 13", "12 users")
    is_refused(fedrec("federation", "up", tmp_path), "is not a prepared dataset")
    assert not (tmp_path / "new").exists()


def test_a_node_that_cannot_run_is_refused(toy: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    given = {"--data": toy, "--server": "a.example.org:8000", "--authority": "file", "--key": "file"}
    for option, value, says in (
        ("--data", tmp_path, "is not a prepared dataset"),
        ("--server", "a.example.org", "--server 'a.example.org': give a name or an address and a port"),
        ("--server", "https://a.example.org:8000", "give a name or an address and a port"),
        ("--key", "none", "--key none is not a file"),
        ("--authority", "none", "--authority none is not a file"),
        ("--part", 2, "--part 2: with --parts 1, parts are 0 to 0"),
    ):
        is_refused(fedrec("node", "run", *(word for pair in (given | {option: value}).items() for word in pair)), says)


def test_certificates_and_keys_are_made_once(fedrec: Fedrec, tmp_path: Path) -> None:
    assert fedrec("federation", "certify", "--out", "c", "--host", "a.example.org").code == 0
    assert fedrec("federation", "key", "k/node").code == 0
    is_refused(fedrec("federation", "certify", "--out", "c"), "c/ca.crt is there already")
    is_refused(fedrec("federation", "key", "k/node"), "k/node is there already")
    assert sorted(path.name for path in tmp_path.glob("*/*")) == [
        "ca.crt",
        "node",
        "node.pub",
        "server.crt",
        "server.key",
    ]
