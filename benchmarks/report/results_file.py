"""The files that results are made from: one of each benchmark, and one of what others have published."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reproduce.preset import PUBLISHED
from fedrec.data.errors import InputError
from fedrec.data.storage.reading import read_json, read_toml

RESULTS = Path("benchmarks/results")
PUBLISHED_FIGURES = Path(f"benchmarks/{PUBLISHED}.toml")

Result = dict[str, Any]
"""A benchmark's results, as its file holds them."""


@dataclass(frozen=True)
class Results:
    """All that is known."""

    benchmarks: list[Result]  # a dataset each
    ablations: list[Result]  # sets of variants
    published: list[Result]  # others' figures: `benchmark`, `model`, metrics, `source`


def read_results(root: Path) -> Results:
    """The results below a clone's root. Raises `InputError` where there are none, or a file is damaged."""
    if not (root / PUBLISHED_FIGURES).is_file():
        raise InputError(f"{root / PUBLISHED_FIGURES} is missing; run this in a clone of the repository, or name it")
    found = [_read(path) for path in sorted((root / RESULTS).glob("*.json"))]
    published = read_toml(root / PUBLISHED_FIGURES, "fetch the repository again")["figure"]
    by_size = sorted((f for f in found if "variants" not in f), key=lambda found: found["data"]["interactions"])
    return Results(by_size, [f for f in found if "variants" in f], published)


def _read(path: Path) -> Result:
    return read_json(path, "make it again with `fedrec reproduce`")


def title(result: Result) -> str:
    return result["preset"]["title"] or result["name"]
