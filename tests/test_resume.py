"""A run that is killed at any moment and resumed learns exactly what an uninterrupted run learns."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fedrec.federation import round_log
from fedrec.federation.checkpoint import STATE
from fedrec.recsys.recommender import PEFT_WEIGHTS, TOWERS, VECTORS, Recommender
from tests.support.toy_world import SMALL

ROUNDS = 12


def command(data: Path, out: Path, *more: str) -> list[str]:
    sets = [f"--set={name}={value}" for name, value in (SMALL | {"rounds": ROUNDS}).items()]
    return [sys.executable, "-m", "fedrec", "train", str(data), "--out", str(out), *sets, *more]


def test_killed_and_resumed_is_the_same_to_the_byte(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(toy, whole), check=True, capture_output=True, timeout=120)
    running = subprocess.Popen(command(toy, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(round_log.read(killed)) < 3:
        assert running.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert 3 <= len(round_log.read(killed)) < ROUNDS
    with (killed / round_log.FILE).open("a") as cut:
        cut.write('{"round": 99, "lo')  # a line cut short by the crash
    with pytest.raises(ValueError, match="has not finished"):
        Recommender.load(killed)
    subprocess.run(command(toy, killed, "--resume"), check=True, capture_output=True, timeout=120)
    assert [record["round"] for record in round_log.read(killed)] == list(range(1, ROUNDS + 1))
    for name in (PEFT_WEIGHTS, TOWERS, VECTORS, "metrics.json"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    for name, tensor in load_file(whole / STATE).items():
        assert torch.equal(tensor, load_file(killed / STATE)[name]), name
    assert not list(killed.glob(".*"))


def test_ctrl_c_says_how_to_go_on(toy: Path, embeddings: Tensor, tmp_path: Path) -> None:
    running = subprocess.Popen(command(toy, tmp_path / "run"), stderr=subprocess.PIPE, text=True)
    while len(round_log.read(tmp_path / "run")) < 2:
        assert running.poll() is None, "the run ended before it could be interrupted"
        time.sleep(0.005)
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "rounds are saved" in stderr
    assert f"fedrec train {toy} --out {tmp_path / 'run'} --resume" in stderr.replace("\n", "")
    assert "Traceback" not in stderr
