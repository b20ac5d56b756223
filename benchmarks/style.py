"""Figures of the project's style: `python -m benchmarks.style`, from a clone's root.

They are counted over the rooms and the command line, without tests and benchmarks.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("data", "recsys", "federation", "serving", "fedrec")
VERBS = Path(__file__).with_name("verbs.txt").read_text("utf-8").split()
"""The verbs that a docstring may begin with, in their plain form."""


@dataclass(frozen=True)
class Style:
    """What a reader meets: names, docstrings and sizes."""

    functions: int
    verb_share: float  # of the functions with a docstring, properties left out: its first word is a verb
    one_word_share: float  # of the functions: the name has no second word
    median_length: float  # lines of a function
    p90_length: float
    longest_file: tuple[str, int]  # its path and lines
    not_verbs: list[str]  # docstrings that begin otherwise, as `file:line: first words`


def functions_in(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Iterate over the functions and methods of a file, dunder methods left out."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("__"):
            yield node


def is_property(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether a function is read like a value: its docstring is then a noun's."""
    return any("property" in ast.unparse(decorator) for decorator in function.decorator_list)


def measure(root: Path = ROOT) -> Style:
    """Count over every Python file of the rooms."""
    files = [path for room in ROOMS for path in sorted((root / room).rglob("*.py"))]
    functions = [(path, function) for path in files for function in functions_in(path)]
    lengths = [(function.end_lineno or 0) - function.lineno + 1 for _, function in functions]
    described = [(path, f, doc) for path, f in functions if (doc := ast.get_docstring(f)) and not is_property(f)]
    others = [
        f"{path.relative_to(root)}:{f.lineno}: {doc.splitlines()[0][:60]}"
        for path, f, doc in described
        if (re.findall(r"[a-z]+", doc.lower()) or [""])[0] not in VERBS
    ]
    longest = max(files, key=lambda path: len(path.read_text("utf-8").splitlines()))
    return Style(
        functions=len(functions),
        verb_share=1 - len(others) / len(described),
        one_word_share=sum("_" not in f.name.strip("_") for _, f in functions) / len(functions),
        median_length=median(lengths),
        p90_length=quantiles(lengths, n=10)[-1],
        longest_file=(str(longest.relative_to(root)), len(longest.read_text("utf-8").splitlines())),
        not_verbs=others,
    )


if __name__ == "__main__":
    style = measure()
    print(f"functions                         {style.functions:,}")
    print(f"docstrings that begin with a verb {style.verb_share:.1%} (at least 80 %)")
    print(f"one-word function names           {style.one_word_share:.1%} (at most 45 %)")
    print(f"lines of a function               median {style.median_length:.0f}, p90 {style.p90_length:.0f} (8, 20)")
    print(f"longest file                      {style.longest_file[0]}, {style.longest_file[1]} lines (300)")
    for line in style.not_verbs:
        print(f"  {line}")
