"""`docs/deploy.md`, followed literally from an empty folder: its commands, one after the other, as they stand there."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedrec.federation.deployment.app_bundle import ROOT
from fedrec.local_federation.processes import CONNECTED, environment
from tests.support.commands import parse_command
from tests.support.nginx import NGINX

GUIDE = ROOT / "docs" / "deploy.md"
SAYS_WHEN_READY = {"flower-superlink": "Uvicorn running", "nginx": "start worker process", "fedrec node run": CONNECTED}
"""What runs until it is stopped, in a terminal of its own, and what it says when it is ready."""


def commands() -> list[str]:
    """The guide's blocks of commands, in its order."""
    return re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)


def test_the_guide_names_tests_that_exist() -> None:
    told = re.findall(r"`(test_\w+?)(?:…)?(?:\.py)?`", GUIDE.read_text())
    source = "\n".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    assert len(told) > 10
    assert not [name for name in told if f"def {name}" not in source and not (ROOT / f"tests/{name}.py").exists()]


def test_containers_open_the_door_alone() -> None:
    """The SuperLink's port stays on a loopback that nginx and `flwr` share; nodes run installed code only."""
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "superlink": ["8000:8000"],
        "endpoint": ["127.0.0.1:8080:8080"],
    }
    assert "--host 127.0.0.1 --port 8001" in services["superlink"]["command"]
    assert {services[name]["network_mode"] for name in ("door", "flwr")} == {"service:superlink"}
    images = stages((ROOT / "deploy" / "Dockerfile").read_text())
    for name, entrypoint in (
        ("superlink", "flower-superlink"),
        ("supernode", "fedrec node run"),
        ("endpoint", "fedrec serve"),
    ):
        assert images[services[name]["build"]["target"]]["ENTRYPOINT"] == entrypoint.split()
    config = (ROOT / "deploy" / "nginx.conf").read_text()
    assert re.findall(r"^ *(?:listen|server) (\S+)", config, re.MULTILINE) == ["127.0.0.1:8001;", "{", "8000"]


def stages(dockerfile: str) -> dict[str, dict[str, Any]]:
    """The stages of a Dockerfile: each with the stage before it, its entry point, and the extras that it installs."""
    found: dict[str, dict[str, Any]] = {}
    for text in re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)[1:]:
        before, name = re.match(r"(\S+) AS (\S+)", text).groups()  # type: ignore[union-attr]
        entrypoint = re.search(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)
        installed = ",".join(re.findall(r"/fedrec\[([\w,]+)\]", text))
        extras = {*filter(None, installed.split(",")), *found.get(before, {}).get("extras", ())}
        found[name] = {"extras": extras, "text": text, "ENTRYPOINT": json.loads(entrypoint[1]) if entrypoint else []}
    return found


def test_an_image_has_what_it_needs_and_nothing_else() -> None:
    images = stages((ROOT / "deploy" / "Dockerfile").read_text())
    found = {name: image["extras"] for name, image in images.items() if image["ENTRYPOINT"]}
    assert found == {"endpoint": {"serving", "postgresql"}, "node": {"flower"}, "server": {"flower"}}
    assert "fedrec federation app /app" in images["server"]["text"]
    assert "run --rm flwr run /app shop" in GUIDE.read_text()
    assert all("USER 1000" in images[name]["text"] for name in found)


MANIFESTS = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_manifest_says_what_compose_says(path: Path) -> None:
    """The same arguments as in containers, no rights that are not needed, and every volume that is mounted."""
    documents = list(yaml.safe_load_all(path.read_text()))
    (pod,) = [found["spec"]["template"]["spec"] for found in documents if found["kind"] == "Deployment"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    claims = {found["metadata"]["name"] for found in documents if found["kind"] == "PersistentVolumeClaim"}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert claims == {v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v}
    for container in pod["containers"]:
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys()
    if path.stem == "server":
        assert "--host=127.0.0.1" in pod["containers"][0]["args"]
        ports = {port["containerPort"] for container in pod["containers"] for port in container.get("ports", ())}
        assert ports == {8000}  # the SuperLink's own port is in no list
    else:
        command = {"node": ["node", "run"], "endpoint": ["serve"]}[path.stem]
        parse_command([*command, *pod["containers"][0]["args"]])


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not NGINX, reason="needs nginx")
def test_the_guide_can_be_followed(tmp_path: Path) -> None:
    (tmp_path / "fedrec").symlink_to(ROOT)
    blocks = commands()
    assert len(blocks) == 14
    terminals: list[subprocess.Popen[bytes]] = []
    said = ""
    known = environment(tmp_path / "unset") | {"FLWR_HOME": ""}
    settings = "cd " + str(tmp_path)
    try:
        for block in blocks:
            if block.startswith(tuple(SAYS_WHEN_READY)):
                with (log := tmp_path / f"terminal-{len(terminals)}").open("wb") as output:
                    terminals.append(
                        subprocess.Popen(
                            ["bash", "-ec", f"{settings}\nexec {block}"],
                            stdout=output,
                            stderr=output,
                            env=known,
                            start_new_session=True,
                        )
                    )
                wait_for(terminals[-1], log, next(filter(block.startswith, SAYS_WHEN_READY)))
            else:
                done = subprocess.run(
                    ["bash", "-ec", f"{settings}\n{block}"], env=known, capture_output=True, text=True, timeout=600
                )
                said += done.stdout
                assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
                settings += "".join(f"\n{line}" for line in block.splitlines() if line.startswith(("export", ". ")))
    finally:
        for terminal in reversed(terminals):
            os.killpg(terminal.pid, signal.SIGKILL)
            terminal.wait()
    assert (tmp_path / "runs" / "shop" / "metrics.json").exists(), said
    assert "round 3: loss" in said
    assert "score" in said  # ada's recommendations


def wait_for(terminal: subprocess.Popen[bytes], log: Path, command: str) -> None:
    deadline = time.monotonic() + 120
    while not re.search(SAYS_WHEN_READY[command], log.read_text(errors="replace")):
        assert terminal.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
