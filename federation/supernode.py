"""A node that runs installed code only: Flower's SuperNode without its own executor, and ours in its place."""

import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import httpx
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

from data.errors import InputError
from federation.bundle import toml
from federation.tether import tethered

if TYPE_CHECKING:
    from federation.config import Scalar

Process = subprocess.Popen[bytes]

BIN = Path(sys.executable).parent
POLL = 0.1
"""Seconds between two questions whether a message has come."""

APPS = [TaskType.CLIENT_APP, TaskType.AGENT_APP]
"""Every kind of task that a SuperNode makes of a message. All are answered by the installed ClientApp, or refused."""


@dataclass(frozen=True)
class NodeConfig:
    """Where a node's server is, by what they know each other, and what the node tells its ClientApp."""

    server: str  # host:port
    authority: Path  # certificate that the server's is signed with
    key: Path  # the node's private key
    told: Mapping[str, "Scalar"]  # as `client_app` reads it: data, part, parts


def run_node(config: NodeConfig) -> int:
    """Run a SuperNode and answer its messages until it ends, or until SIGTERM or Ctrl-C; its exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with TemporaryDirectory(prefix="fedrec-node-") as folder:  # for this user's eyes only
        secret = Path(folder) / "secret"
        secret.write_bytes(secrets.token_bytes(32))
        address = f"127.0.0.1:{free_port()}"
        supernode = subprocess.Popen(tethered(_command(config, address, secret)))
        try:
            _answer_messages(supernode, address, secret.read_bytes())
        except KeyboardInterrupt:
            return 0
        finally:
            supernode.terminate()
            status = supernode.wait()
        return status


def _command(config: NodeConfig, address: str, secret: Path) -> list[str]:
    host, port = address.split(":")
    command = [str(BIN / "flower-supernode"), "--superlink", config.server, "--host", host, "--port", port]
    command += ["--root-certificates", str(config.authority), "--auth-supernode-private-key", str(config.key)]
    command += ["--isolation", "process", "--superexec-auth-secret-file", str(secret)]
    return [*command, "--node-config", key_values(config.told)]


def _answer_messages(supernode: Process, address: str, secret: bytes) -> None:
    """Give each message that the SuperNode has received a process of its own.

    A process is started ahead of its message: its imports take longer than most answers. Raises `InputError` if it
    ends before it has one.
    """
    client = _client(address, secret)
    waiting: Process | None = _process()
    busy: list[Process] = []
    try:
        while supernode.poll() is None:
            if waiting and waiting.poll() is not None:
                raise InputError("this node cannot answer messages; the lines above say why: mend the installation")
            busy = [process for process in busy if process.poll() is None]
            if token := _acquire(client):
                busy.append(_handed(waiting or _process(), {"address": address, "token": token}))
                waiting = None
            elif not waiting and not busy:
                waiting = _process()
            time.sleep(POLL)
    finally:
        for process in [*busy, *([waiting] if waiting else [])]:
            process.kill()
        client.close()


def _client(address: str, secret: bytes) -> RuntimeHttpClient:
    return RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,  # on this machine's loopback
        root_certificates=None,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperExec"),
            SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"}),
        ],
    )


def _acquire(client: RuntimeHttpClient) -> str:
    """The token of a message that waits, or nothing: also while the SuperNode starts and ends."""
    try:
        return client.AcquireTask(AcquireTaskRequest(supported_task_types=APPS)).token
    except httpx.TransportError:
        return ""


def _process() -> Process:
    """-P: the working folder is not on the path, so that no file in it is taken for an installed one."""
    return subprocess.Popen([sys.executable, "-P", "-m", "federation.task"], stdin=subprocess.PIPE)


def _handed(process: Process, task: Mapping[str, str]) -> Process:
    assert process.stdin
    with process.stdin as line:
        line.write(json.dumps(task).encode() + b"\n")
    return process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def key_values(values: Mapping[str, "Scalar"]) -> str:
    """Pairs as Flower's command line reads them: TOML's values."""
    return " ".join(f"{name}={toml(value)}" for name, value in values.items())
