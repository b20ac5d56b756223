"""A real federation on this machine: one SuperLink and some SuperNodes as processes, on free loopback ports."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from federation.config import Scalar
from recsys.machine import cores

BIN = Path(sys.executable).parent
APP = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(home: Path, threads: int = 1) -> dict[str, str]:
    """Flower's own settings: no installs at run time, no telemetry, no update check, a home of its own."""
    return os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": str(threads),
    }


@contextmanager
def process(command: Sequence[str], log: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes to `log` and ends with the block."""
    with log.open("wb") as output:
        running = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env)
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


@contextmanager
def superlink(folder: Path, node_configs: Sequence[str]) -> Iterator[Path]:
    """A SuperLink with one SuperNode per node config, which share the cores; yields the home that `flwr run` needs."""
    port, threads = free_port(), max(1, cores() // max(1, len(node_configs)))
    home = folder / "home"
    home.mkdir(parents=True)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    with ExitStack() as stack:
        link = [str(BIN / "flower-superlink"), "--insecure", "--host", "127.0.0.1", "--port", str(port)]
        stack.enter_context(process(link, folder / "superlink.log", environment(home)))
        _wait_for(port)
        for number, node_config in enumerate(node_configs):
            node = [str(BIN / "flower-supernode"), "--insecure", "--superlink", f"127.0.0.1:{port}"]
            node += ["--port", str(free_port()), "--node-config", node_config]
            stack.enter_context(process(node, folder / f"node-{number}.log", environment(home, threads)))
        yield home


def flwr_run(home: Path, asked: Mapping[str, Scalar]) -> subprocess.CompletedProcess[str]:
    """`flwr run` to the end, with the app of this checkout, and these knobs and places."""
    pairs = (f'{name}="{value}"' if isinstance(value, str) else f"{name}={value}" for name, value in asked.items())
    command = [str(BIN / "flwr"), "run", str(APP), "here", "--stream", "--run-config", " ".join(pairs)]
    return subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=240)


def _wait_for(port: int, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")
