"""A stand-in for the Hugging Face hub over HTTP: models, as `huggingface_hub` makes, fills and reads them."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_of-a-test"


@dataclass
class Repository:
    """The files of a model, all in one commit, and whether anybody may read them."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


@dataclass
class Hub:
    """The repositories of a hub, by USER/NAME, and its address."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body, path = self.rfile.read(int(self.headers["Content-Length"])), self.path.partition("?")[0]
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            self.hub.repositories.setdefault(name, Repository(asked.get("visibility") == "private"))
            self._answer(200, {"url": f"{self.hub.url}/{name}"})
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            files = json.loads(body)["files"]
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            self._answer(200, {"files": modes} if match[1] in self.hub.repositories else {"files": []})
        elif match := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            self._commit(self.hub.repositories[match[1]], match[1], body)
        else:
            self._answer(404, {"error": f"no {path}"})

    def _commit(self, repository: Repository, name: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                repository.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        oid = repository.commit
        self._answer(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def do_GET(self) -> None:
        self._read()

    def do_HEAD(self) -> None:
        self._read()

    def _read(self) -> None:
        path = self.path.partition("?")[0]
        pattern = r"(/api/models)?/(?P<name>[^/]+/[^/]+)/(?P<kind>revision|tree|resolve)/(?P<at>[^/]+)/?(?P<file>.*)"
        match = re.fullmatch(pattern, path)
        repository = match and self.hub.repositories.get(match["name"])
        if not match or not repository or (repository.private and self.headers.get("Authorization") is None):
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif match["kind"] == "revision":
            self._answer(200, {"id": match["name"], "sha": repository.commit, "siblings": []})
        elif match["kind"] == "tree":
            entries = [
                {"type": "file", "path": file, "size": len(content), "oid": _blob_id(content)}
                for file, content in repository.files.items()
            ]
            self._answer(200, entries)
        else:
            content = repository.files[match["file"]]
            self._send(200, content, {"ETag": f'"{_blob_id(content)}"', "X-Repo-Commit": repository.commit})

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"} | (headers or {}))

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _blob_id(content: bytes) -> str:
    """Return the id that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving_hub() -> Iterator[Hub]:
    """Serve an empty hub on a free port."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            server.shutdown()
