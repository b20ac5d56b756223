"""Secure aggregation between real processes, one of which is killed in a round."""

from pathlib import Path
from typing import Any

import psutil
import pytest
from torch import Tensor

from fedrec.federation.checkpoint import State
from fedrec.federation.secure_aggregation.node_memory import NodeMemory
from fedrec.recsys.card import load_card
from tests.support.federation import Trial, command_line, trial
from tests.support.toy_world import begun, small_config

SECURE: dict[str, Any] = {"secure": True, "secure_clients": 4, "nodes": 4, "clients_per_round": 12, "rounds": 4}
SIZES = [3, 3, 3, 3]


def message_process(made: Trial, name: str) -> psutil.Process:
    """The process that answers a node's messages."""
    children = psutil.Process(made.here.running[name].pid).children(recursive=True)
    return next(child for child in children if "message_process" in command_line(child))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_supernodes_mask_their_sums_and_survive_kills(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    """The process of the messages is killed in round 2, and goes on with the session or is lost for the round; the node
    is killed in round 3, and back in the last one. A round of all is that of one process in the open, to the bit."""
    with trial(toy, tmp_path, SIZES, 0, **SECURE, validate_every=4, round_timeout=150) as made:
        made.join_malicious(0, {3: "held"})
        for part in range(1, 4):
            made.join(part)
        with made.running():
            made.until_asked("node-2", 2, "query.secure")
            message_process(made, "node-2").kill()
            made.until_asked("node-3", 3, "query.secure")
            made.here.kill("node-3")
            made.come_back(3)
            made.let_go("node-0")
        records = made.records()
        assert [record["round"] for record in records] == [1, 2, 3, 4], made.story()
        assert [record["clients_answered"] for record in records[::3]] == [12, 12], made.story()
        assert all(record["clients_answered"] in (9, 12) for record in records), made.story()
        memory = NodeMemory(made.folders[0] / "secure" / "part-0-of-1.json")
        assert memory.public_identity
        state = State.load(made.out)
    assert state
    if all(record["clients_answered"] == 12 for record in records):
        config = small_config(**SECURE | {"secure": False, "nodes": 1}, validate_every=4)
        begun(tmp_path / "open", toy, config)
        alone = State.load(tmp_path / "open")
        assert alone
        assert all(tensor.equal(state.best[name]) for name, tensor in alone.best.items())


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_supernodes_and_one_process_come_to_the_same_model(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    """One in the open, one with masks; exposure is bounded, as it is by default."""
    settings = SECURE | {"rounds": 2, "validate_every": 2, "exposure_base": "auto"}
    with trial(toy, tmp_path, SIZES, 4, **settings) as made:
        with made.running():
            pass
        assert [record["clients_answered"] for record in made.records()] == [12, 12, 12], made.story()
        state = State.load(made.out)
    begun(tmp_path / "open", toy, small_config(**settings | {"secure": False, "nodes": 1}))
    alone = State.load(tmp_path / "open")
    assert state
    assert alone
    assert all(tensor.equal(state.best[name]) for name, tensor in alone.best.items())
    counted = [load_card(out)["exposure"] for out in (made.out, tmp_path / "open")]
    assert counted[0] == counted[1] == {"base": 0.015, "users": 12, "orders": 1, "lowered": 0, "unsettled": 0}
