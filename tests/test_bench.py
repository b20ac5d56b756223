"""The benchmarks of speed: all ways train the same clients to the same sum. No test depends on a time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import (
    asynchronous,
    cohort_engine,
    encoder,
    endpoint,
    huge,
    large_index,
    printing,
    scale,
    secure_aggregation,
    worlds,
)
from benchmarks.speed.clock import alternate, extra_memory, peak_memory, ratio
from benchmarks.speed.masked_group import measure_groups
from benchmarks.speed.noised_round import measure_noise
from benchmarks.speed.profile import profile_block
from fedrec.data.errors import InputError
from fedrec.data.synthetic.random_tables import SyntheticConfig
from fedrec.federation.config import RunConfig
from fedrec.serving.engine import Engine
from tests.support.closed_form import hybrid_of
from tests.support.toy_world import small_config

TINY = SyntheticConfig(users=30, items=600, interactions=300, seed=0)


@pytest.fixture
def data(tmp_path: Path, tiny: RunConfig) -> Path:
    return worlds.make_world(TINY, tmp_path, tiny)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Small settings, and everything that is measured as small."""
    monkeypatch.setattr(cohort_engine, "WORLD", TINY)
    for name, value in {"CLIENTS": 12, "LONE": 4, "TURNS": 1, "FLOWER_ROUNDS": 3, "LENGTHS": (4,)}.items():
        monkeypatch.setattr(cohort_engine, name, value)
    monkeypatch.setattr(cohort_engine, "SIZES", (64,))
    for name in ("SMALL", "LARGE", "ML_1M"):
        monkeypatch.setattr(scale, name, TINY)
    for name, value in {"CLIENTS": 6, "ROUNDS": 2, "TURNS": 1}.items():
        monkeypatch.setattr(scale, name, value)
    return small_config()


def test_engine_and_loop_give_the_same_sum(data: Path, tiny: RunConfig) -> None:
    bench = cohort_engine.Bench(data, tiny)
    found = cohort_engine.compare_ways(bench)
    assert found["same_update"]["loop"] < 1e-5
    assert found["ratios"].keys() == {"engine/central", "engine/loop"}
    assert all(figures["clients_per_second"] > 0 for figures in found["ways"].values())


def test_another_sum_is_seen(data: Path, tiny: RunConfig) -> None:
    bench = cohort_engine.Bench(data, tiny)
    assert cohort_engine.relative_difference(bench.engine(bench.order(4)), bench.loop(bench.order(5))) > 1e-3


@pytest.mark.timeout(300)
def test_flowers_simulation_ends_in_the_same_model(data: Path, tiny: RunConfig, tmp_path: Path) -> None:
    bench = cohort_engine.Bench(data, tiny)
    found = cohort_engine.add_flower(cohort_engine.compare_ways(bench), bench, tmp_path)
    assert found["same_update"]["flower"] == 0
    assert found["ratios"]["engine/flower"] > 0


