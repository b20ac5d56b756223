"""Trackers: each round's figures reach them, nothing else does, and none of them can stop a run."""

import json
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        self.failing_step, self.finished = failing_step, None

    def log(self, figures: Mapping[str, float], step: int) -> None:
        if step == self.failing_step:
            raise ConnectionError("no route to host")
        self.logged.append((step, dict(figures)))

    def close(self, finished: bool) -> None:
        self.finished = finished


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
    assert recorder.logged[0][1]["clients_asked"] > 0, "control: without differential privacy the count is told"
    assert recorder.finished


def test_a_tracker_that_fails_is_left_out_and_training_continues(caplog: pytest.LogCaptureFixture) -> None:
    failing, sound = Recorder(failing_step=2), Recorder()
    tracked = Tracking({"failing": failing, "sound": sound})
    for number in (1, 2, 3):
        tracked.observe({"round": number, "loss": 1.0})
    assert [step for step, _ in failing.logged] == [1]
    assert [step for step, _ in sound.logged] == [1, 2, 3]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "failing failed" in warning
    assert "no route to host" in warning


def test_a_run_that_stops_is_not_marked_as_finished(tmp_path: Path, recorder: Recorder) -> None:
    with pytest.raises(KeyboardInterrupt), tracking(["recorder"], TrackedRun(tmp_path, {})):
        raise KeyboardInterrupt
    assert recorder.finished is False


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


@pytest.fixture
def tracked_by(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[dict[str, Any]]]:
    """Train a small run `try` with a tracker, in a folder of its own, and return its records."""
    monkeypatch.chdir(tmp_path)

    def track(name: str) -> list[dict[str, Any]]:
        run = library.train(Dataset.open(toy), out="try", progress=False, track=[name], **SMALL)
        return round_log.read(run.folder)

    return track


def losses(records: Sequence[Mapping[str, Any]]) -> list[tuple[int, Any]]:
    return [(record["round"], pytest.approx(record["loss"], rel=1e-6)) for record in records]


def final_of(folder: Path) -> float:
    return round_log.load_metrics(folder)["test"]["full"]["ndcg@10"]


def test_tensorboard_has_the_figures(tmp_path: Path, tracked_by: Callable[[str], list[dict[str, Any]]]) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    records = tracked_by("tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard" / "try"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == losses(records)
    (final,) = events.Scalars("final/test/full/ndcg@10")
    assert (final.step, final.value) == (4, pytest.approx(final_of(tmp_path / "try")))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # SQLAlchemy of how MLflow uses it
def test_mlflow_has_the_figures(
    tmp_path: Path, tracked_by: Callable[[str], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    records, client = tracked_by("mlflow"), mlflow.tracking.MlflowClient()
    experiment = client.get_experiment_by_name("fedrec")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("try", "FINISHED")
    assert (run.data.params["rounds"], run.data.params["lora_targets"]) == ("4", "query,value")
    assert [(at.step, at.value) for at in client.get_metric_history(run.info.run_id, "loss")] == losses(records)
    assert run.data.metrics["final/test/full/ndcg_at_10"] == final_of(tmp_path / "try")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://nowhere")
    with (
        pytest.raises(InputError, match=r"`track` = mlflow cannot be opened \(.*gopher"),
        tracking(["mlflow"], TrackedRun(tmp_path, {})),
    ):
        pass


def test_wandb_gets_the_figures_and_nothing_of_the_machine(
    tmp_path: Path, tracked_by: Callable[[str], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself it also logs the machine's name, load and paths, and what the terminal shows."""
    wandb = pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    records, logged = tracked_by("wandb"), []
    wandb.teardown()  # its service has then written everything
    (written,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    for record in wandb_records(written):
        assert record.WhichOneof("record_type") not in ("environment", "stats", "output", "output_raw", "files")
        if record.HasField("run"):
            assert (record.run.host, record.run.display_name) == ("", "try")
            settings = {update.key: update.value_json for update in record.run.config.update}
            assert settings["lora_targets"] == '"query,value"'
        if record.HasField("history"):
            logged.append({item.nested_key[-1]: json.loads(item.value_json) for item in record.history.item})
    assert [(at["_step"], at["loss"]) for at in logged] == losses(records)
    assert logged[-1]["final/test/full/ndcg@10"] == pytest.approx(final_of(tmp_path / "try"))
    assert not list(written.parent.glob("files/*"))


def wandb_records(file: Path) -> Iterator[Any]:
    """Read the records of a run's file: a header of 7 bytes, then LevelDB's log format."""
    from wandb.proto import wandb_internal_pb2  # pyright: ignore[reportMissingImports] - an extra

    content, at, parts = file.read_bytes(), 7, b""
    while at < len(content):
        if (left := 32_768 - at % 32_768) < 7:  # the end of a block
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        parts, at = parts + content[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue] - made at run time
            record.ParseFromString(parts)
            yield record
            parts = b""
