"""The comparison with other simulators: its parts without them, and a round of each that is installed."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from benchmarks.frameworks import compare
from benchmarks.frameworks.process import Framework, MissingFramework, environments, parse_answer
from benchmarks.frameworks.work import ClientWork, sum_file, write_task
from benchmarks.speed import cohort_engine, worlds
from fedrec.data.errors import InputError
from fedrec.data.synthetic.random_tables import SyntheticConfig
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.tensors import save_tensors
from tests.support.toy_world import small_config

TINY = SyntheticConfig(users=20, items=300, interactions=200, seed=0)
CLIENTS = 5
READY = {"framework": "blazefl", "version": "2.0.3", "torch": "2.13.0", "python": "3.11.7"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> cohort_engine.Bench:
    config = small_config()
    return cohort_engine.Bench(worlds.make_world(TINY, tmp_path_factory.mktemp("frameworks"), config), config)


@pytest.fixture
def task(bench: cohort_engine.Bench, tmp_path: Path) -> Path:
    """A folder with the work of five clients."""
    write_task(tmp_path, bench.data, bench.config, bench.order(CLIENTS), bench.adapter, workers=2)
    return tmp_path


def make_python(folder: Path, *answers: object) -> Path:
    """Make an interpreter that prints these answers, one at its start and one after each line that it reads."""
    lines = [answer if isinstance(answer, str) else json.dumps(answer) for answer in answers]
    file = folder / "python"
    file.write_text("#!/bin/sh\n" + "read asked\n".join(f"cat <<'END'\n{line}\nEND\n" for line in lines), "utf-8")
    file.chmod(0o755)
    return file


def is_engines_sum(bench: cohort_engine.Bench, run_round: Callable[[], Adapter]) -> bool:
    expected = bench.engine(bench.order(CLIENTS)).deltas
    total = run_round()
    return all(torch.allclose(total[name].double(), expected[name], atol=1e-6) for name in expected)


def test_the_work_that_is_written_down_gives_the_engines_sum(bench: cohort_engine.Bench, task: Path) -> None:
    work = ClientWork.open(task)

    def one_after_the_other(share: int = CLIENTS) -> Adapter:
        vectors = [work.to_vector(work.change_of(client, work.adapter)).double() for client in range(share)]
        return work.from_vector(torch.stack(vectors).sum(0))

    assert is_engines_sum(bench, one_after_the_other)
    assert not is_engines_sum(bench, lambda: one_after_the_other(CLIENTS - 1))


def test_blazefl_gives_the_engines_sum(bench: cohort_engine.Bench, task: Path) -> None:
    pytest.importorskip("blazefl", reason="BlazeFL lives in an environment of its own: see benchmarks/frameworks")
    from benchmarks.frameworks import with_blazefl

    work = ClientWork.open(task)
    for trainer in (with_blazefl.Threads, with_blazefl.Processes):
        assert is_engines_sum(bench, with_blazefl.build_round(work, trainer))


def test_pfl_gives_the_engines_sum(bench: cohort_engine.Bench, task: Path) -> None:
    pytest.importorskip("pfl", reason="pfl lives in an environment of its own: see benchmarks/frameworks")
    from benchmarks.frameworks import with_pfl

    assert is_engines_sum(bench, with_pfl.build_round(ClientWork.open(task)))


def test_a_frameworks_process_is_asked_and_answers(bench: cohort_engine.Bench, task: Path) -> None:
    python = make_python(task, READY, {"did": "round"}, {"did": "save"})
    save_tensors(sum_file(task, "blazefl-threads"), bench.adapter)
    with Framework.start("blazefl-threads", task, python, workers=2) as framework:
        framework.run_round()
        assert framework.about == READY
        assert framework.total().keys() == bench.adapter.keys()
    assert framework.processes[0].poll() is not None


@pytest.mark.parametrize(
    ("answers", "error", "named"),
    [
        ([{"missing": "No module named 'pfl'"}], MissingFramework, "No module named 'pfl'"),
        (["Traceback"], InputError, "'Traceback'"),
        (["7"], InputError, "'7'"),
        ([], InputError, "ended"),
    ],
)
def test_a_framework_that_does_not_start_is_named(
    answers: list[object], error: type[Exception], named: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=named):
        Framework.start("blazefl-threads", tmp_path, make_python(tmp_path, *answers), workers=2)


def test_a_framework_that_ends_in_a_round_is_named(tmp_path: Path) -> None:
    with (
        Framework.start("blazefl-threads", tmp_path, make_python(tmp_path, READY), workers=2) as framework,
        pytest.raises(InputError, match="blazefl-threads: the framework's process ended"),
    ):
        framework.run_round()


def test_each_worker_has_one_torch_thread_and_pfls_know_of_each_other() -> None:
    assert environments("blazefl-processes", 2) == [{"OMP_NUM_THREADS": "1"}]
    first, second = environments("pfl", 2)
    assert (first["PFL_WORKER_RANK"], second["PFL_WORKER_RANK"]) == ("0", "1")
    assert first["PFL_WORKER_ADDRESSES"] == second["PFL_WORKER_ADDRESSES"]
    assert first["PFL_WORKER_ADDRESSES"].count("localhost:") == 2
    assert parse_answer('{"did": "round"}\n', "pfl") == {"did": "round"}


def test_the_ratio_is_that_of_the_faster_way() -> None:
    each = {"engine": [1.0, 2.0, 2.0], "a": [30.0, 40.0, 50.0], "b": [11.0, 24.0, 50.0], "c": [9.0, 9.0, 9.0]}
    found = compare.faster_ways(each, {"a": "one", "b": "one", "c": "two"})
    assert found == {"one": {"way": "b", "engine_times": 12.0}, "two": {"way": "c", "engine_times": 4.5}}


def test_ways_are_timed_in_turns_and_their_sums_compared(
    bench: cohort_engine.Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"CLIENTS": 8, "LONE": CLIENTS, "TURNS": 1}.items():
        monkeypatch.setattr(compare, name, value)
    few = bench.order(CLIENTS)

    def way(total: Callable[[], Adapter]) -> Any:
        return SimpleNamespace(run_round=lambda: bench.loop(few), total=total, about=READY)

    rolled = {name: tensor.roll(1) for name, tensor in bench.loop(few).deltas.items()}
    ways = {"right": way(lambda: bench.loop(few).deltas), "wrong": way(lambda: rolled)}
    found = compare.compare_frameworks(bench, few, cast(dict[str, Framework], ways))
    assert found["same_update"]["right"] < 1e-5 < 1e-2 < found["same_update"]["wrong"]
    assert found["ratios"].keys() == {"engine/right", "engine/wrong"}
    assert found["faster"]["blazefl"]["way"] in ways
    assert all(len(figures["seconds"]) == 1 for figures in found["ways"].values())
    compare.show(found | {"skipped": {"pfl": "pfl: No module named 'pfl'"}})
    printed = capsys.readouterr()
    assert "right" in printed.out
    assert "skipped pfl" in printed.out + printed.err


def test_what_cannot_be_measured_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(python: Path, **settings: object) -> str:
        with pytest.raises(InputError) as caught:
            compare.measure(small_config(**settings), python, lambda text: None)
        return str(caught.value)

    assert "benchmarks/frameworks/__init__.py" in refused(tmp_path / "absent")
    python = make_python(tmp_path, {"missing": "No module named 'pfl'"})
    assert "local_steps=2" in refused(python, local_steps=2)
    monkeypatch.setattr(cohort_engine, "WORLD", TINY)
    monkeypatch.setattr(compare, "LONE", CLIENTS)
    assert "has no framework (blazefl-threads: No module named 'pfl'" in refused(python)
