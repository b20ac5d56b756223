"""The same apps as real Flower processes, which share no memory: TLS, registered keys, and a folder each."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from torch import Tensor

from data.nodes import SERVER, evenly, split
from federation.credentials import AUTHORITY, node_key
from federation.local import LocalGrid
from federation.processes import APP, BIN, CONNECTED, Federation, environment, federation, free_port
from federation.train import METRICS, open_run, train
from recsys.recommender import Recommender
from tests.terminal import Fedrec, is_refused
from tests.world import SMALL, small_config


@pytest.mark.timeout(600)
def test_two_supernodes_train_what_one_process_trains(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    """And who has no registered key does not get in, nor who does not speak TLS."""
    knobs = SMALL | {"rounds": 2, "nodes": 2}
    config = open_run(tmp_path / "here", toy, small_config(**knobs), resume=False)
    train(LocalGrid.over(toy, config), tmp_path / "here", toy, config, lambda record: None)
    folders = split(toy, tmp_path / "split", evenly(12, 2))
    assert sorted((tmp_path / "split").glob("node-*")) == folders
    asked = knobs | {"data": str(tmp_path / "split" / SERVER), "out": str(tmp_path / "there")}
    nodes = {folder.name: {"data": str(folder)} for folder in folders}
    with federation(tmp_path / "flower", nodes) as here:
        assert "Failed to activate SuperNode" in refused(here, tmp_path, ["--auth-supernode-private-key", "unknown"])
        assert "Server disconnected without" in refused(here, tmp_path, ["--insecure"])
        done = here.run(asked)
        assert [here.state(name) for name in here.running] == ["listens", "connected", "connected"]
    logs = "\n".join(f"{log.name}: {log.read_text(errors='replace')[-3000:]}" for log in here.folder.glob("*.log"))
    assert (tmp_path / "there" / METRICS).exists(), f"{done.stdout}\n{done.stderr}\n{logs}"
    ours, theirs = (Recommender.load(tmp_path / name) for name in ("here", "there"))
    assert theirs.adapter.keys() == ours.adapter.keys()
    for name, tensor in ours.adapter.items():
        assert float((tensor - theirs.adapter[name]).abs().max()) <= 1e-5, name
    assert theirs.version == ours.version


def refused(here: Federation, folder: Path, options: list[str]) -> str:
    """What a SuperNode says that is not let in: one with a key that nobody registered, or without TLS and key."""
    command = [str(BIN / "flower-supernode"), "--superlink", f"localhost:{here.port}", "--port", str(free_port())]
    if "unknown" in options:
        node_key(folder / "unknown")
        options = ["--auth-supernode-private-key", str(folder / "unknown")]
        options += ["--root-certificates", str(here.certificates / AUTHORITY)]
    command += ["--max-retries", "2", *options]
    log = folder / "stranger.log"
    with log.open("wb") as output:  # a file: what the node starts would hold a pipe open
        stranger = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment(here.home), start_new_session=True
        )
    deadline = time.monotonic() + 150
    while "Exit Code: 305" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(stranger.pid, signal.SIGKILL)
    stranger.wait()
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
    assert f"flwr run {APP} here" in said
    assert "Stopped all processes" in said


def test_what_cannot_be_up_is_refused(toy: Path, fedrec: Fedrec, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    is_refused(fedrec("federation", "up", toy, "--folder", "taken"), "--folder taken is not empty")
    is_refused(fedrec("federation", "up", toy, "--nodes", 13, "--folder", "new"), "--nodes 13", "12 users")
    is_refused(fedrec("federation", "up", tmp_path), "is not a prepared dataset")
    assert not (tmp_path / "new").exists()


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
