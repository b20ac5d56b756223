"""What a run's folder records of its training: a line of JSON for every round, and the final metrics."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedrec.data.errors import InputError
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.data.storage.reading import regular, require

FILE = "rounds.jsonl"
METRICS = "metrics.json"
"""The metrics of a finished run, beside the log of its rounds."""

SCORE = "ndcg@10"
"""The validation metric that selects the round to keep."""


def load_metrics(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Read the final metrics of a run, by split and protocol. Raises `InputError` if it is not finished."""
    if not (folder / METRICS).is_file():
        raise InputError(f"{folder} has not finished training; continue with `resume`")
    return json.loads((folder / METRICS).read_text("utf-8"))


Observer = Callable[[dict[str, Any]], None]
"""A function that is called with the record of each round, as the log holds it, once the round is saved."""


def ignore(record: dict[str, Any]) -> None:
    """Observe nothing."""


def join_observers(*observers: Observer) -> Observer:
    """Return an observer that calls others, one after the other."""

    def observe(record: dict[str, Any]) -> None:
        for each in observers:
            each(record)

    return observe


@dataclass(frozen=True)
class RoundLog:
    """Where a run records its rounds: a file in its folder, and an observer, which get the same."""

    folder: Path
    observe: Observer = ignore

    def append(self, record: dict[str, Any]) -> None:
        """Write the record of a round to the file."""
        with (self.folder / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """Read the records of a run's rounds; a last line cut short by a crash is left out. Raises `InputError`."""
    path = folder / FILE
    if not path.exists():
        return []
    lines = regular(path, "remove it").read_bytes().splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            require(record, {"round": int}, path, "remove the line")
            records.append(record)
        except (ValueError, RecursionError) as error:
            if number < len(lines):
                raise InputError(f"{path} line {number} is no round ({error}); remove the line") from error
    return records


def without_loss(record: dict[str, Any]) -> str:
    """Describe the clients of a round whose loss is not in its mean; empty if there is none."""
    counts = {
        "with nothing to learn from": record["clients_without_examples"],
        "diverged": record["clients_diverged"],
    }
    told = [f"{count} {said}" for said, count in counts.items() if count]
    return f" (clients: {', '.join(told)})" if told else ""


def rewind(folder: Path, number: int) -> None:
    """Forget rounds after `number`: they were logged but not saved, and will run again."""
    kept = [record for record in read(folder) if record["round"] <= number]
    with replaced_file(folder / FILE) as path:
        path.write_text("".join(json.dumps(record) + "\n" for record in kept), "utf-8")
