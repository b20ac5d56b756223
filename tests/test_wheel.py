"""The wheel: one top-level name, with everything that a user needs, and nothing of the clone."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import httpx
import pytest

from fedrec.local_federation.processes import CONNECTED
from tests.support.cli import Outcome, is_refused
from tests.support.toy_world import SMALL, write_toy_films

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("fedrec", "data", "recsys", "federation", "serving", "benchmarks", "pyproject.toml", "README.md", "LICENSE")
ROOMS = ("data", "recsys", "federation", "serving")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is unpacked in, as pip does; it is built from a copy, so that nothing old is in it."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    subprocess.run(["cp", "-a", *(ROOT / name for name in SOURCES), folder / "source"], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*build, folder / "source"], check=True, timeout=240)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def elsewhere(site: Path, tmp_path: Path) -> Path:
    """A working folder beside no clone, with modules of the user's own under the names of our rooms."""
    for name in (*ROOMS, "benchmarks"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong module')\n", "utf-8")
    return tmp_path


def surroundings(site: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}


def fedrec(site: Path, cwd: Path, *arguments: object) -> Outcome:
    command = [sys.executable, "-m", "fedrec", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=surroundings(site), capture_output=True, text=True, timeout=240)
    return Outcome(done.returncode, done.stdout, done.stderr)


def contents(folder: Path) -> set[str]:
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in files if "__pycache__" not in name}


def test_it_holds_one_package_and_all_of_it(site: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert {path.name for path in site.iterdir()} == {"fedrec", f"fedrec-{version}.dist-info"}
    room = {name: contents(ROOT / name) for name in ROOMS}
    own = {name for name in contents(ROOT / "fedrec") if name.partition("/")[0] not in ROOMS}
    expected = own | {f"{name}/{file}" for name in ROOMS for file in room[name]}
    assert contents(site / "fedrec") == expected
    assert {"py.typed", "presets/ml-100k.toml", "serving/http/static/index.html"} <= expected


def test_the_wheel_is_what_python_finds(site: Path, elsewhere: Path) -> None:
    code = "import fedrec, fedrec.data.shard; print(fedrec.__file__, fedrec.data.__file__)"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=elsewhere, env=surroundings(site), capture_output=True, text=True, check=True)
    assert all(Path(path).is_relative_to(site) for path in found.stdout.split())


def test_its_commands_work_without_a_clone(site: Path, elsewhere: Path) -> None:
    help_page = fedrec(site, elsewhere, "--help")
    assert help_page.code == 0
    assert all(command in help_page.out for command in ("train", "serve", "federation", "bench"))
    is_refused(fedrec(site, elsewhere, "bench", "engine", "--json"), "`fedrec bench`", "only a clone", "make install")
    refused = fedrec(site, elsewhere, "train", "x", "--out", "y", "--preset", "nope")
    is_refused(refused, "--preset 'nope'", "choose one of amazon-scientific, ml-100k, ml-1m")


def test_it_prepares_trains_and_serves(site: Path, elsewhere: Path) -> None:
    films = write_toy_films(elsewhere / "films")
    assert fedrec(site, elsewhere, "data", "prepare", "ml-100k", "--source", films).code == 0
    sets = [f"--set={name}={value}" for name, value in (SMALL | {"rounds": 1}).items()]
    asked = ["train", "var/prepared/ml-100k", "--out", "run", "--preset", "ml-100k", *sets, "--json"]
    assert fedrec(site, elsewhere, *asked).answer["test"]["full"]["users"] == 12
    card = json.loads((elsewhere / "run" / "card.json").read_text("utf-8"))
    assert (card["config"]["server"]["server_rate"], card["config"]["rounds"]) == (0.004, 1)
    served_until_ready(site, elsewhere)


def served_until_ready(site: Path, cwd: Path) -> None:
    command = [sys.executable, "-m", "fedrec", "serve", "run", "--port", "0"]
    with subprocess.Popen(command, cwd=cwd, env=surroundings(site), stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            address = next(word for word in server.stderr.readline().split() if word.startswith("http"))
            with httpx.Client(base_url=address, transport=httpx.HTTPTransport(retries=3), timeout=60) as client:
                while client.get("/readyz").status_code == 503:
                    assert server.poll() is None
                assert client.get("/").status_code == 200  # the page is among the package's files
        finally:
            server.terminate()


def test_it_writes_the_flower_app(site: Path, elsewhere: Path) -> None:
    """Every file of the app is the wheel's, and Flower finds the settings and the components in it."""
    written = fedrec(site, elsewhere, "federation", "app", "app")
    assert written.code == 0
    assert "flwr run app" in written.out
    names = contents(elsewhere / "app")
    assert {name for name in names if (site / name).is_file()} == names - {"pyproject.toml"}
    is_refused(fedrec(site, elsewhere, "federation", "app", "app"), "FOLDER app is not empty", "choose another folder")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_it_brings_a_federation_up(site: Path, elsewhere: Path) -> None:
    films = write_toy_films(elsewhere / "films")
    assert fedrec(site, elsewhere, "data", "prepare", "ml-100k", "--source", films).code == 0
    command = [sys.executable, "-m", "fedrec", "federation", "up", "var/prepared/ml-100k", "--nodes", "2"]
    with subprocess.Popen(command, cwd=elsewhere, env=surroundings(site), start_new_session=True) as up:
        try:
            logs = [elsewhere / "var" / "federation" / f"node-{number}.log" for number in (0, 1)]
            deadline = time.monotonic() + 300
            while not all(log.exists() and CONNECTED in log.read_text(errors="replace") for log in logs):
                assert up.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.5)
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(60)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_its_demo_runs(site: Path, elsewhere: Path) -> None:
    command = [sys.executable, "-m", "fedrec", "demo"]
    done = subprocess.run(command, cwd=elsewhere, env=surroundings(site), capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    assert "fedrec: both halves" in done.stdout
