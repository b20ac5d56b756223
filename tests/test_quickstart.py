"""`docs/quickstart.md`, followed literally from an empty folder: a table becomes recommendations over HTTP."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.support.commands import blocks
from tests.support.source import ROOT

PAGE = ROOT / "docs" / "quickstart.md"
INSTALLED = Path(sys.executable).parent


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_quick_start_can_be_followed(tmp_path: Path) -> None:
    """What is installed is what runs the tests; the wheel's own installation is tried in `tests/test_wheel.py`."""
    install, *commands, serve, ask = blocks(PAGE, "sh")
    assert "pip install" in install
    known = os.environ | {"PATH": f"{INSTALLED}:{os.environ['PATH']}"}
    said = ""
    for block in commands:
        done = subprocess.run(
            ["bash", "-ec", block], cwd=tmp_path, env=known, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        said += done.stdout
    assert "200 users, 300 items" in said
    assert "EASE" in said
    assert "item id" in said
    answer_over_http(serve, ask, tmp_path, known)
    program = "\n".join(blocks(PAGE, "python"))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=known, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "95 % interval" in done.stdout


def answer_over_http(serve: str, ask: str, folder: Path, known: dict[str, str]) -> None:
    """Serve on the port of the page, wait, and ask as the page does."""
    with subprocess.Popen(["bash", "-ec", f"exec {serve}"], cwd=folder, env=known) as server:
        try:
            deadline = time.monotonic() + 120
            while not is_ready():
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
            done = subprocess.run(["bash", "-ec", ask], env=known, capture_output=True, text=True, timeout=60)
            assert '"items":[{"item_id":' in done.stdout, done.stdout
        finally:
            server.terminate()


def is_ready() -> bool:
    try:
        return httpx.get("http://127.0.0.1:8080/readyz").status_code == 200
    except httpx.TransportError:
        return False
