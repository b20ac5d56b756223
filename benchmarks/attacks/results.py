"""The file of what the attacks measured, `benchmarks/attacks.json`. Nothing in it is about one user."""

from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from benchmarks.results_file import Environment, Table
from fedrec.data.errors import InputError
from fedrec.data.storage.json_file import save_json
from fedrec.data.storage.reading import read_json

FILE = Path("benchmarks/attacks.json")


class CaseResult(Table):
    """A row: the case, and its figures, or the reason for which the nodes refused the attacker's order."""

    about: str
    defence: str
    control: bool = False
    options: dict[str, Any] = Field(default={})
    figures: dict[str, float] = Field(default={})
    refused: str = ""
    seconds: float = 0.0  # of processor time


class AttackResult(Table):
    """The cases of one attack that were run, and on what."""

    name: str
    command: str
    data: str
    users: int
    items: int
    seed: int
    size: dict[str, Any]
    environment: Environment
    cases: tuple[CaseResult, ...]


_RESULTS = TypeAdapter(dict[str, AttackResult])


def load_results(path: Path) -> dict[str, AttackResult]:
    """Read the results by the attacks' names; empty if there is no file. Raises `InputError` if it is damaged."""
    if not path.is_file():
        return {}
    try:
        return _RESULTS.validate_python(read_json(path, "make it again with `fedrec attack`"))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {place}: {first['msg'].lower()}; make it again with `fedrec attack`") from error


def save_result(path: Path, result: AttackResult) -> None:
    """Put an attack's results into the file, beside those of other attacks."""
    results = load_results(path) | {result.name: result}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_json(path, {name: results[name].to_json() for name in sorted(results)})
