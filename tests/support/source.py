"""The source of the project as it is read by tests: its files, their modules, and what they import."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("data", "recsys", "federation", "serving", "fedrec", "benchmarks")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def module_of(path: Path) -> str:
    """The dotted name that a file is imported by."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    dotted = ".".join(parts if parts[0] in ("fedrec", "benchmarks") else ("fedrec", *parts))
    return dotted.removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imports(path: Path, top_level: bool = False) -> Iterator[str]:
    """Dotted names that a file imports; with `top_level`, only those that its own import imports."""
    tree = parse(path)
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_with(module: str, seen: set[str] | None = None) -> set[str]:
    """The top-level names of all packages that an import of a module imports, by way of our others, too."""
    seen = set() if seen is None else seen
    if module in seen or module not in MODULES:
        return set()
    seen.add(module)
    found = imported_with(module.rpartition(".")[0], seen)
    for name in imports(MODULES[module], top_level=True):
        found |= imported_with(name, seen) if name.startswith(("fedrec", "benchmarks")) else {name.partition(".")[0]}
    return found
