"""`fedrec reproduce`: the jobs of a benchmark run once, resume after an interruption, and give one result."""

import copy
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.preset import PRESETS, ROOT, Ablation, read_preset
from benchmarks.reproduce.benchmark import Benchmark, reproduce
from benchmarks.reproduce.closed_forms import CLOSED_FORMS, HYBRID, SMALL_HYBRID
from benchmarks.reproduce.collect import mean_and_std
from benchmarks.reproduce.federated_baselines import FEDERATED_BASELINES
from benchmarks.reproduce.message_cost import uplink_bytes
from benchmarks.results_file import MeanAndStd
from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.data.storage.json_file import save_json
from fedrec.federation import round_log, wire
from fedrec.federation.config import from_flat, from_nested
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order, Update
from fedrec.federation.node import Node
from fedrec.federation.training_run import open_run, train
from fedrec.recsys.baselines.registry import BASELINES
from fedrec.recsys.evaluation.ranking import metric_means, metric_sums
from fedrec.recsys.recommender import Recommender
from tests.support.cli import Fedrec, is_refused
from tests.support.toy_world import SMALL, write_toy_films

SETTINGS = "\n".join(f"{name} = {json.dumps(value)}" for name, value in SMALL.items())
TINY = f"""
data = "ml-100k"
seeds = [0, 1]
parts = ["federated", "central", "closed-form", "hybrid", "baselines", "peers", "alone", "personal", "cold"]
[settings]
{SETTINGS}
[central]
server_rate = 0.01
[closed_form.closed-form-text]
feature_width = 16
[closed_form.hybrid]
features = "ids"
decays = [0.5, 0.9]
ridges = [1.0, 10.0]
blend_shares = [0.2, 0.5, 0.8]
refinements = 0
[baselines.ease]
ridge = [1.0, 30.0]
[baselines.sasrec]
epochs = [2]
width = [8]
dropout = [0.2]
[peers.fedmf]
rounds = 3
[peers.pfedrec]
rounds = 2
baseline_dim = 4
[peers.pfedrec-leak]
rounds = 2
baseline_dim = 4
[alone]
steps = [2]
rates = [0.05]
[personal]
steps = [1, 2]
rates = [0.05]
parts = [["item", "user"], ["user"]]
[cold]
share = 0.3
baselines = ["popularity", "text-neighbours"]
"""
START = """
[start]
benchmark = "tiny"
"""
VARIED = """
base = "tiny"
seed = 3
[settings]
rounds = 2
[variant.plain]
group = "LoRA rank"
about = "as it is"
[variant.wider]
group = "LoRA rank"
about = "rank 4"
settings.lora_rank = 4
[variant.named]
group = "text"
about = "titles alone"
text = ["title"]
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy world as raw data."""
    return write_toy_films(tmp_path_factory.mktemp("films") / "raw")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of presets."""
    folder = tmp_path_factory.mktemp("presets")
    (folder / "tiny.toml").write_text(TINY)
    (folder / "varied.toml").write_text(VARIED)
    return folder


@pytest.fixture(scope="module")
def made(folder: Path, films: Path) -> tuple[Path, dict[str, Any]]:
    """The tiny benchmark, made in one go: the folder of its jobs, and its results."""
    tiny = benchmark(folder / "tiny.toml", folder / "made", films)
    return folder / "made", reproduce(tiny, [], folder / "results").to_json()


def benchmark(preset: Path, out: Path, source: Path) -> Benchmark:
    return Benchmark(preset.stem, *read_preset(preset.stem, preset), out, source)


def collected(benchmark: Benchmark) -> dict[str, Any]:
    """The federated model's figures over the jobs that have finished."""
    result = benchmark.collect_result()
    assert result
    return result.to_json()["federated"]


def test_the_result_holds_the_figures_and_how_they_were_made(made: tuple[Path, dict[str, Any]], folder: Path) -> None:
    out, results = made
    assert results == json.loads((folder / "results" / "tiny.json").read_text())
    assert (results["data"]["users"], results["data"]["items"], results["seeds"]) == (12, 24, [0, 1])
    assert {"machine", "versions", "split", "preset", "command"} <= results.keys()
    assert "elsewhere" not in results
    for family in ("federated", "central"):
        each = [metric_means(metric_sums(np.load(out / f"{family}-{seed}" / "ranks.npy"))) for seed in (0, 1)]
        for metric in ("ndcg@10", "recall@10", "mrr"):
            values = [means[metric] for means in each]
            entry = results[family][metric]
            assert entry["seeds"] == pytest.approx(values, abs=1e-6)
            assert entry["mean"] == pytest.approx(sum(values) / 2, abs=1e-6)
            assert entry["sd"] == pytest.approx(statistics.stdev(values), abs=1e-6)
    assert results["ratio"]["ndcg@10"] == pytest.approx(
        results["federated"]["ndcg@10"]["mean"] / results["central"]["ndcg@10"]["mean"], abs=1e-5
    )
    assert results["wall_seconds"] == pytest.approx(sum(results["part_seconds"].values()), abs=0.1)


