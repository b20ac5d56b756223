"""What goes wrong in a real federation, with real processes and real signals: a round survives it, or the run stops
with one clear line, and goes on from the last finished round. `docs/deploy.md` has the same in a table."""

from pathlib import Path
from typing import Any

import psutil
import pytest
from torch import Tensor

from fedrec.federation.checkpoint import State
from fedrec.federation.training_run import METRICS
from fedrec.local_federation.processes import LINK
from tests.support import malicious_node
from tests.support.federation import Trial, trial
from tests.support.tls_proxy import Line

pytestmark = pytest.mark.timeout(1200)

REASONS = {
    "nan": "holds values that are not finite",
    "infinite": "holds values that are not finite",
    "long": "a sum of length",
    "shapes": "has shape (1, 384) where (4, 384) belongs",
    "old": "answered for round 2 and 4 users, not 3 and 4",
    "huge": "bytes, where",
    "garbage": "cannot be decoded",
    "loss": "a sum of 1e+308 for the metric loss of 4 users who learned, each at most 53.3",
    "learners": "of 0 users who learned",
    "nobody": "for the metric recall@5 of 0 ranked users",
}

TIMEOUT = 120
"""Seconds that the server waits for the node that is killed, unless it hears before that the node is gone."""

LIES = {1: "nan", 2: "shapes", 3: "old", 4: "twice"}
KILLED = 6
"""The round in which the node is killed: between two answers to one message and this it answers as ever."""


def finished(made: Trial, rounds: int) -> list[dict[str, Any]]:
    """The log of a run that came to its end, each round in it once."""
    records = made.records()
    assert [record["round"] for record in records] == list(range(1, rounds + 1)), made.story()
    assert (made.out / METRICS).exists(), made.story()
    state = State.load(made.out)
    assert state
    assert all(tensor.isfinite().all() for tensor in state.adapter.values())
    return records


def join(made: Trial, lies: dict[int, str], holds: dict[int, str] | None = None) -> None:
    """A node of eight users joins, held in some rounds, and one of four whose device lies in these rounds."""
    open_for_both = {round: "slow" for round, lie in lies.items() if lie == "twice"}  # until the second answer is there
    made.join_malicious(0, open_for_both | (holds or {}), pause=5)
    made.join_malicious(1, lies)


def are_refused(lies: dict[int, str], records: list[dict[str, Any]]) -> None:
    """In their rounds, and nothing else is: whatever the honest node sends counts."""
    for record in records:
        lie = lies.get(record["round"])
        refused = lie in REASONS
        assert record["clients_refused"] == (4 if refused and lie not in malicious_node.RANKING else 0), record
        assert len(record["refusals"]) == refused, record
        if refused:
            assert REASONS[str(lie)] in record["refusals"][0].replace("\n", " ")
            assert record["refusals"][0].startswith("node ")
        assert record["clients_answered"] == 12 - record["clients_refused"], record


