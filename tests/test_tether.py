"""Processes that end with the one that started them."""

import subprocess
import sys
import time

import psutil
import pytest

STARTS_ANOTHER = """
import subprocess, sys
from fedrec.federation.deployment.tether import tethered
kept = subprocess.Popen(tethered([sys.executable, "-c", "import time; print('on', flush=True); time.sleep(600)"]))
print(kept.pid, flush=True)
kept.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do this")
def test_a_tethered_process_ends_with_its_parent_however_that_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTS_ANOTHER], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        assert parent.stdout.readline() == "on\n"
        parent.kill()
    deadline = time.monotonic() + 60
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:  # one that nobody reaps has ended, too
        assert time.monotonic() < deadline
        time.sleep(0.05)