def test_the_cost_is_what_one_user_sends(made: tuple[Path, dict[str, Any]]) -> None:
    out, results = made
    recommender = Recommender.load(out / "federated-0" / "run")
    assert results["adapter_parameters"] == sum(tensor.numel() for tensor in recommender.adapter.values())
    change = {name: tensor.double() for name, tensor in recommender.adapter.items()}
    sent = wire.payload_bytes(
        wire.encode_update(Update(4, 1, change, {"loss": 1.5, "learners": 1.0, "clipped": 1.0, "diverged": 0.0}))
    )
    in_codes = uplink_bytes(recommender.adapter, 1)
    assert results["adapter_parameters"] / 8 < in_codes < sent / 8, "a bit a number, and little beside it"
    assert results["bytes_up_per_client_round"] == sent
    assert [point["round"] for point in results["curve"]] == [2, 4]
    share = SMALL["clients_per_round"] / 12
    assert [point["megabytes_up_per_client"] for point in results["curve"]] == pytest.approx(
        [2 * share * sent / 1e6, 4 * share * sent / 1e6], abs=1e-6
    )
    validated = [round_log.read(out / f"federated-{seed}" / "run")[1]["validation"]["ndcg@10"] for seed in (0, 1)]
    assert results["curve"][0]["ndcg@10"] == pytest.approx(sum(validated) / 2, abs=1e-6)


def test_baselines_are_tuned_and_ranked(made: tuple[Path, dict[str, Any]]) -> None:
    out, results = made
    assert list(results["baselines"]) == list(BASELINES)
    tuning = results["baselines"]["EASE"]["tuning"]
    assert [trial["settings"] for trial in tuning["trials"]] == [{"ridge": 1.0}, {"ridge": 30.0}]
    best = max(tuning["trials"], key=lambda trial: trial["ndcg@10"])
    assert tuning["chosen"] == best["settings"]
    assert results["baselines"]["EASE"]["validation"]["ndcg@10"]["mean"] == best["ndcg@10"]
    ranks = np.load(out / "baseline-ease" / "ranks.npy")
    assert results["baselines"]["EASE"]["recall@10"]["mean"] == pytest.approx((ranks < 10).mean(), abs=1e-6)


def test_clients_train_alone_and_after_the_federation(made: tuple[Path, dict[str, Any]]) -> None:
    out, results = made
    trials = results["personal"]["tuning"]["trials"]
    assert [trial["settings"]["steps"] for trial in trials] == [0, 1, 2, 1, 2]
    assert trials[0]["ndcg@10"] == results["federated"]["validation"]["ndcg@10"]["seeds"][0]
    assert results["personal"]["validation"]["ndcg@10"]["mean"] == max(trial["ndcg@10"] for trial in trials)
    assert results["alone"]["tuning"]["chosen"].keys() == {"steps", "rate"}
    means = metric_means(metric_sums(np.load(out / "alone-0" / "ranks.npy")))
    assert results["alone"]["ndcg@10"]["mean"] == pytest.approx(means["ndcg@10"], abs=1e-6)


