"""Trackers: each round's figures reach them, nothing else does, and none of them can stop a run."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fedrec as library
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.federation import round_log
from fedrec.federation.tracking import tracker
from fedrec.federation.tracking.tracker import TrackedRun, Tracking, check_trackers, figures_of, tracking
from tests.support.cli import Fedrec, is_refused
from tests.support.toy_world import SMALL

RECORD: dict[str, Any] = {
    "round": 2,
    "loss": 3.5,
    "clipped": None,
    "validation": {"ndcg@10": 0.25, "users": 12},
    "clients_asked": 6,
    "refusals": ["node 7: too few users"],
    "absences": [],
}


class Recorder:
    """A tracker that remembers, and fails at one step."""

    def __init__(self, failing_step: int = 0) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.failing_step, self.closed = failing_step, False

    def log(self, figures: Mapping[str, float], step: int) -> None:
        if step == self.failing_step:
            raise ConnectionError("no route to host")
        self.logged.append((step, dict(figures)))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """A tracker of the name `recorder`, as a package beside the three could bring it."""
    found = Recorder()
    monkeypatch.setitem(tracker.TRACKERS, "recorder", "json")
    module = ModuleType("fedrec.federation.tracking.to_recorder")
    module.__dict__["open_tracker"] = lambda run: found
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return found


def test_only_numbers_are_handed_on() -> None:
    assert figures_of(RECORD) == {
        "loss": 3.5,
        "validation/ndcg@10": 0.25,
        "validation/users": 12.0,
        "clients_asked": 6.0,
    }


def test_a_run_is_tracked_round_by_round(toy: Path, tmp_path: Path, recorder: Recorder) -> None:
    run = library.train(Dataset.open(toy), out=tmp_path / "run", progress=False, track=["recorder"], **SMALL)
    records = round_log.read(run.folder)
    assert [step for step, _ in recorder.logged] == [1, 2, 3, 4, 4]
    assert [figures for _, figures in recorder.logged[:4]] == [figures_of(record) for record in records]
    final = recorder.logged[-1][1]
    assert final["final/test/full/ndcg@10"] == run.metrics["test"]["ndcg@10"]
    assert recorder.closed


def test_a_tracker_learns_no_more_than_the_log_holds(tmp_path: Path, recorder: Recorder) -> None:
    """Under differential privacy the log has no count of who was drawn. Control: the observer is handed the count."""
    (tmp_path / round_log.FILE).write_text('{"round": 2, "clients_asked": 0}\n')
    with tracking(["recorder"], TrackedRun(tmp_path, {})) as tracked:
        assert RECORD["clients_asked"] == 6
        tracked.observe(RECORD)
    assert recorder.logged == [(2, {"clients_asked": 0.0})]


def test_a_tracker_that_fails_is_left_out_and_training_continues(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failing, sound = Recorder(failing_step=2), Recorder()
    tracked = Tracking(tmp_path, {"failing": failing, "sound": sound})
    for number in (1, 2, 3):
        (tmp_path / round_log.FILE).write_text(f'{{"round": {number}, "loss": 1.0}}\n')
        tracked.observe({"round": number})
    assert [step for step, _ in failing.logged] == [1]
    assert [step for step, _ in sound.logged] == [1, 2, 3]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "failing failed" in warning
    assert "no route to host" in warning


def test_a_missing_package_is_known_before_anything_is_written(
    toy: Path, tmp_path: Path, fedrec: Fedrec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    asked = ("train", toy, "--out", tmp_path / "run")
    is_refused(fedrec(*asked, "--track", "wandb"), "--track", "pip install 'fedrec[wandb]'")
    is_refused(fedrec(*asked, "--track", "paper"), "--track", "tensorboard, mlflow, wandb")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="is not known"):
        check_trackers(["paper"])


def track_two_rounds(name: str, folder: Path) -> None:
    """Log two rounds and the final metrics of a run `try`."""
    out = folder / "try"
    out.mkdir()
    with tracking([name], TrackedRun(out, {"rounds": 2, "lora_targets": "query,value"})) as tracked:
        for number in (1, 2):
            (out / round_log.FILE).write_text(f'{{"round": {number}, "loss": {4.0 - number}}}\n')
            tracked.observe({"round": number})
        tracked.finish({"test": {"full": {"ndcg@10": 0.5}}})
        assert tracked.trackers, "it failed"


def test_tensorboard_has_the_figures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track_two_rounds("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "try"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 3.0), (2, 2.0)]
    assert [(event.step, event.value) for event in events.Scalars("final/test/full/ndcg@10")] == [(2, 0.5)]


def test_mlflow_has_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    track_two_rounds("mlflow", tmp_path)
    client = mlflow.tracking.MlflowClient()
    experiment = client.get_experiment_by_name("fedrec")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("try", "FINISHED")
    assert run.data.params == {"rounds": "2", "lora_targets": "query,value"}
    assert [(at.step, at.value) for at in client.get_metric_history(run.info.run_id, "loss")] == [(1, 3.0), (2, 2.0)]
    assert run.data.metrics["final/test/full/ndcg_at_10"] == 0.5


def test_wandb_writes_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    track_two_rounds("wandb", tmp_path)
    (written,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"final/test/full/ndcg@10" in written.read_bytes()
