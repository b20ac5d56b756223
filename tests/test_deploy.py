"""`docs/deploy.md`, followed literally from an empty folder: its commands, one after the other, as they stand there."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from federation.processes import APP, CONNECTED, environment

GUIDE = APP / "docs" / "deploy.md"
SAYS_WHEN_READY = {"flower-superlink": "Uvicorn running", "flower-supernode": CONNECTED}
"""What runs until it is stopped, in a terminal of its own, and what it says when it is ready."""


def commands() -> list[str]:
    """The guide's blocks of commands, in its order."""
    return re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)


def test_the_guide_names_tests_that_exist() -> None:
    told = re.findall(r"`(test_\w+?)(?:…)?(?:\.py)?`", GUIDE.read_text())
    source = "\n".join(path.read_text() for path in (APP / "tests").glob("test_*.py"))
    assert len(told) > 10
    assert not [name for name in told if f"def {name}" not in source and not (APP / f"tests/{name}.py").exists()]


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_guide_can_be_followed(tmp_path: Path) -> None:
    (tmp_path / "fedrec").symlink_to(APP)
    blocks = commands()
    assert len(blocks) == 12
    terminals: list[subprocess.Popen[bytes]] = []
    said = ""
    known = environment(tmp_path / "unset") | {"FLWR_HOME": ""}
    settings = "cd " + str(tmp_path)
    try:
        for block in blocks:
            if block.startswith(tuple(SAYS_WHEN_READY)):
                with (log := tmp_path / f"terminal-{len(terminals)}").open("wb") as output:
                    terminals.append(
                        subprocess.Popen(
                            ["bash", "-ec", f"{settings}\nexec {block}"],
                            stdout=output,
                            stderr=output,
                            env=known,
                            start_new_session=True,
                        )
                    )
                wait_for(terminals[-1], log, block.split()[0])
            else:
                done = subprocess.run(
                    ["bash", "-ec", f"{settings}\n{block}"], env=known, capture_output=True, text=True, timeout=600
                )
                said += done.stdout
                assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
                settings += "".join(f"\n{line}" for line in block.splitlines() if line.startswith(("export", ". ")))
    finally:
        for terminal in reversed(terminals):
            os.killpg(terminal.pid, signal.SIGKILL)
            terminal.wait()
    assert (tmp_path / "runs" / "shop" / "metrics.json").exists(), said
    assert "round 3: loss" in said
    assert "score" in said  # ada's recommendations


def wait_for(terminal: subprocess.Popen[bytes], log: Path, command: str) -> None:
    deadline = time.monotonic() + 120
    while not re.search(SAYS_WHEN_READY[command], log.read_text(errors="replace")):
        assert terminal.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
