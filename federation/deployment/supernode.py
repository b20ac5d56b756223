"""A node that runs installed code only: Flower's SuperNode without its own executor, and ours in its place."""

import logging
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

from fedrec.data.errors import InputError
from fedrec.federation.deployment.app_bundle import toml
from fedrec.federation.deployment.tether import tethered

if TYPE_CHECKING:
    from fedrec.federation.config import Scalar

Process = subprocess.Popen[bytes]

logger = logging.getLogger("fedrec")

BIN = Path(sys.executable).parent
EVERY = 0.1
"""Seconds between two polls of the processes."""

LOST = 75
"""The exit status of a process that could not answer a message: `EX_TEMPFAIL` of sysexits.h."""

ABSENCE = 5.0
"""Seconds for which a node is away after it has lost a message. A server's grid asks for answers every 3 s, and is told
that the node is gone; a node that is back by then is waited for until the round's time is over."""


@dataclass(frozen=True)
class NodeConfig:
    """The address of a node's server, the files that authenticate both, and the node config of its ClientApp."""

    server: str  # host:port
    authority: Path  # certificate that the server's is signed with
    key: Path  # the node's private key
    told: Mapping[str, "Scalar"]  # as `client_app` reads it: data, part, parts


def run_node(config: NodeConfig) -> int:
    """Run a SuperNode and answer its messages until it ends, SIGTERM or Ctrl-C; return its exit status.

    Raises `InputError` if what is installed here cannot answer messages.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with TemporaryDirectory(prefix="fedrec-node-") as folder:  # for this user's eyes only
        secret = Path(folder) / "secret"
        secret.write_bytes(secrets.token_bytes(32))
        try:
            while (status := _run_supernode(config, secret)) is None:
                time.sleep(ABSENCE)
        except KeyboardInterrupt:
            return 0
        return status


def _run_supernode(config: NodeConfig, secret: Path) -> int | None:
    """Run a SuperNode and answer its messages until it ends; return its exit status, or None if a message was lost.

    flwr 1.41 has a SuperNode wait without end for the answer to a message that a process has half fetched or half
    answered (`_push_messages` of flwr/supernode/start_client_internal.py), and take in no other. So it is ended, and
    the next one starts without the message.
    """
    address = f"127.0.0.1:{free_port()}"
    supernode = subprocess.Popen(tethered(_command(config, address, secret)))
    try:
        lost = _answer_messages(supernode, address, secret)
    finally:
        supernode.terminate()
        status = supernode.wait()
    return None if lost else status


def _command(config: NodeConfig, address: str, secret: Path) -> list[str]:
    host, port = address.split(":")
    command = [str(BIN / "flower-supernode"), "--superlink", config.server, "--host", host, "--port", port]
    command += ["--root-certificates", str(config.authority), "--auth-supernode-private-key", str(config.key)]
    command += ["--isolation", "process", "--superexec-auth-secret-file", str(secret)]
    return [*command, "--node-config", key_values(config.told)]


def _answer_messages(supernode: Process, address: str, secret: Path) -> bool:
    """Keep a process that waits for messages and answers them: a SuperNode takes in one at a time.

    It is started ahead of its first message, since its imports take longer than most answers. Returns whether it was
    killed, or lost a message: True at once, and False if the SuperNode has ended.
    """
    process = _process(address, secret)
    try:
        while supernode.poll() is None:
            if (status := process.poll()) is not None:
                if status < 0 or status == LOST:
                    logger.warning("the process of the messages has ended with %s; this node starts again", status)
                    return True
                if status:
                    raise InputError("this node cannot answer messages; the lines above say why: mend the installation")
                process = _process(address, secret)  # it ended after an error or a long rest
            time.sleep(EVERY)
        return False
    finally:
        process.kill()
        process.wait()


def _process(address: str, secret: Path) -> Process:
    """Start a message process. `-P` keeps the working folder off the path, so that no file in it shadows a package."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "fedrec.federation.deployment.message_process", address, str(secret)]
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def key_values(values: Mapping[str, "Scalar"]) -> str:
    """Format pairs as Flower's command line reads them: TOML's values."""
    return " ".join(f"{name}={toml(value)}" for name, value in values.items())
