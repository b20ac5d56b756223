"""Run a command that ends when the process that started it does, however that ends: `tethered(command)`."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def tethered(command: list[str]) -> list[str]:
    """Return the command to start in its place, tied to the thread that starts it; on Linux only."""
    return (
        [sys.executable, "-P", "-m", "fedrec.federation.deployment.tether", *command]
        if sys.platform == "linux"
        else command
    )


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(sys.argv[1], sys.argv[1:])