@pytest.fixture(scope="module")
def survived(toy: Path, embeddings: Tensor, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The log of a run of eight rounds over two nodes, whose second one's device lies before the node is killed."""
    folder = tmp_path_factory.mktemp("survived")
    with trial(toy, folder, [8, 4], 0, rounds=8, validate_every=8, nodes=2, round_timeout=TIMEOUT) as made:
        join(made, LIES | {KILLED: "held"}, {KILLED + 1: "held"})
        with made.running():
            made.until_asked("node-1", KILLED)
            made.here.kill("node-1")
            made.come_back(1)
            made.let_go("node-0")
        return finished(made, 8)


def test_a_device_that_lies_is_refused_and_the_round_goes_on(survived: list[dict[str, Any]]) -> None:
    """NaN, wrong shapes and an old round; and of two answers the first one counts, whatever the second says. The node
    that gave both is not one answer behind after that."""
    are_refused(LIES, survived[: KILLED - 1])


def test_a_node_is_killed_in_a_round(survived: list[dict[str, Any]]) -> None:
    """It is absent from that round, and back when it is started again."""
    before, then = survived[KILLED - 2 : KILLED]
    assert (before["clients_answered"], before["absences"]) == (12, [])
    assert (then["clients_answered"], then["clients_refused"]) == (8, 0)
    (lost,) = then["absences"]
    assert f"no answer within {TIMEOUT} s" in lost or "Node Unavailable" in lost
    assert survived[-1]["clients_answered"] == 12


@pytest.mark.long
def test_more_lies(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    """A huge answer is refused unread, and the honest users of that round still count. A score of nobody is in no
    validation."""
    lies = {1: "infinite", 2: "long", 3: "garbage", 4: "huge", 5: "loss", 6: "learners", 7: "nobody"}
    with trial(toy, tmp_path, [8, 4], 0, rounds=7, validate_every=7, nodes=2) as made:
        join(made, lies)
        with made.running():
            pass
        records = finished(made, 7)
    are_refused(lies, records)
    assert records[3]["bytes_up"] > 10 * records[2]["bytes_up"]
    assert records[6]["validation"]["users"] == 8


@pytest.mark.long
def test_a_node_comes_late_and_the_servers_app_is_killed(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    """The late one is asked from the next round on; the run goes on from its last round, with everybody."""
    with trial(toy, tmp_path, [8, 4], 0, rounds=6, validate_every=6, nodes=1) as made:
        made.join_malicious(0, dict.fromkeys(range(2, 6), "slow"), pause=15)  # until the late one is there
        with made.running():
            made.until_round(1)
            made.join(1)
            made.until(lambda: made.records()[-1]["users"] == 12, "the arrival of the late node")
            made.server_app().kill()
        before = made.records()
        assert len(before) < 6
        assert not (made.out / METRICS).exists()
        with made.running(resume=True):
            pass
        records = finished(made, 6)
        assert "round 6" in made.told[-1].stdout
    assert records[: len(before) - 1] == before[: len(before) - 1]
    assert (records[0]["users"], records[0]["clients_answered"]) == (8, 8)
    assert (records[-1]["users"], records[-1]["clients_answered"]) == (12, 12)


@pytest.mark.long
def test_a_slow_node_is_not_waited_for(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    """Its answer is absent from the round whose deadline it missed, and is not taken for a later round's. Nor is it
    asked, and waited for, in the next round; when its late answer has come, it is asked again."""
    with trial(toy, tmp_path, [8, 4], 0, rounds=5, validate_every=5, nodes=2, round_timeout=45) as made:
        made.join_malicious(0, {4: "held"})
        made.join_malicious(1, {2: "held"})
        with made.running():
            made.until_asked("node-0", 4)
            made.let_go("node-1")
            made.until_answered("node-1", 2)
            made.let_go("node-0")
        records = finished(made, 5)
    assert [record["clients_answered"] for record in records] == [12, 8, 8, 8, 12]
    assert "no answer within 45 s" in records[1]["absences"][0]
    assert "not asked" in records[2]["absences"][0]
    assert records[2]["seconds"] < records[1]["seconds"]
    assert [record["refusals"] for record in records] == [[]] * 5


@pytest.mark.long
def test_the_network_is_cut_and_restored(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    with (
        trial(toy, tmp_path, [8, 4], 0, rounds=4, validate_every=4, nodes=2, round_timeout=60) as made,
        Line(made.here.port, made.here.certificates) as line,
    ):
        made.join_malicious(0, {3: "held"})
        made.join_malicious(1, {2: "held"}, port=line.port)
        with made.running():
            made.until_asked("node-1", 2)
            line.cut()
            made.let_go("node-1")
            made.until_round(2)
            line.restore()
            made.until_answered("node-1", 2)
            made.until(lambda: made.here.state("node-1") == "connected", "node-1 sends a heartbeat")
            made.let_go("node-0")
        records = finished(made, 4)
    assert records[1]["clients_answered"] == 8
    assert records[1]["absences"] or records[1]["refusals"]
    assert records[-1]["clients_answered"] == 12


@pytest.mark.long
def test_the_superlink_is_killed_and_started_again(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    """It remembers who is registered, the nodes find it again, and the run is resumed."""
    with trial(toy, tmp_path, [8, 4], 2, rounds=5, validate_every=5, nodes=2, round_timeout=120) as made:
        with made.running():
            made.until_round(2)
            made.here.kill(LINK)
        before = made.records()
        made.here.start_link()
        with made.running(resume=True):
            pass
        records = finished(made, 5)
        assert [made.here.state(name) for name in ("node-0", "node-1")] == ["connected", "connected"]
    assert records[: len(before) - 1] == before[: len(before) - 1]
    assert records[-1]["clients_answered"] == 12


@pytest.mark.long
def test_the_servers_disk_is_full(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    """Writes fail, as they do on a full disk: the app says what to do, and loses no finished round."""
    with trial(toy, tmp_path, [12], 1, rounds=5, validate_every=5, nodes=1) as made:
        with made.running():
            made.until_round(2)
            made.server_app().rlimit(psutil.RLIMIT_FSIZE, (1000, psutil.RLIM_INFINITY))
        said = " ".join(made.told[-1].stdout.split())
        assert "stopped: " in said, made.story()
        assert "resume=true" in said
        assert "Traceback" not in said
        before, state = made.records(), State.load(made.out)
        assert state
        assert 2 <= state.round <= len(before) <= 3
        with made.running(resume=True):
            pass
        records = finished(made, 5)
    assert records[: state.round] == before[: state.round]