def test_closed_forms_are_solved_and_ranked_user_by_user(made: tuple[Path, dict[str, Any]]) -> None:
    out, results = made
    assert {name: len(entry["ndcg@10"]["seeds"]) for name, entry in results["closed_forms"].items()} == {
        "closed-form-ids": 1,
        "closed-form-text": 2,
        "hybrid": 2,
    }
    for name, entry in results["closed_forms"].items():
        logged = json.loads((out / f"{name}-0" / "run" / "metrics.json").read_text())
        for split, metrics in (("test", entry), ("validation", entry["validation"])):
            assert metrics["ndcg@10"]["seeds"][0] == pytest.approx(logged[split]["full"]["ndcg@10"], abs=1e-6)
        ranks = np.load(out / f"{name}-0" / "ranks.npy")
        assert metric_means(metric_sums(ranks))["mrr"] == pytest.approx(entry["mrr"]["seeds"][0], abs=1e-6)
    tuning = results["closed_forms"]["hybrid"]["tuning"]
    assert tuning["settings"]["decays"] == "0.5,0.9"
    assert [trial["settings"]["ridge"] for trial in tuning["trials"]][:2] == [10.0, 1.0], "the middle is the first"
    assert [trial["settings"]["share"] for trial in tuning["trials"]] == [0.5, 0.5, 0.2, 0.8]
    best = max(tuning["trials"], key=lambda trial: trial["ndcg@10"])
    assert tuning["chosen"] == best["settings"]


def test_the_sums_of_a_closed_form_are_sent_twice(made: tuple[Path, dict[str, Any]]) -> None:
    """To choose, and with the validation items. By one user, in float32: a triangle of 24 · 25 / 2 numbers and 24² over
    ids, 136 and 256 over 16 features."""
    out, results = made
    ids, text, hybrid = (results["closed_forms"][name] for name in ("closed-form-ids", "closed-form-text", "hybrid"))
    assert (ids["rounds"], ids["bytes_up_per_client_round"]) == (0, 0)
    node = Node.open(
        out / "data", from_nested(json.loads((out / "closed-form-text-0/run/card.json").read_text())["config"])
    )
    answer = node.sum_statistics(Order(1, np.array([3])), {})
    assert text["bytes_up_per_client_run"] == 2 * wire.payload_bytes(wire.encode_update(answer))
    for entry, numbers in ((ids, 300 + 576), (text, 136 + 256)):
        assert 0 < entry["bytes_up_per_client_run"] - 2 * 4 * numbers < 1200
    share = SMALL["clients_per_round"] / 12
    towers = SMALL["rounds"] * share * results["bytes_up_per_client_round"]
    assert hybrid["bytes_up_per_client_round"] == results["bytes_up_per_client_round"]
    of_two_decays = 48 * 49 // 2 + 48 * 24
    assert 0 < hybrid["bytes_up_per_client_run"] - towers - 2 * 4 * of_two_decays < 1200
    assert hybrid["adapter_parameters"] == results["adapter_parameters"] + 48 * 24 + 1
    fedmf = results["peers"]["fedmf"]
    assert fedmf["bytes_up_per_client_run"] == 3 * fedmf["bytes_up_per_client_round"], "all clients in all rounds"


def test_federated_baselines_are_trained_and_ranked_user_by_user(made: tuple[Path, dict[str, Any]]) -> None:
    out, results = made
    assert list(results["peers"]) == list(FEDERATED_BASELINES)
    for name, entry in results["peers"].items():
        logged = json.loads((out / f"peer-{name}-1" / "run" / "metrics.json").read_text())["test"]
        for metrics, protocol in ((entry, "full"), (entry["sampled-99"], "sampled-99")):
            assert metrics["ndcg@10"]["seeds"][1] == pytest.approx(logged[protocol]["ndcg@10"], abs=1e-6)
        ranks = np.load(out / f"peer-{name}-1" / "ranks.npy")
        assert metric_means(metric_sums(ranks))["mrr"] == pytest.approx(logged["full"]["mrr"])
    assert results["peers"]["fedmf"]["rounds"] == 3
    assert results["peers"]["pfedrec"]["adapter_parameters"] == 24 * 4
    leaks = [
        json.loads((out / f"peer-{name}-0" / "run" / "card.json").read_text())["config"]["baseline"]["baseline_leak"]
        for name in FEDERATED_BASELINES
    ]
    assert leaks == [False, False, True]


def test_cold_items_are_ranked_among_all_and_among_themselves(made: tuple[Path, dict[str, Any]]) -> None:
    out, results = made
    models = ["federated", "closed-form-ids", "closed-form-text", "hybrid", "popularity", "text neighbours"]
    assert list(results["cold"]) == models
    users = len(Shard.load(out / "data-cold-0.3").ranked(range(12)))
    for entry in results["cold"].values():
        assert entry["users"] == users < 12
        assert entry["cold"]["mrr"] >= entry["all"]["mrr"], "fewer items are in the way"
    assert results["cold"]["popularity"]["all"]["ndcg@10"] < results["cold"]["text neighbours"]["all"]["ndcg@10"]
    assert results["data"]["users"] == 12, "of the data as usual"
    listed = {name: entry["listed"] for name, entry in results["cold"].items()}
    assert min(listed, key=listed.__getitem__) == "popularity", (
        "cold items come after all others, in lists that run out"
    )
    assert 0 < listed["hybrid"] < 1


