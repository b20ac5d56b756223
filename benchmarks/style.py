"""Figures of the project's style: `python -m benchmarks.style`, from a clone's root.

Functions include methods and nested functions, but not dunder methods.
"""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("data", "recsys", "federation", "serving", "fedrec")
"""The folders that the bars are for; benchmarks and tests are counted apart."""

VERBS = frozenset(Path(__file__).with_name("verbs.txt").read_text("utf-8").split())
"""The verbs that a docstring may begin with, in their plain form: `Raises` is none of them."""

NOUN_BEFORE = ("of", "that", "which", "who", "is", "are", "was")
"""Words before which a verb is a noun: `Share of the items`, `Score that a user sees`."""

TICS = re.compile(
    r"\b(made anew|goes? on|so many|where there (is|are)|whoever|told|tells|of which some|stands?)\b", re.IGNORECASE
)
"""Phrases that plain English has a shorter word for."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Style:
    """Names, docstrings and sizes of some files."""

    functions: int
    verb_share: float  # of the functions with a docstring, without properties: its first word is a verb
    one_word_share: float  # of the functions: the name has no second word
    median_length: float  # lines of a function
    p90_length: float
    file_lengths: dict[str, int]  # path → lines
    not_verbs: list[str]  # the other docstrings, as `file:line: first words`
    tics: list[str]  # docstrings with such a phrase

    @property
    def longest_file(self) -> tuple[str, int]:
        """The longest file and its lines."""
        return max(self.file_lengths.items(), key=lambda item: item[1])


def functions_in(path: Path) -> Iterator[Function]:
    """Iterate over the functions of a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, Function) and not node.name.startswith("__"):
            yield node


def is_property(function: Function) -> bool:
    """Check whether a function is read like a value: its docstring then begins with a noun."""
    return any("property" in ast.unparse(decorator) for decorator in function.decorator_list)


def begins_with_verb(docstring: str) -> bool:
    """Check whether the first word is a verb in its plain form, and not a noun that is spelt like one."""
    match = re.match(r"([A-Z][a-z]+)(,?)(?:$|[ .\n](\w*))", docstring)
    if not match or match[1].lower() not in VERBS:
        return False
    return match[3] in VERBS if match[2] else match[3] not in NOUN_BEFORE


def is_one_word(name: str) -> bool:
    """Check whether a name has no second word."""
    return "_" not in name.strip("_")


def measure(folders: Sequence[str] = ROOMS, root: Path = ROOT) -> Style:
    """Measure all Python files below these folders of a clone."""
    files = [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]
    functions = [(path, function) for path in files for function in functions_in(path)]
    lengths = [(function.end_lineno or 0) - function.lineno + 1 for _, function in functions]
    described = {
        f"{path.relative_to(root)}:{function.lineno}: {doc.splitlines()[0][:60]}": doc
        for path, function in functions
        if (doc := ast.get_docstring(function)) and not is_property(function)
    }
    not_verbs = [place for place, doc in described.items() if not begins_with_verb(doc)]
    return Style(
        functions=len(functions),
        verb_share=1 - len(not_verbs) / len(described) if described else 1.0,
        one_word_share=sum(is_one_word(function.name) for _, function in functions) / len(functions),
        median_length=median(lengths),
        p90_length=quantiles(lengths, n=10)[-1],
        file_lengths={str(path.relative_to(root)): len(path.read_text("utf-8").splitlines()) for path in files},
        not_verbs=not_verbs,
        tics=[place for place, doc in described.items() if TICS.search(doc)],
    )


def report(title: str, style: Style) -> str:
    """Format the figures, with the bars for the rooms."""
    path, lines = style.longest_file
    return "\n".join(
        [
            title,
            f"  functions                         {style.functions:,}",
            f"  docstrings that begin with a verb {style.verb_share:.1%} (at least 80 %)",
            f"  one-word function names           {style.one_word_share:.1%} (at most 45 %)",
            f"  lines of a function               median {style.median_length:.0f}, p90 {style.p90_length:.0f} (8, 20)",
            f"  longest file                      {path}, {lines} lines (300)",
            f"  docstrings with a tic             {len(style.tics)}",
        ]
    )


if __name__ == "__main__":
    folders = sys.argv[1:]
    groups = (
        {" ".join(folders): folders} if folders else {"rooms": ROOMS, "benchmarks": ["benchmarks"], "tests": ["tests"]}
    )
    for title, group in groups.items():
        print(report(title, measured := measure(group)))
        if title != "tests":
            print("\n".join(f"    {line}" for line in measured.not_verbs))