def test_the_parts_are_reported(tiny: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    found = printing.run_parts(replace(tiny, seed=3), ["scale"], "fedrec bench engine --part scale")
    assert found["scale"]["prepare"]["rows"] > 0
    assert found["scale"]["train"]["rounds"] == 2
    assert found["scale"]["ranking"]["items"] == TINY.items
    assert (found["seed"], found["command"]) == (3, "fedrec bench engine --part scale")
    assert {"versions", "machine", "settings"} <= found.keys()
    printing.show_engine(found)
    assert "large/small" in capsys.readouterr().out


def test_the_encoder_is_measured_by_length(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"TEXTS": 2, "TURNS": 1, "JOINED": (1, 3)}.items():
        monkeypatch.setattr(encoder, name, value)
    found = encoder.measure(RunConfig().model.encoder)
    short, long = found["lengths"]
    assert 5 < short["tokens"] < long["tokens"] < 4 * short["tokens"]
    assert short["milliseconds"] > 0
    assert {"versions", "machine", "encoder", "threads"} <= found.keys()
    printing.show_encoder(found)
    assert "ms of one core" in capsys.readouterr().out


def test_a_profile_shares_out_the_whole_time(tiny: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    rows = profile_block(tiny)
    assert sum(row["own"] for row in rows) == pytest.approx(1)
    printing.show_profile(rows)
    assert "clip and sum" in "".join(row["operation"] for row in rows)


def test_a_missing_simulation_runtime_is_named(tiny: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install"):
        cohort_engine.measure(tiny, lambda text: None)


def test_turns_alternate_and_the_first_is_not_counted() -> None:
    turns: list[str] = []
    seconds = alternate({name: lambda name=name: turns.append(name) for name in "ab"}, 2)
    assert turns == list("ababab")
    assert {name: len(took) for name, took in seconds.items()} == {"a": 2, "b": 2}
    assert ratio([4.0, 6.0, 9.0], [2.0, 2.0, 3.0]) == 3.0


def test_memory_is_what_a_function_takes() -> None:
    size, peak = peak_memory(taken, 200)
    assert size == 200
    assert peak > 200 * 2**20
    with extra_memory() as most:
        block = bytearray(b"x" * (100 * 2**20))
    assert most[0] > 50 * 2**20
    assert len(block)


def taken(mebibytes: int) -> int:
    return len(bytearray(b"x" * (mebibytes * 2**20))) >> 20


@pytest.mark.timeout(300)
def test_the_endpoint_is_measured_whole(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"QUESTIONS": 8, "TURNS": 1, "CALLERS": 3, "SECONDS": 0.5, "RELOADS": 3, "HISTORY": 5}.items():
        monkeypatch.setattr(endpoint, name, value)
    for name, value in {"QUESTIONS": 8, "TURNS": 1, "ITEMS": 2000, "FAMILIES": 4}.items():
        monkeypatch.setattr(large_index, name, value)
    found = endpoint.measure(run, lambda text: None)
    assert found["reload"]["answers"] > 0
    assert found["reload"]["wrong"] == found["sustained"]["errors"] == 0
    assert found["index"]["recall"] == 1  # so few items are all looked at
    assert len(found["bars"]) == 9
    assert found["history"].keys() == {"p50_ms", "fixed_ms", "bare_ms", "ratio", "without_pause"}
    assert {"versions", "machine", "run"} <= found.keys()
    assert found["memory_mib"] > 100  # Python with torch alone is larger
    printing.show_serving(found)
    printed = capsys.readouterr().out
    assert "start to ready" in printed
    assert f"{found['memory_mib']:,} MiB" in printed


@pytest.mark.parametrize("method", ["fedrec", "hybrid"])
def test_a_mixed_answer_is_seen(method: str, run: Path, toy: Path, tmp_path: Path) -> None:
    """The two versions that take turns under load answer every question differently."""
    bench = endpoint.Bench.of(run if method == "fedrec" else hybrid_of(run, toy, tmp_path / "hybrid"))
    assert (endpoint.describe_run(bench)["rank"] > 0) == (method == "hybrid")
    one, other = (
        Engine.from_recommender(version) for version in (bench.recommender, endpoint.rolled_copy(bench.recommender))
    )
    for question in bench.histories()[:5]:
        a, b = one.recommend(question), other.recommend(question)
        assert a.model_version != b.model_version
        assert not np.allclose([i.score for i in a.items], [i.score for i in b.items], atol=1e-4)


def test_a_round_with_masks_is_measured_beside_the_same_in_the_open(
    monkeypatch: pytest.MonkeyPatch, tiny: RunConfig
) -> None:
    monkeypatch.setattr(secure_aggregation, "HOSTS", 4)
    rows = secure_aggregation.measure(tiny, print, [18])
    assert [(row["clients"], row["nodes"]) for row in rows] == [(18, 18), (18, 4)]
    for row in rows:
        assert row["same_sum"]
        assert 1 < row["bytes_ratio"] < 2
        assert row["secure"]["bytes_up"] > row["open"]["bytes_up"]
    groups = measure_groups((3,))
    assert groups[0]["nodes"] == 3
    noise = measure_noise(tiny, clients=18)
    assert noise["noised"]["bytes_up"] == noise["open"]["bytes_up"]
    assert noise["noised"]["processor_seconds"] > 0
    printing.show_secure({"rounds": rows, "groups": groups, "noise": noise})


def test_buffered_rounds_are_compared_with_synchronous_ones(
    data: Path, tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {"synchronous": asynchronous.Case(6, 6, 0), "buffered": asynchronous.Case(6, 2, 5)}
    settings = {"ANSWERS": 24, "VALIDATIONS": 4, "CASES": cases, "FLEETS": {"unequal": (1.0, 0.5)}}
    for name, value in settings.items():
        monkeypatch.setattr(asynchronous, name, value)
    found = asynchronous.measure(data, tiny, tmp_path / "out", lambda text: None)
    waiting, buffered = found["fleets"]["unequal"]["cases"].values()
    assert [point[1] for point in waiting["curve"]] == [point[1] for point in buffered["curve"]] == [6, 12, 18, 24]
    assert waiting["staleness"] == waiting["given_up"] == 0 < buffered["staleness"]
    assert buffered["clock"] < waiting["clock"]
    assert waiting["reached"]["1"]
    assert asynchronous.measure(data, tiny, tmp_path / "out", lambda text: None) == found  # all runs are kept
    printing.show_asynchronous(found)
    assert "buffered" in capsys.readouterr().out


def test_a_quality_is_reached_at_the_first_validation_of_it() -> None:
    curve = [asynchronous.Point(1.0, 10, 0.2), asynchronous.Point(2.5, 20, 0.4), asynchronous.Point(3.0, 30, 0.4)]
    assert asynchronous.time_to_score(curve, 0.4) == {"clock": 2.5, "answers": 20}
    assert asynchronous.time_to_score(curve, 0.1) == {"clock": 1.0, "answers": 10}
    assert asynchronous.time_to_score(curve, 0.5) is None


def test_the_steps_of_a_huge_world_are_kept(tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted measurement goes on with the step that it did not finish."""
    monkeypatch.setattr(huge, "peak_memory", lambda function, *arguments: (function(*arguments), 2**30))
    for name, value in {"CLIENTS": 6, "ROUNDS": 2, "SUMMED_USERS": 10, "DRAWS": 1}.items():
        monkeypatch.setattr(huge, name, value)
    for name, value in {"QUESTIONS": 2, "TURNS": 1}.items():
        monkeypatch.setattr(large_index, name, value)
    steps = dict(huge.STEPS)
    monkeypatch.setitem(huge.STEPS, "train", interrupted)
    world = huge.World(TINY, tmp_path / "world")
    with pytest.raises(KeyboardInterrupt):
        huge.measure(world, tiny, lambda text: None)
    monkeypatch.setattr(huge, "STEPS", steps)
    done: list[str] = []
    found = huge.measure(world, tiny, done.append)
    assert done == ["train", "sums", "serve"]
    assert found["prepare"]["rows"] > 0
    assert found["draw"]["users"] == found["train"]["users"] == TINY.users
    assert found["train"]["rounds"] == 2
    assert found["sums"]["users_per_second"] > 0
    assert found["serve"]["recall"] == 1


def interrupted(world: huge.World, config: RunConfig) -> dict[str, float]:
    raise KeyboardInterrupt
