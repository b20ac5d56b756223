"""nginx with `deploy/nginx.conf` before a SuperLink, as `docs/deploy.md` sets it up, on a free port."""

import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedrec.local_federation.certificates import AUTHORITY
from fedrec.local_federation.processes import LINK, Federation, free_port

PROTOBUF = "application/protobuf"
CLOSE = "Content-Length: 0\r\nConnection: close\r\n\r\n"
ROOT = Path(__file__).resolve().parents[2]
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def front_door(here: Federation) -> Iterator[int]:
    """Start the front door, and return the port that nodes are given."""
    assert NGINX
    config, port = (ROOT / "deploy" / "nginx.conf").read_text(), free_port()
    for given, free in {
        "listen 8000": f"listen {port}",
        "server 127.0.0.1:8001": f"server 127.0.0.1:{here.port}",
    }.items():
        assert config.count(given) == 1
        config = config.replace(given, free)
    folder = here.folder
    (folder / "nginx.conf").write_text(config)
    with (folder / "nginx.log").open("wb") as log:
        nginx = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")], stdout=log, stderr=log)
    try:
        until_open(nginx, port, folder / "nginx.log")
        yield port
    finally:
        nginx.terminate()
        nginx.wait(30)


def requests() -> list[bytes]:
    """List the requests, as bytes, by which an outsider may try to reach the control API or the runtime API."""
    control = "/v1/control/list-nodes"
    targets = [
        *(control, f"/{control}", "/V1/Control/list-nodes", "/v1/%63ontrol/list-nodes", f"https://localhost{control}"),
        *("/v1/fleet/register-node", "/v1/fleet/unregister-node", "/v1/fleet/", "/docs"),
        *("/openapi.json", "/health", "/", "*"),
        *(f"/v1/fleet/{up}control/list-nodes" for up in ("../", "%2e%2e/", "..%2f", "..;/", "..\\", "%252e%252e/")),
        *(
            f"/v1/fleet/get-run{cut}/../..{control}"
            for cut in ("", "?", ";", "#", "%00", "%3f", "%23", "%0d%0a", "%20HTTP/1.1%0d%0a", "\t")
        ),
        *(f"{control}{cut}/../../fleet/get-run" for cut in ("", "?", "#", "%3f", "%23", "%00")),
    ]
    plain = [*(_post(target) for target in targets), _post("/v1/runtime/pull-messages").replace(b"POST", b"GET")]
    named = [
        f"{name}: {control}" for name in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Path", "X-Accel-Redirect")
    ]
    inner = _post(control).decode()
    smuggled = [
        f"Content-Length: {len(inner)}\r\n\r\n{inner}",
        f"Content-Length: 0\r\nContent-Length: {len(inner)}\r\n\r\n{inner}",
        f"Transfer-Encoding: chunked\r\nContent-Length: {5 + len(inner)}\r\n\r\n0\r\n\r\n{inner}",
        f"Transfer-Encoding : chunked\r\nContent-Length: {5 + len(inner)}\r\n\r\n0\r\n\r\n{inner}",
        f"Transfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{inner}",
        f"Content-Length: 0\r\n\r\n{inner}",
        f"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n{inner}",
        f"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n{inner}",
    ]
    starts = [f"POST /v1/fleet/get-run HTTP/1.1\r\nHost: localhost\r\n{rest}" for rest in smuggled]
    starts += [f"POST /v1/fleet/get-run HTTP/1.1\r\nHost: localhost\r\n{line}\r\n{CLOSE}" for line in named]
    starts += [
        f"{line}\r\nHost: localhost\r\n\r\n{inner}" for line in ("CONNECT localhost:8001 HTTP/1.1", "PRI * HTTP/2.0")
    ]
    return [*plain, *(start.encode() for start in starts)]


def _post(target: str) -> bytes:
    return f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {PROTOBUF}\r\n{CLOSE}".encode()


def reached(here: Federation, port: int) -> set[str]:
    """Return the calls that the SuperLink says came to it while all of these came to this port. Its own processes
    make theirs meanwhile, to the runtime API."""
    log = here.log(LINK)
    before = log.stat().st_size
    for request in requests():
        ask(port, here.certificates, request)
    said = log.read_bytes()[before:].decode(errors="replace")
    return {call for call in re.findall(r'"(.+) HTTP/', said) if not call.startswith("POST /v1/runtime/")}


def until_open(nginx: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert nginx.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def ask(port: int, certificates: Path, request: bytes) -> bytes:
    """Send bytes on one TLS connection, and return all that comes back until it is closed or falls silent."""
    context = ssl.create_default_context(cafile=str(certificates / AUTHORITY))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=1) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as line,
    ):
        line.sendall(request)
        answer = b""
        try:
            while data := line.recv(65536):
                answer += data
        except OSError:  # it says no more, or has cut the line
            pass
        return answer
