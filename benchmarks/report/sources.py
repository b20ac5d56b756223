"""The files that the documents are made from: the results of each benchmark, and figures that others published."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError

from benchmarks.preset import PUBLISHED
from benchmarks.report.privacy import PrivacyResult, read_privacy
from benchmarks.results_file import AblationResult, BenchmarkResult, Metrics, Result, load_result
from fedrec.data.errors import InputError
from fedrec.data.storage.reading import read_toml

RESULTS = Path("benchmarks/results")
PUBLISHED_FIGURES = Path(f"benchmarks/{PUBLISHED}.toml")


class Published(Metrics[float]):
    """The figures of a model on one of our benchmarks, as others report them."""

    model_config = ConfigDict(extra="forbid")

    benchmark: str
    model: str
    source: str
    federated: bool = False
    rule: str = ""  # how the measurement differs from ours
    kind: str = ""  # what the figure is, if it is not published


@dataclass(frozen=True)
class Results:
    """All results of a clone."""

    benchmarks: list[BenchmarkResult]  # by their number of interactions
    ablations: list[AblationResult]
    published: list[Published]
    privacy: PrivacyResult | None


def read_results(root: Path) -> Results:
    """Read the results below a clone's root. Raises `InputError` if it is no clone, or if a file is damaged."""
    path = root / PUBLISHED_FIGURES
    if not path.is_file():
        raise InputError(f"{path} is missing; run this in a clone of the repository, or name one with --root")
    results = [load_result(file, "make it again with `fedrec reproduce`") for file in _files(root)]
    benchmarks = [result for result in results if isinstance(result, BenchmarkResult)]
    return Results(
        sorted(benchmarks, key=lambda result: result.data.interactions),
        [result for result in results if isinstance(result, AblationResult)],
        _read_published(path),
        read_privacy(root),
    )


def _files(root: Path) -> list[Path]:
    return sorted((root / RESULTS).glob("*.json"))


def _read_published(path: Path) -> list[Published]:
    remedy = "fetch the repository again"
    try:
        return TypeAdapter(list[Published]).validate_python(read_toml(path, remedy)["figure"])
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}; {remedy}") from error


def title(result: Result) -> str:
    return result.preset.title or result.name