def test_a_warm_start_from_another_benchmark(
    folder: Path, films: Path, made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    warm = TINY.replace('"alone", "personal", "cold"]', '"start"]').replace("[central]", START + "[central]")
    (tmp_path / "warm.toml").write_text(warm)
    warm_start = benchmark(tmp_path / "warm.toml", tmp_path / "runs" / "warm", films)
    with pytest.raises(InputError, match="fedrec reproduce tiny --part federated-0"):
        reproduce(warm_start, ["start"], tmp_path)
    shutil.copytree(made[0], tmp_path / "runs" / "tiny")
    results = reproduce(warm_start, ["start", "federated-0"], tmp_path).to_json()["start"]
    assert results["from"] == "tiny"
    assert results["before"]["ndcg@10"] == made[1]["federated"]["ndcg@10"]["seeds"][0], "the same films, here"
    scratch = [round_log.read(made[0] / "federated-0" / "run")[n]["validation"]["ndcg@10"] for n in (1, 3)]
    assert results["mark"]["ndcg@10"] == pytest.approx(0.95 * max(scratch), abs=1e-6)
    assert results["rounds"]["scratch"] == (2 if scratch[0] >= 0.95 * max(scratch) else 4)


def test_models_are_compared_user_by_user(made: tuple[Path, dict[str, Any]]) -> None:
    out, results = made
    pairs = {(one["a"], one["b"], one["metric"]): one for one in results["comparisons"]}
    others = {"central", "alone", "personal", *CLOSED_FORMS, *FEDERATED_BASELINES, *BASELINES} - {HYBRID, SMALL_HYBRID}
    named = {("federated", other) for other in others} | {("hybrid", other) for other in {"federated", *others}}
    assert pairs.keys() == {(*pair, metric) for pair in named for metric in ("ndcg@10", "recall@10")}
    ours = np.mean([np.load(out / f"federated-{seed}" / "ranks.npy") < 10 for seed in (0, 1)], axis=0)
    theirs = np.load(out / "baseline-random" / "ranks.npy") < 10
    entry = pairs["federated", "random", "recall@10"]
    assert entry["difference"] == pytest.approx(ours.mean() - theirs.mean(), abs=1e-6)
    assert entry["interval"][0] <= entry["difference"] <= entry["interval"][1]


def test_personalisation_is_compared_with_the_run_that_it_starts_from(made: tuple[Path, dict[str, Any]]) -> None:
    out, results = made
    ours, theirs = (np.load(out / part / "ranks.npy") < 10 for part in ("federated-0", "personal-0"))
    named = ("federated", "personal", "recall@10")
    (entry,) = [one for one in results["comparisons"] if (one["a"], one["b"], one["metric"]) == named]
    assert entry["difference"] == pytest.approx(ours.mean() - theirs.mean(), abs=1e-6)


def test_users_are_grouped_by_the_length_of_their_history(made: tuple[Path, dict[str, Any]]) -> None:
    groups = made[1]["by_history"]
    lengths = [3 + (user * 5) % 9 for user in range(12)]  # of the toy world, but for the test item
    bounds = [(3, 4), (5, 8), (9, 11)]  # two of 3, two of 4; 5, 6, 7, two of 8; 9, 10, 11
    assert [(group["from"], group["to"]) for group in groups] == bounds
    assert [group["users"] for group in groups] == [sum(low <= n <= high for n in lengths) for low, high in bounds]
    for model in ("federated", "central", "alone", *BASELINES):
        whole = sum(group["users"] * group["ndcg@10"][model] for group in groups) / 12
        entry = made[1].get(model) or made[1]["baselines"][model]
        assert whole == pytest.approx(entry["ndcg@10"]["mean"], abs=1e-5)


def test_the_central_run_has_its_own_settings(made: tuple[Path, dict[str, Any]]) -> None:
    config = json.loads((made[0] / "central-1" / "run" / "card.json").read_text())["config"]
    assert (config["mode"], config["seed"], config["server"]["server_rate"]) == ("central", 1, 0.01)


def test_no_figure_of_a_single_user_leaves_the_jobs(made: tuple[Path, dict[str, Any]], folder: Path) -> None:
    assert {path.name for path in (folder / "results").iterdir()} == {"tiny.json"}
    users = len(Shard.load(made[0] / "data"))
    assert users == 12

    def lists(value: Any) -> Iterator[list[Any]]:
        if isinstance(value, list) and not any(isinstance(inner, dict) for inner in value):
            yield value
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from lists(inner)

    assert all(len(results) < users for results in lists(made[1]))


@pytest.mark.parametrize("last", [2, 6])
def test_an_interrupted_hybrid_resumes_to_the_same_figures(
    folder: Path, films: Path, made: tuple[Path, dict[str, Any]], tmp_path: Path, last: int
) -> None:
    """Stopped in its training, and between two of its candidate solutions."""

    def stop(record: dict[str, Any]) -> None:
        if record["round"] == last:
            raise KeyboardInterrupt

    out, job = tmp_path / "parts", tmp_path / "parts" / "hybrid-0"
    shutil.copytree(made[0] / "data", out / "data")
    record = json.loads((made[0] / "hybrid-0" / "part.json").read_text())
    save_json(job / "part.json", {key: record[key] for key in ("settings", "data", "seconds")} | {"finished": False})
    run = open_run(job / "run", Dataset.open(out / "data"), from_flat(record["settings"]), resume=False)
    with pytest.raises(KeyboardInterrupt):
        train(LocalGrid.over(run.setup), run, stop)
    results = reproduce(benchmark(folder / "tiny.toml", out, films), ["hybrid-0"], tmp_path).to_json()
    resumed, whole = (np.load(place / "hybrid-0" / "ranks.npy") for place in (out, made[0]))
    assert resumed.tolist() == whole.tolist()
    assert results["closed_forms"]["hybrid"]["tuning"] == made[1]["closed_forms"]["hybrid"]["tuning"]


def test_an_interrupted_benchmark_resumes_to_the_same_results(
    fedrec: Fedrec, folder: Path, films: Path, made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    arguments = ["reproduce", "tiny", "--preset", folder / "tiny.toml", "--source", films, "--out", "parts"]
    arguments += ["--results", "results", "--part", "federated", "--part", "baseline-popularity"]
    run = tmp_path / "parts" / "federated-1" / "run"
    command = [sys.executable, "-m", "fedrec", *map(str, arguments)]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    while not round_log.read(run):
        assert running.poll() is None, "the benchmark ended before it could be interrupted"
        time.sleep(0.002)
    running.send_signal(signal.SIGINT)
    _, output = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "resumes from here" in output
    assert 1 <= len(round_log.read(run)) < SMALL["rounds"]
    so_far = json.loads((tmp_path / "results" / "tiny.json").read_text())
    assert so_far["federated"]["ndcg@10"]["seeds"] == made[1]["federated"]["ndcg@10"]["seeds"][:1]
    assert so_far["federated"]["ndcg@10"]["sd"] is None
    assert "baselines" not in so_far
    resumed = fedrec(*arguments, "--json")
    assert "federated-0: already made" in resumed.err
    results, whole = resumed.answer, copy.deepcopy(made[1])
    for result in (results, whole):
        del result["wall_seconds"], result["part_seconds"]
    for other in ("central", "ratio", "alone", "personal", "cold", "peers", "closed_forms"):
        del whole[other]
    whole["baselines"] = {"popularity": whole["baselines"]["popularity"]}
    whole["comparisons"] = [one for one in whole["comparisons"] if (one["a"], one["b"]) == ("federated", "popularity")]
    for group in whole["by_history"]:
        group["ndcg@10"] = {name: group["ndcg@10"][name] for name in ("federated", "popularity")}
    assert results == whole


def test_a_job_is_rerun_if_its_settings_changed(
    folder: Path, films: Path, made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = shutil.copytree(made[0], tmp_path / "parts")
    (tmp_path / "tiny.toml").write_text(TINY.replace("server_rate = 0.01", "server_rate = 0.5"))
    changed = benchmark(tmp_path / "tiny.toml", out, films)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/part.json")}
    results = reproduce(changed, ["central-0"], tmp_path).to_json()
    after = {path: path.stat().st_mtime_ns for path in out.glob("*/part.json")}
    assert {path.parent.name for path in before if before[path] != after[path]} == {"central-0"}
    assert len(results["central"]["ndcg@10"]["seeds"]) == 1, "jobs with other settings do not count"
    assert results["federated"] == made[1]["federated"]


def test_a_job_that_was_made_before_a_setting_existed_counts(
    folder: Path, films: Path, made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = shutil.copytree(made[0], tmp_path / "parts")
    again = benchmark(folder / "tiny.toml", out, films)
    path = out / "federated-0" / "part.json"
    record = json.loads(path.read_text())
    bits = record["settings"].pop("bits")
    record["settings"]["forget"] = record["settings"].pop("event_dropout")  # its name in version 0.1
    record["settings"]["decay"] = float(record["settings"].pop("decays"))  # one, before it was a list
    path.write_text(json.dumps(record))
    assert bits == 32, "its default"
    assert collected(again) == made[1]["federated"]
    path.write_text(json.dumps(record | {"settings": record["settings"] | {"forgotten": 1}}))
    assert len(collected(again)["ndcg@10"]["seeds"]) == 1
    path.write_text("{")
    assert len(collected(again)["ndcg@10"]["seeds"]) == 1


def test_a_file_with_more_jobs_is_left_as_it_is(
    folder: Path, films: Path, made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """As in a fresh clone, whose committed results hold all jobs when it makes the first one."""
    shutil.copy(folder / "results" / "tiny.json", tmp_path)
    results = reproduce(
        benchmark(folder / "tiny.toml", tmp_path / "parts", films), ["baseline-popularity"], tmp_path
    ).to_json()
    assert json.loads((tmp_path / "tiny.json").read_text()) == made[1]
    assert json.loads((tmp_path / "parts" / "tiny.json").read_text()) == results
    assert list(results["baselines"]) == ["popularity"]


def test_variants_are_trained_and_measured(folder: Path, films: Path, tmp_path: Path) -> None:
    varied = benchmark(folder / "varied.toml", tmp_path / "parts", films)
    assert len(reproduce(varied, ["LoRA rank"], tmp_path).to_json()["variants"]) == 2
    results = reproduce(varied, ["named"], tmp_path).to_json()
    plain, wider, named = results["variants"]
    assert Catalogue.load(tmp_path / "parts" / "data-title").texts[0] == "The bread"
    assert named["text"] == ["title"]
    assert named["test"] != plain["test"]
    assert (plain["name"], wider["about"], wider["settings"]) == ("plain", "rank 4", {"lora_rank": 4})
    assert (plain["rounds"], results["seeds"]) == (2, [3])
    assert results["base_settings"] == tomllib.loads(TINY)["settings"]
    doubled = 2 * 2 * (4 - 2) * 384  # query and value, two matrices each, two ranks more, of a layer 384 wide
    assert wider["adapter_parameters"] - plain["adapter_parameters"] == doubled
    assert wider["bytes_up_per_client_round"] > plain["bytes_up_per_client_round"]
    assert 0 <= plain["test"]["ndcg@10"] <= 1


def test_a_spread_of_one_has_no_deviation() -> None:
    assert mean_and_std([0.5]) == MeanAndStd(mean=0.5, sd=None, seeds=(0.5,))
    assert mean_and_std([1.0, 3.0]) == MeanAndStd(mean=2.0, sd=round(2**0.5, 6), seeds=(1.0, 3.0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("seeds = [0, 1]", "seeds = []"), ["seeds", "at least 1"]),
        (("seeds = [0, 1]", "seeds = [-1]"), ["seeds.0 = -1", "greater than or equal to 0"]),
        (("seeds = [0, 1]", ""), ["seeds", "field required"]),
        (
            ('data = "ml-100k"', 'data = "ml-100k"\nbogus = 1'),
            ["bogus is not known", "the keys are title, data, seeds"],
        ),
        (("[settings]", "[settings]\nbogus = 1"), ["setting 'bogus'", "the settings are"]),
        (("[settings]", "[settings]\nseed = 1"), ["settings.seed", "list seeds in `seeds`"]),
        (("[central]", '[central]\nmode = "federated"'), ["central.mode", "modes in `parts`"]),
        (("server_rate = 0.01", "server_rate = -1"), ["setting server_rate = -1", "greater than 0"]),
        (('"hybrid", "b', '"bogus", "b'), ["parts: 'bogus' is not known", "choose of federated"]),
        (("[baselines.ease]", "[baselines.bogus]"), ["baselines.bogus is not known", "random, popularity, text-neigh"]),
        (("ridge = [1.0, 30.0]", "bogus = [1]"), ["setting 'bogus'", "the settings are ridge"]),
        (("ridge = [1.0, 30.0]", "ridge = 1.0"), ["baselines.ease.ridge = 1.0", "valid list"]),
        (
            ("[peers.fedmf]", "[peers.bogus]"),
            ["peers.bogus is not known", "the federated baselines are fedmf, pfedrec"],
        ),
        (
            ("[closed_form.hybrid]", "[closed_form.bogus]"),
            ["closed_form.bogus is not known", "closed-form-ids, closed-form-text"],
        ),
        (('data = "ml-100k"', 'data = "bogus"'), ["dataset 'bogus'", "choose one of"]),
        (("[settings]", '[start]\nbenchmark = "../.."\n[settings]'), ["start.benchmark", "holds a slash"]),
        (("[settings]", "[settings"), ["tiny.toml is not TOML", "correct it"]),
    ],
)
def test_a_preset_that_is_wrong_is_refused_before_any_work(
    fedrec: Fedrec, tmp_path: Path, change: tuple[str, str], words: list[str]
) -> None:
    assert change[0] in TINY
    (tmp_path / "tiny.toml").write_text(TINY.replace(*change))
    is_refused(fedrec("reproduce", "tiny", "--preset", "tiny.toml"), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.toml"]


def test_a_name_that_is_unknown_is_refused(fedrec: Fedrec, folder: Path, tmp_path: Path) -> None:
    is_refused(fedrec("reproduce", "bogus"), "benchmark 'bogus'", "choose one of ablation", "--preset")
    is_refused(fedrec("reproduce", "../bogus"), "benchmark '../bogus' holds a slash")
    is_refused(fedrec("reproduce", "tiny", "--preset", "absent.toml"), "absent.toml cannot be read")
    arguments = ["reproduce", "tiny", "--preset", folder / "tiny.toml", "--part", "bogus"]
    is_refused(fedrec(*arguments), "--part 'bogus'", "choose of federated, federated-0, federated-1, central")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[variant.plain]", '[variant."../plain"]'), ["variant", "'../plain' holds a slash"]),
        (("[variant.plain]", '[variant.""]'), ["variant", "'' is empty"]),
        (('base = "tiny"', 'base = "../tiny"'), ["base", "'../tiny' holds a slash"]),
        (('["title"]', '["../../title"]'), ["'data-../../title' holds a slash"]),
    ],
)
def test_a_variant_leads_to_no_folder_but_one_beside_the_others(
    fedrec: Fedrec, films: Path, folder: Path, tmp_path: Path, change: tuple[str, str], words: list[str]
) -> None:
    shutil.copy(folder / "tiny.toml", tmp_path)
    assert change[0] in VARIED
    (tmp_path / "varied.toml").write_text(VARIED.replace(*change))
    arguments = ["reproduce", "varied", "--preset", "varied.toml", "--source", films, "--out", "parts"]
    is_refused(fedrec(*arguments, "--results", "."), *words)
    assert not list(tmp_path.glob("data*"))


def test_a_file_that_holds_no_results_is_not_replaced(
    fedrec: Fedrec, films: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.json").write_text('{"mine": 1}')
    arguments = ["reproduce", "tiny", "--preset", folder / "tiny.toml", "--source", films, "--out", "parts"]
    is_refused(fedrec(*arguments, "--results", "."), "tiny.json holds no results of a benchmark", "move it away")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.json"]


@pytest.mark.parametrize("change", [("base", "basis"), ("settings.lora_rank", "setting.lora_rank")])
def test_variants_that_are_wrong_are_refused(folder: Path, change: tuple[str, str]) -> None:
    (folder / "wrong.toml").write_text(VARIED.replace(*change))
    with pytest.raises(InputError, match="is not known; the keys are"):
        read_preset("wrong", folder / "wrong.toml")
    (folder / "wrong.toml").write_text(VARIED.replace('"tiny"', '"varied"'))
    with pytest.raises(InputError, match="is itself a set of variants"):
        read_preset("wrong", folder / "wrong.toml")


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.toml") if path.stem != "published"))
def test_our_own_presets_can_be_made(name: str, tmp_path: Path) -> None:
    preset, base = read_preset(name)
    jobs = Benchmark(name, preset, base, tmp_path, None).jobs()
    assert len({job.name for job in jobs}) == len(jobs) >= 2
    assert isinstance(preset, Ablation) is (name in {"ablation", "payload"})
