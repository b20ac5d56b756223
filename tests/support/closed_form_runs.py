"""Runs with a closed form in this process, to their end or to the end of a round."""

from pathlib import Path
from typing import Any

from fedrec.data.dataset import Dataset
from fedrec.federation.checkpoint import State
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.training_run import open_run, train
from tests.support.toy_world import small_config


class Stopped(Exception):
    """The end of a run at a moment of the test's choice."""


def finished(data: Path, out: Path, resume: bool = False, stop_after: int = 0, **settings: Any) -> State:
    """Train a run to its end, or to the end of a round, and return its state."""

    def observe(record: dict[str, Any]) -> None:
        if record["round"] == stop_after:
            raise Stopped

    run = open_run(out, Dataset.open(data), small_config(**settings), resume)
    try:
        train(LocalGrid.over(run.setup), run, observe)
    except Stopped:
        assert stop_after
    state = State.load(out)
    assert state
    return state
