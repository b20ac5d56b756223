"""The house: who may import whom, what stays out of module level, and one table of knobs."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.config import PLACES, RunConfig, from_knobs, knobs

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "data": set(),
    "recsys": {"data"},
    "federation": {"recsys", "data"},
    "serving": {"recsys", "data"},
    "fedrec": {"data", "recsys", "federation", "serving"},
}
ORDER = {
    "data": [
        "errors",
        "ids",
        "names",
        "locks",
        "contents",
        "swap",
        "files",
        "reading",
        "catalogue",
        "histories",
        "shard",
        "fingerprint",
        "people",
        "split",
        "demo_vocabulary",
        "demo",
        "raw",
        *("rules", "times"),
        "films",
        "atomic",
        "unisrec",
        "sources",
        *("account", "columns", "lines", "formats", "rows", "items", "tables", "filter", "popularity"),
        "download",
        "prepare",
        "nodes",
        "synthetic",
    ],
    "recsys": [
        "embed",
        "machine",
        "exact",
        "nearest",
        "stacks",
        "lora",
        "model",
        "loss",
        "fit",
        "rank",
        "towers",
        "learner",
        "examples",
        "peers",
        "significance",
        "groups",
        "personal",
        "baselines",
        "neighbours",
        "sasrec",
        "tuning",
        "card",
        "tensors",
        "recommender",
    ],
    "federation": [
        "config",
        "bundle",
        "tether",
        "quantise",
        "compress",
        "update",
        "keep",
        "orders",
        "client",
        "server",
        "answers",
        "wire",
        "log",
        "rounds",
        "train",
        "client_app",
        "task",
        "supernode",
        "server_app",
        "local",
        "simulation",
        "credentials",
        "processes",
    ],
    "serving": [
        *("exact", "index", "diversity", "schema", "cost", "filters", "titles", "shelf", "engine", "store", "threads"),
        *("live", "together", "settings", "problems", "paths", "hosts", "tokens", "callers", "rates", "gate", "body"),
        *("described", "routes", "log", "documentation", "app", "server"),
    ],
}
"""Within a package a file imports only those listed before it."""
FLOWER = {"wire", "rounds", "train", "client_app", "task", "server_app", "local", "simulation"}
SLOW = {"sentence_transformers", "peft", "transformers"}
FILES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path, top_level: bool = False) -> Iterator[str]:
    """Dotted names that a file imports; with `top_level`, only when it is itself imported."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    package = path.parent.relative_to(ROOT).parts[0]
    earlier = ORDER.get(package, [])
    before = set(earlier[: earlier.index(path.stem)]) if path.stem in earlier else set()
    for name in imports(path):
        room, _, rest = name.partition(".")
        if room in MAY_IMPORT and room != package:
            assert room in MAY_IMPORT[package], f"{path.name} imports {name}"
        if room == package and rest and package in ORDER:
            assert rest.split(".")[0] in before, f"{path.name} imports {name}, which is not listed before it"
        if room == "flwr":
            assert package == "federation", f"{path.name} imports {name}"
            assert path.stem in FLOWER, f"{path.name} imports {name}"
        assert room not in {"pickle", "shelve", "dill", "cloudpickle"}, f"{path.name} imports {name}"
        assert room != "joblib" or name in {"joblib", "joblib.cpu_count"}, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_slow_imports_wait_until_they_are_needed(path: Path) -> None:
    assert not SLOW & {name.split(".")[0] for name in imports(path, top_level=True)}


TEXT = {"read_text": 0, "write_text": 1}
"""Methods of paths that take an encoding, and how many arguments stand before it."""


def unencoded(path: Path) -> Iterator[str]:
    """Calls in a file that read or write text in the encoding of whatever locale the process has."""
    for call in (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        named = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
        first = getattr(call.args[0], "value", None) if call.args else named.get("mode", "r")
        opened = name == "open" and isinstance(first, str) and "b" not in first
        bare = name in TEXT and len(call.args) <= TEXT[name]
        if (opened or bare or named.get("text") is True) and "encoding" not in named:
            yield f"{path.name}:{call.lineno}"


def test_text_is_read_and_written_in_a_named_encoding() -> None:
    """A file written under one locale is read under any other."""
    assert [place for path in FILES for place in unencoded(path)] == []


def test_every_file_has_its_place_in_the_order() -> None:
    for package, order in ORDER.items():
        assert {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"} == set(order)


def test_the_table_in_pyproject_is_the_dataclasses() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert table == PLACES | knobs(RunConfig())


def test_knobs_round_trip() -> None:
    changed = {"rounds": 3, "lora_targets": "query,key", "server_rate": 0.5, "mode": "central", "layers": 1}
    config = from_knobs(changed)
    assert config.model.lora_targets == ("query", "key")
    assert knobs(config) == knobs(RunConfig()) | changed
    assert from_knobs({name: str(value) for name, value in knobs(config).items()}) == config


@pytest.mark.parametrize("folder", [*MAY_IMPORT, "tests", "notebooks"])
def test_every_folder_is_a_package(folder: str) -> None:
    assert (ROOT / folder / "__init__.py").is_file()
