"""The architecture: which room may import which, what stays out of module level, and one table of settings."""

import ast
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from fedrec.federation.config import RunConfig, from_flat, to_flat
from tests.support.source import FILES, MODULES, ROOT, imports, module_of, parse

MAY_IMPORT = {
    "data": set[str](),
    "recsys": {"data"},
    "federation": {"recsys", "data"},
    "serving": {"recsys", "data"},
    "fedrec": {"data", "recsys", "federation", "serving"},
    "benchmarks": {"data", "recsys", "federation", "serving", "fedrec"},
}
"""The rooms, and the rooms that each may import."""

FLOWER = {
    "federation/wire.py",
    "federation/rounds.py",
    "federation/exchange.py",
    "federation/exposure_rounds.py",
    "federation/secure_exchange.py",
    "federation/secure_node.py",
    "federation/census.py",
    "federation/training_run.py",
    "federation/client_app.py",
    "federation/closed_form_rounds.py",
    "federation/server_app.py",
    "federation/local_grid.py",
    "federation/task_identity.py",
    "federation/attentive_grid.py",
    "federation/parcel.py",
    "federation/deployment/supernode.py",
    "federation/deployment/packed_message.py",
    "federation/deployment/message_process.py",
    "benchmarks/speed/flower_simulation.py",
}
SLOW = {"sentence_transformers", "peft", "transformers"}


def room_of(module: str) -> str:
    """The room of one of our modules: `fedrec.data.shard` is in `data`, `fedrec.cli` in `fedrec`."""
    first, _, rest = module.partition(".")
    second = rest.partition(".")[0]
    return second if first == "fedrec" and second in MAY_IMPORT else first


def wing_of(module: str) -> str:
    """A file's folder within its room; a file that lies in the room itself is a wing of its own."""
    parts = module.split(".")
    depth = 3 if room_of(module) not in ("fedrec", "benchmarks") else 2
    return ".".join(parts[:depth])


def our_imports(path: Path) -> set[str]:
    """The files of the project that a file imports, by their module names."""
    return {name for name in imports(path) if name in MODULES and name not in ("fedrec", module_of(path))}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(module_of(path))
    for name in our_imports(path):
        assert room_of(name) in MAY_IMPORT[room] | {room}, f"{path.name} imports {name}"
    for name in imports(path):
        outside = name.split(".")[0]
        assert outside not in {"data", "recsys", "federation", "serving"}, (
            f"{path.name} imports {name}: say fedrec.{name}"
        )
        if outside == "flwr":
            assert path.relative_to(ROOT).as_posix() in FLOWER, f"{path.name} imports {name}"
        assert outside not in {"pickle", "shelve", "dill", "cloudpickle"}, f"{path.name} imports {name}"
        assert outside != "joblib" or name in {"joblib", "joblib.cpu_count"}, f"{path.name} imports {name}"


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = {module: our_imports(path) for module, path in MODULES.items()}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_no_wing_imports_itself_by_way_of_others() -> None:
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        if module not in ("fedrec", *(f"fedrec.{room}" for room in MAY_IMPORT)):
            wings = {wing_of(name) for name in our_imports(path)}
            graph.setdefault(wing_of(module), set()).update(wings - {wing_of(module)})
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_slow_imports_wait_until_they_are_needed(path: Path) -> None:
    assert not SLOW & {name.split(".")[0] for name in imports(path, top_level=True)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_product_runs_without_its_federated_baselines(path: Path) -> None:
    """A federation that trains the two towers imports no method that they are compared with."""
    wing = "fedrec.recsys.federated_baselines"
    if room_of(module_of(path)) != "benchmarks" and not module_of(path).startswith(wing):
        assert not [name for name in imports(path, top_level=True) if name.startswith(wing)]


def test_no_test_imports_a_test() -> None:
    """What several tests need is in `tests/support`."""
    tests = sorted((ROOT / "tests").rglob("*.py"))
    found = {path.name: name for path in tests for name in imports(path) if name.startswith("tests.test_")}
    assert found == {}


TEXT = {"read_text": 0, "write_text": 1}
"""Methods of paths that take an encoding, and the number of arguments before it."""


def unencoded(path: Path) -> Iterator[str]:
    """Calls in a file that read or write text in the encoding of the process's locale."""
    for call in (node for node in ast.walk(parse(path)) if isinstance(node, ast.Call)):
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


def test_flat_settings_round_trip() -> None:
    changed = {"rounds": 3, "lora_targets": "query,key", "server_rate": 0.5, "mode": "central", "layers": 1}
    config = from_flat(changed)
    assert config.model.lora_targets == ("query", "key")
    assert to_flat(config) == to_flat(RunConfig()) | changed
    assert from_flat({name: str(value) for name, value in to_flat(config).items()}) == config


@pytest.mark.parametrize("folder", ["data", "recsys", "federation", "serving"])
def test_a_room_is_a_folder_of_the_repository_and_a_package_of_fedrec(folder: str) -> None:
    """The link in `fedrec/` is all that Python, the type checker, an editor and the wheel need to find it."""
    assert (ROOT / folder / "__init__.py").is_file()
    assert (ROOT / "fedrec" / folder).is_symlink()
    assert (ROOT / "fedrec" / folder).resolve() == ROOT / folder


def test_the_clone_declares_no_second_top_level_package() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]["find"]
    assert packages == {"include": ["fedrec*"]}
