"""A real federation on this machine: a SuperLink and SuperNodes as processes, with TLS and registered keys as in
production, but on free loopback ports and with certificates for development."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fedrec.data.errors import InputError
from fedrec.federation.config import Scalar
from fedrec.federation.deployment import app_bundle
from fedrec.federation.deployment.tether import tethered
from fedrec.local_federation.certificates import AUTHORITY, CERTIFICATE, KEY, certify, node_key

BIN = Path(sys.executable).parent
LINK = "superlink"
CONNECTED = "SuperNode ID:"
"""What a SuperNode logs when the SuperLink has let it in."""

PATIENCE = 60.0
"""Seconds for the SuperLink to listen, or to answer Flower's command line; its imports alone can take ten."""


def environment(home: Path, threads: int = 1) -> dict[str, str]:
    """Return the environment of Flower's processes: no installs, no telemetry, no update check, a home of its own."""
    return os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUTF8": "1",  # logs and answers are read as UTF-8, whatever the terminal has
        "PYTHONIOENCODING": "utf-8:replace",
    }


def write_home(home: Path, port: int, authority: Path) -> None:
    """Write the folder in which `flwr` looks up that `here` is the SuperLink at this port of this machine."""
    home.mkdir(parents=True)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "localhost:{port}"\n'
        f'root-certificates = "{authority}"\n',
        encoding="utf-8",
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def key_values(values: Mapping[str, Scalar]) -> str:
    """Format pairs as Flower's command line reads them: TOML's values."""
    return " ".join(f"{name}={app_bundle.toml(value)}" for name, value in values.items())


class Federation:
    """Processes by name, and what they leave in `folder`: logs, keys, certificates, and the home that `flwr` needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.home, self.certificates, self.keys = (self.folder / name for name in ("home", "certificates", "keys"))
        self.app = self.folder / "app"  # what `flwr run` bundles
        self.port = free_port()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._logged: dict[str, int] = {}  # bytes that were in a process's log when it was started

    def start_link(self) -> None:
        """Start the SuperLink and wait until it listens. Its state is in a file: restarted, it continues."""
        if not (self.certificates / AUTHORITY).exists():
            certify(self.certificates, ["localhost", "127.0.0.1"])
            app_bundle.write(self.app)
            write_home(self.home, self.port, self.certificates / AUTHORITY)
        command = ["flower-superlink", "--host", "127.0.0.1", "--port", str(self.port), "--enable-supernode-auth"]
        command += ["--ssl-ca-certfile", str(self.certificates / AUTHORITY)]
        command += ["--ssl-certfile", str(self.certificates / CERTIFICATE)]
        command += ["--ssl-keyfile", str(self.certificates / KEY)]
        command += ["--database", str(self.folder / "superlink.db")]
        self.start(LINK, command)
        deadline = time.monotonic() + PATIENCE
        while not self._is_listening():
            if self.running[LINK].poll() is not None or time.monotonic() > deadline:
                raise InputError(f"the SuperLink did not start; {self.log(LINK)} says why")
            time.sleep(0.2)

    def join(
        self,
        name: str,
        config: Mapping[str, Scalar],
        threads: int = 1,
        port: int | None = None,
    ) -> None:
        """Start a node with this node config; its key is made and registered the first time. `port` overrides
        the SuperLink's port."""
        self.admit(name)
        self.start(name, ["fedrec", *self.node_arguments(name, config, port)], threads)

    def node_arguments(self, name: str, config: Mapping[str, Scalar], port: int | None = None) -> list[str]:
        """Build the arguments of `fedrec` that run a node."""
        arguments = ["node", "run", "--server", f"localhost:{port or self.port}"]
        arguments += ["--authority", str(self.certificates / AUTHORITY), "--key", str(self.keys / name)]
        return [*arguments, *(word for option, value in config.items() for word in (f"--{option}", str(value)))]

    def admit(self, name: str) -> None:
        """Make a node's key and register it, if it has none."""
        if not (self.keys / name).exists():
            told = self.flwr("supernode", "register", str(node_key(self.keys / name)), "here")
            if told.returncode:
                raise InputError(f"{name} could not be registered: {told.stderr.strip() or told.stdout.strip()}")

    def flwr(
        self, *arguments: str, timeout: float = PATIENCE, home: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Flower's command line to the end; `home` replaces the folder that names the SuperLink."""
        command, env = [str(BIN / "flwr"), *arguments], environment(home or self.home)
        return subprocess.run(command, env=env, capture_output=True, encoding="utf-8", timeout=timeout)

    def run(self, asked: Mapping[str, Scalar], timeout: float) -> subprocess.CompletedProcess[str]:
        """Run `flwr run` to the end, with the installed app and this run config."""
        return self.flwr("run", str(self.app), "here", "--stream", "--run-config", key_values(asked), timeout=timeout)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def state(self, name: str) -> str:
        """Describe the state of a process in a word or two."""
        if (ended := self.running[name].poll()) is not None:
            return f"ended with {ended}"
        if name == LINK:
            return "listens"
        said = self.log(name).read_bytes()[self._logged[name] :]
        return "connected" if CONNECTED.encode() in said else "starts"

    def kill(self, name: str) -> None:
        """End a process and all that it has started, at once: as a crash or a power cut does."""
        with suppress(ProcessLookupError):
            os.killpg(self.running[name].pid, signal.SIGKILL)
        self.running[name].wait()

    def stop(self) -> None:
        """End all processes, the nodes first, and wait for them."""
        for process in reversed(self.running.values()):
            process.terminate()
        for name, process in reversed(self.running.items()):
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            self.kill(name)  # what it has started may outlive it

    def start(
        self, name: str, command: list[str], threads: int = 1, surroundings: Mapping[str, str] | None = None
    ) -> None:
        """Start one of Flower's commands or ours under this name. It ends when the thread that calls this does.

        `surroundings` overrides environment variables.
        """
        with self.log(name).open("ab") as output:
            self._logged[name] = output.tell()
            self.running[name] = subprocess.Popen(
                tethered([str(BIN / command[0]), *command[1:]]),
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(self.home, threads) | dict(surroundings or {}),
                start_new_session=True,  # Ctrl-C is for us, who end them in order
            )

    def _is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def federation(folder: Path, nodes: Mapping[str, Mapping[str, Scalar]], threads: int = 1) -> Iterator[Federation]:
    """Run a SuperLink with a SuperNode for each node config, until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    here = Federation(folder)
    with ExitStack() as stack:
        stack.callback(here.stop)
        here.start_link()
        for name, config in nodes.items():
            here.join(name, config, threads)
        yield here
