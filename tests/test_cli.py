"""The front door: a wrong input is one line that helps and leaves nothing behind; the good paths answer programs."""

import json
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import numpy as np
import polars as pl
import pytest
import torch
import typer
from torch import Tensor

from fedrec.cli import app
from fedrec.commands.options import Protocol
from fedrec.commands.parameters import invoked_command, with_options
from fedrec.data.catalogue import Catalogue
from fedrec.data.prepare import write_dataset
from fedrec.data.readers.raw import Frames
from fedrec.data.readers.sources import FAMILIES, SOURCES
from fedrec.data.shard import Shard
from fedrec.data.split import Split
from fedrec.federation.config import RunConfig, to_flat
from fedrec.recsys.baselines.neighbours import EASEConfig, ease
from fedrec.recsys.baselines.registry import BASELINES
from fedrec.recsys.baselines.tuning import TrainingData
from fedrec.recsys.evaluation.ranking import PROTOCOLS, rank
from fedrec.settings_file import read_settings
from tests.support.cli import Fedrec, Outcome, is_refused
from tests.support.toy_world import SMALL, small_config, toy_interactions, toy_items

ARTIFACT = {
    "adapter_config.json",
    "adapter_model.safetensors",
    "card.json",
    "catalogue.parquet",
    "item_vectors.safetensors",
    "metrics.json",
    "rounds.jsonl",
    "state.safetensors",
    "towers.safetensors",
}
SETS = [f"--set={name}={value}" for name, value in SMALL.items()]
RATINGS = ["1\t1\t5\t10", "1\t2\t4\t20", "1\t3\t3\t30", "2\t3\t5\t10", "2\t2\t4\t20", "2\t1\t1\t30"]


def tree(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def write_ml_100k(folder: Path, ratings: list[str]) -> Path:
    """Three films in the layout of MovieLens 100K."""
    folder.mkdir()
    films = ["1|Heat (1995)|||u|0|1", "2|Matrix, The (1999)|||u|0|1", "3|unknown|||u|1|0"]
    for name, lines in {"u.genre": ["unknown|0", "Action|1"], "u.item": films, "u.data": ratings}.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), "latin-1")
    return folder


@pytest.fixture(scope="session")
def places(toy: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Things that a command can be pointed at, right and wrong, by name."""
    folder = tmp_path_factory.mktemp("places")
    write_ml_100k(folder / "whole", RATINGS)
    write_ml_100k(folder / "letters", [*RATINGS[:2], "1\t3\tfive\t30"])
    write_ml_100k(folder / "short", [*RATINGS[:2], "1\t3\t3"])
    packed = Path(shutil.make_archive(str(folder / "packed"), "zip", folder / "whole")).read_bytes()
    (folder / "half.zip").write_bytes(packed[: len(packed) // 2])
    (folder / "broken.toml").write_text("rounds = = 3\n")
    (folder / "nested.toml").write_text("[model]\nlayers = 1\n")
    (folder / "empty").mkdir()
    other = toy_items().with_columns(text=pl.col("text") + "!")
    write_dataset(Frames(toy_interactions(), other), folder / "other", name="toy")
    write_dataset(Frames(toy_interactions(), toy_items()), folder / "cold", name="toy", split=Split(cold_share=0.3))
    unfinished = shutil.copytree(run, folder / "unfinished")
    card = json.loads((unfinished / "card.json").read_text())
    (unfinished / "card.json").write_text(json.dumps(card | {"finished": False}))
    named = {path.stem: path for path in folder.iterdir()}
    return named | {"toy": toy, "run": run, "absent": folder / "absent"}


NOT_A_RUN = ["empty", "is not a run", "card.json is missing", "fedrec train"]
NOT_PREPARED = ["is not a prepared dataset", "manifest.json", "fedrec data prepare"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("data prepare nope", ["dataset 'nope'", "choose one of demo, ml-100k"]),
        ("data prepare ml-100k --source {absent}", ["--source", "absent", "does not exist", "give a zip or a folder"]),
        ("data prepare ml-100k --source {half}", ["half.zip", "is not a whole zip file", "download it again"]),
        ("data prepare ml-100k --source {empty}", ["empty holds no", "is it the dataset you named?"]),
        ("data prepare ml-100k --source {letters}", ["u.data line 3: rating 'five'", "mend or remove the row"]),
        ("data prepare ml-100k --source {short}", ["u.data line 3: 3 fields where 4 belong", "mend or remove"]),
        ("data prepare ml-100k --source {whole} --out {run}", ["--out", "is no prepared dataset", "choose another"]),
        ("data prepare ml-100k --source {whole} --text title,plot", ["--text: 'plot'", "choose from title, year"]),
        ("data prepare amazon-scientific", ["UniSRec", "arXiv:2206.05941", "--source"]),
        (
            "data prepare demo --split half",
            ["'--split': 'half'", "'leave-one-out', 'ratio', 'global-time', 'cold-items'"],
        ),
        ("data prepare demo --cold-share 0.2", ["--cold-share 0.2", "without --split cold-items"]),
        ("data prepare demo --split cold-items --cold-share 1", ["--cold-share 1", "share between 0 and 1"]),
        ("data prepare demo --split cold-items --cold-share 2", ["'--cold-share': 2", "0<=x<=1"]),
        ("data prepare ml-100k --source {whole} --split cold-items", ["no user has events with two cold items"]),
        ("train {empty} --out new", ["empty", *NOT_PREPARED]),
        ("train {absent} --out new", ["absent", *NOT_PREPARED]),
        ("train {run} --out new", NOT_PREPARED),
        ("train {toy}", ["'--out'", "fedrec train --help"]),
        ("train {toy} --out {run}", ["--out", "is not empty", "--resume", "choose another folder"]),
        ("train {toy} --out {broken}", ["--out", "broken.toml", "choose another folder"]),
        ("train {toy} --out new --resume", ["new is not a run", "card.json is missing"]),
        ("train {toy} --out new --other-histories", ["--other-histories goes with --resume"]),
        (
            "train {toy} --out {run} --resume --set method=fedrec --set rounds=9",
            ["rounds = 4, not 9", "resume without changing"],
        ),
        ("train {other} --out {run} --resume", ["trained on other items", "resume with the data it began with"]),
        ("train {cold} --out {run} --resume", ["began in another split than", "resume with the data it began with"]),
        ("train {toy} --out new --start {absent}", ["absent is not a run", "fedrec train"]),
        ("train {toy} --out new --start {unfinished}", ["unfinished has not finished training"]),
        ("train {toy} --out new --start {run}", ["--start", "layers = 1, not 2", "set layers=1"]),
        ("train {toy} --out new --set bogus=1", ["setting 'bogus'", "the settings are method, mode, seed"]),
        ("train {toy} --out new --set rounds=0", ["rounds = '0'", "greater than or equal to 1"]),
        ("train {toy} --out new --set rounds=abc", ["rounds = 'abc'", "valid integer"]),
        ("train {toy} --out new --set clip=nan", ["clip = 'nan'", "greater than 0"]),
        ("train {toy} --out new --set clip=inf", ["clip = inf", "a finite number"]),
        ("train {toy} --out new --set server_rate=inf", ["server_rate = inf", "a finite number"]),
        ("train {toy} --out new --set round_timeout=1e999", ["round_timeout = inf", "a finite number"]),
        (f"train {{toy}} --out new --set seed={2**63}", ["seed = ", "less than 9223372036854775808"]),
        ("personalise {run} --rates 0.1,nan", ["--rates 0.1,nan", "rates are above it"]),
        ("personalise {run} --rates inf", ["--rates inf", "rates are above it"]),
        ("data prepare demo --split cold-items --cold-share nan", ["--cold-share nan", "between 0 and 1"]),
        ("serve {run} --set time_limit=inf", ["setting time_limit", "finite number"]),
        ("serve {run} --set time_limit=nan", ["setting time_limit"]),
        ("train {toy} --out new --set optimizer=foo", ["optimizer = 'foo'", "'fedavg', 'fedavgm', 'fedadam'"]),
        ("train {toy} --out new --set held_out=3", ["held_out = '3'", "less than or equal to 2"]),
        ("train {toy} --out new --set held_out=1 --set method=fedmf", ["held_out = 1: fedmf", "leave held_out at 2"]),
        ("train {cold} --out new --set held_out=0", ["held_out = 0", "without cold items"]),
        ("train {toy} --out new --set rounds", ["--set 'rounds'", "write --set name=value"]),
        ("train {toy} --out new --config {absent}", ["--config", "absent", "does not exist", "give a TOML file"]),
        ("train {toy} --out new --config {empty}", ["--config", "empty is a folder, where a file belongs", "mend it"]),
        ("train {toy} --out new --config {broken}", ["broken.toml is not TOML", "line 1", "mend it"]),
        ("train {toy} --out new --config {nested}", ["setting 'model'", "the settings are"]),
        ("personalise {empty}", NOT_A_RUN),
        ("personalise {run} --data {other}", ["trained on other items", "--data"]),
        ("personalise {run} --data {toy} --steps 1,x", ["--steps 1,x", "'x'", "numbers with commas"]),
        ("personalise {run} --data {toy} --rates 0", ["--rates 0", "above it"]),
        ("personalise {run} --data {toy} --part user.top", ["'user.top' begins no name", "user.up"]),
        ("recommend {empty} --query x", NOT_A_RUN),
        ("recommend {unfinished} --query x", ["unfinished has not finished training", "--resume"]),
        ("recommend {run}", ["exactly one of --history, --item and --query"]),
        ("recommend {run} --history film-moon --query x", ["exactly one of --history, --item and --query"]),
        ("recommend {run} --history film-moon --item x", ["exactly one of --history, --item and --query"]),
        ("recommend {run} --history ,", ["--history", "may not be empty"]),
        ("recommend {run} --history gone,lost", ["--history: none of these ids", "catalogue.parquet"]),
        (f"recommend {{run}} --query {'x' * 2001}", ["--query", "at most 2000 characters", "shorten it"]),
        (f"recommend {{run}} --history {'x' * 513}", ["--history", "at most 512 characters", "shorten it"]),
        ("recommend {run} --query x -k 0", ["'-k': 0", "1<=x<=1000", "fedrec recommend --help"]),
        ("recommend {run} --query x -k 1001", ["'-k': 1001", "1<=x<=1000"]),
        ("recommend {run} --query x -k ten", ["'-k': 'ten'", "fedrec recommend --help"]),
        ("evaluate {empty}", NOT_A_RUN),
        ("evaluate {run}", ["var/prepared/toy is not there", "--data"]),
        ("evaluate {run} --data {absent}", ["absent is not there", "--data"]),
        ("evaluate {run} --data {other}", ["trained on other items than", "other holds", "--data"]),
        ("evaluate {run} --data {toy} --protocol half", ["'--protocol': 'half'", "'full', 'sampled-99', 'cold'"]),
        (
            "evaluate {run} --data {toy} --protocol cold",
            ["protocol", "toy has no cold items", "--split cold-items"],
        ),
        ("evaluate {run} --data {cold}", ["was trained in another split than", "cold has", "--data"]),
        ("evaluate {run} --data {toy} --ranks {run}/ranks.npy", ["--ranks", "lies in the run", "private"]),
        ("serve {empty} --port 0", NOT_A_RUN),
        ("serve {run} --port 65536", ["'--port': 65536", "0<=x<=65535"]),
        ("demo --out {other}", ["--out", "other holds something that is no run of the demo", "choose another"]),
        ("demo --out {run}", ["--out", "holds something that is no run of the demo", "choose another"]),
        ("demo --out {broken}", ["--out", "broken.toml holds something", "choose another"]),
        ("bogus", ["No such command 'bogus'", "fedrec --help"]),
        ("recommend {run} --bogus", ["No such option '--bogus'", "fedrec recommend --help"]),
    ],
)
def test_a_wrong_input_is_one_line_and_leaves_nothing(
    fedrec: Fedrec, places: dict[str, Path], tmp_path: Path, command: str, words: list[str]
) -> None:
    before = tree(places["run"])
    is_refused(fedrec(*(part.format(**places) for part in command.split(" "))), *words)
    assert tree(places["run"]) == before
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("damage", ["missing", "cut short"])
@pytest.mark.parametrize(
    "name",
    [
        "card.json",
        "catalogue.parquet",
        "item_vectors.safetensors",
        "adapter_model.safetensors",
        "towers.safetensors",
    ],
)
def test_a_damaged_run_says_which_file_and_what_to_do(
    fedrec: Fedrec, run: Path, tmp_path: Path, name: str, damage: str
) -> None:
    damaged = shutil.copytree(run, tmp_path / "damaged")
    content = (damaged / name).read_bytes()
    if damage == "missing":
        (damaged / name).unlink()
    else:
        (damaged / name).write_bytes(content[: len(content) // 2])
    before = tree(tmp_path)
    for command in (["recommend", damaged, "--query", "soup"], ["serve", damaged, "--port", "0"]):
        outcome = fedrec(*command)
        is_refused(outcome, str(damaged), name)
        assert any(remedy in outcome.err for remedy in ("make one with", "copy", "make it again"))
    assert tree(tmp_path) == before


def test_a_port_in_use_is_known_at_once(fedrec: Fedrec, run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        is_refused(fedrec("serve", run, "--port", port), f"--port {port}", "in use", "choose another")


@pytest.mark.parametrize("host", ["256.0.0.1", f"{'a' * 64}.org"])
def test_a_host_that_is_none_is_refused(fedrec: Fedrec, run: Path, host: str) -> None:
    is_refused(fedrec("serve", run, "--host", host, "--port", "0"), f"--host {host}", "choose another")


def test_a_store_that_cannot_be_is_refused_before_it_listens(fedrec: Fedrec, run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    asked = ["serve", run, "--port", 0, "--store", tmp_path / "file" / "store.db"]
    is_refused(fedrec(*asked), "--store", "cannot be used", "choose another")


def test_a_setting_that_cannot_be_is_refused(fedrec: Fedrec, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_refused(fedrec("serve", run, "--set", "time_limit=0"), "setting time_limit", "greater than 0")
    is_refused(fedrec("serve", run, "--set", "time_limit"), "--set 'time_limit'", "name=value")
    is_refused(fedrec("serve", run, "--set", "colour=red"), "setting colour", "is not known")
    secret = fedrec("serve", run, "--set", f"token_secret={'s3cret' * 8}")
    is_refused(secret, "setting token_secret", "FEDREC_TOKEN_SECRET")
    assert "s3cret" not in secret.err
    monkeypatch.setenv("FEDREC_ADMIN_KEYS", "no-list-but-a-key")
    refused = fedrec("serve", run)
    is_refused(refused, "admin_keys", "JSON")
    assert "no-list" not in refused.err


def test_a_process_refuses_alike() -> None:
    ended = subprocess.run([sys.executable, "-m", "fedrec", "bogus"], capture_output=True, text=True)
    is_refused(Outcome(ended.returncode, ended.stdout, ended.stderr), "No such command 'bogus'", "fedrec --help")


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), ([], 2), (["data"], 2)])
def test_nothing_said_is_answered_with_help(fedrec: Fedrec, arguments: list[str], code: int) -> None:
    outcome = fedrec(*arguments)
    assert outcome.code == code
    assert "Usage: fedrec" in outcome.out
    assert outcome.err == ""


def command_named(*words: str) -> click.Command:
    return invoked_command(typer.main.get_command(app), words)


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        (["data", "prepare", "demo"], "`cold_share` = 2: leave `split` out", "--cold-share = 2: leave --split out"),
        (["data", "import", "x.csv"], "`interactions` with `no_times`", "INTERACTIONS with --no-times"),
        (["train", "x", "--out", "y"], "add `resume=True`, or `settings` a=1", "add --resume, or --set a=1"),
        (["train", "x", "--out", "y"], "train with `held_out=0`", "train with --set held_out=0"),
        (["evaluate", "x"], "`data` and `other_histories`", "--data and --other-histories"),
        (["evaluate", "x"], "`held_out=0`, `rounds` and `fedrec train`", "`held_out=0`, `rounds` and `fedrec train`"),
        (["recommend", "x"], "`k` of `run`", "-k of RUN"),
        (["federation", "certify"], "did you mean `host=a.org`?", "did you mean --host a.org?"),
    ],
)
def test_a_parameter_is_printed_as_the_commands_option(words: list[str], text: str, expected: str) -> None:
    assert with_options(text, command_named(*words)) == expected


def test_the_invoked_command_is_the_last_one_named() -> None:
    assert command_named("--version", "data", "--help").name == "data"
    assert command_named("data", "prepare", "list").name == "prepare"
    assert command_named("bogus").name == command_named().name


# The good paths.


def test_the_version_is_that_of_the_project(fedrec: Fedrec, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert fedrec("--version").out == f"fedrec {project['version']}\n"
    monkeypatch.setattr("importlib.metadata.Distribution.discover", lambda **how: iter(()))  # not installed
    assert fedrec("--version").out == f"fedrec {project['version']}\n"


def test_data_list(fedrec: Fedrec) -> None:
    listed = {entry["name"]: entry for entry in fedrec("data", "list", "--json").answer}
    assert listed.keys() == SOURCES.keys() | {f"{name}:{family.member_word}" for name, family in FAMILIES.items()}
    assert listed["demo"]["urls"] == []
    assert (listed["ml-1m"]["users"], listed["ml-1m"]["events"]) == (6_040, 1_000_209)
    assert listed["amazon-2023:CATEGORY"]["urls"][0].endswith("/benchmark/5core/rating_only/CATEGORY.csv")
    assert "Video_Games" in listed["amazon-2023:CATEGORY"]["members"]
    assert listed["ml-100k"]["md5"] == "0e33842e24a9c977be4e0107933c0723"
    table = fedrec("data", "list")
    assert all(name in table.out for name in listed)


def test_data_prepare_and_a_failure_after_it_leaves_it_whole(
    fedrec: Fedrec, places: dict[str, Path], tmp_path: Path
) -> None:
    told = fedrec("data", "prepare", "ml-100k", "--source", places["whole"], "--json").answer
    assert (told["users"], told["items"], told["interactions"]) == (2, 3, 6)
    assert told["out"] == "var/prepared/ml-100k"
    short = ["--text", "title", "--out", "short"]
    assert fedrec("data", "prepare", "ml-100k", "--source", places["whole"], *short, "--json").answer[
        "text_columns"
    ] == ["title"]
    assert Catalogue.load(tmp_path / "short").texts == ["Heat", "The Matrix", "unknown"]
    before = tree(tmp_path)
    is_refused(fedrec("data", "prepare", "ml-100k", "--source", places["letters"]), "u.data line 3")
    assert tree(tmp_path) == before


def test_data_prepare_by_cold_items_stands_beside_the_usual_split(fedrec: Fedrec, tmp_path: Path) -> None:
    told = fedrec("data", "prepare", "demo", "--split", "cold-items", "--json").answer
    assert (told["name"], told["out"]) == ("demo-cold-items", "var/prepared/demo-cold-items")
    assert told["cold_items"] == pl.read_parquet(tmp_path / told["out"] / "catalogue.parquet")["cold"].sum() > 0
    shown = fedrec("data", "prepare", "demo", "--split", "cold-items", "--cold-share", "0.3").out
    assert "users train and are not ranked" in shown
    assert "0.3 of the items" in shown
    usual = fedrec("data", "prepare", "demo").out
    assert "cold" not in usual
    assert sorted(path.name for path in (tmp_path / "var/prepared").iterdir()) == ["demo", "demo-cold-items"]


def test_data_import_by_cold_items(fedrec: Fedrec, tmp_path: Path) -> None:
    toy_interactions().write_csv(tmp_path / "log.csv")
    asked = ["--name", "mine", "--split", "cold-items", "--cold-share", "0.3"]
    told = fedrec("data", "import", tmp_path / "log.csv", *asked, "--json").answer
    assert (told["name"], told["out"]) == ("mine", "var/prepared/mine")
    assert told["cold_items"] > 0


@pytest.mark.parametrize("source", [["--history", "film-soup,film-bread,lost"], ["--query", "a rocket to the moon"]])
def test_recommend(fedrec: Fedrec, run: Path, source: list[str]) -> None:
    answer = fedrec("recommend", run, *source, "-k", "3", "--json").answer
    assert [item["title"] for item in answer["items"]] == [
        item["item_id"].replace("film-", "The ") for item in answer["items"]
    ]
    assert len(answer["items"]) == 3
    assert answer["unknown_ids"] == [word for word in ["lost"] if word in source[1]]
    shown = fedrec("recommend", run, *source, "-k", "3")
    assert shown.code == 0
    assert all(item["title"] in shown.out and item["item_id"] in shown.out for item in answer["items"])
    assert ("skipped: lost" in shown.err) is ("lost" in source[1])


def test_evaluate_is_what_training_measured(fedrec: Fedrec, run: Path, toy: Path) -> None:
    found = fedrec("evaluate", run, "--data", toy, "--json").answer
    logged = json.loads((run / "metrics.json").read_text())
    assert found.keys() == logged.keys() == {"test", "validation"}
    for split, metrics in logged.items():
        assert found[split].keys() == {"full"}
        coverage = found[split]["full"].pop("coverage@10")
        assert 0 < coverage <= 1
        assert found[split]["full"] == pytest.approx(metrics["full"], abs=1e-9)


def test_evaluate_against_a_sample_is_told_apart(fedrec: Fedrec, run: Path, toy: Path) -> None:
    found = fedrec("evaluate", run, "--data", toy, "--protocol", "sampled-99", "--json").answer
    assert all(found[split].keys() == {"sampled-99"} for split in ("test", "validation"))
    assert "to compare with papers only" in fedrec("evaluate", run, "--data", toy, "--protocol", "sampled-99").out


def test_evaluate_among_the_cold_items_alone(fedrec: Fedrec, places: dict[str, Path], tmp_path: Path) -> None:
    """Of 24 films and 12 people, those who have had two cold films are ranked, against no more than these."""
    data, shard = places["cold"], Shard.load(places["cold"])
    cold = int(Catalogue.load(data).frame["cold"].to_numpy().sum())
    trained = fedrec("train", data, "--out", "run", *SETS, "--set=rounds=1", "--json").answer
    found = fedrec("evaluate", "run", "--data", data, "--protocol", "cold", "--ranks", "ranks.npy", "--json").answer
    assert all(found[split].keys() == {"cold"} for split in ("test", "validation"))
    ranks = np.load("ranks.npy", allow_pickle=False)
    assert len(ranks) == found["test"]["cold"]["users"] == trained["test"]["full"]["users"]
    assert len(ranks) == len(shard.ranked(range(12))) < 12
    assert ranks.max() < cold - 1  # but the validation item, which has been seen
    assert found["test"]["cold"]["mrr"] == pytest.approx((1 / (ranks + 1)).mean())
    assert found["test"]["cold"]["mrr"] >= trained["test"]["full"]["mrr"]
    assert found["test"]["cold"]["coverage@10"] <= 1
    assert "the cold items alone" in fedrec("evaluate", "run", "--data", data, "--protocol", "cold").out


def test_evaluate_beside_baselines_on_the_same_users(fedrec: Fedrec, run: Path, toy: Path) -> None:
    """Of 24 films, EASE ranks an unwatched one of the user's own genre first, and knowing nothing does not."""
    found = fedrec("evaluate", run, "--data", toy, "--baselines", "--json").answer
    others = found.pop("baselines")
    assert found == fedrec("evaluate", run, "--data", toy, "--json").answer
    assert list(others) == [name for name in BASELINES if name not in ("EASE in vectors", "SASRec")]
    metrics = {name: other["test"]["full"] for name, other in others.items()}
    assert all(one.keys() == found["test"]["full"].keys() for one in metrics.values())
    assert {one["users"] for one in metrics.values()} == {12}
    assert metrics["EASE"]["ndcg@10"] > metrics["random"]["ndcg@10"]
    shard = Shard.load(toy)
    training = TrainingData(shard, torch.empty(24, 0))
    ranks = rank(ease(training, "test", EASEConfig(**others["EASE"]["settings"])), shard, range(12), "test").ranks
    assert metrics["EASE"]["mrr"] == pytest.approx((1 / (ranks + 1)).mean())
    shown = fedrec("evaluate", run, "--data", toy, "--baselines", "--protocol", "sampled-99")
    assert all(name in shown.out for name in ("popularity", "item-kNN", "this run"))


def test_a_baseline_that_memory_does_not_hold_is_told_and_left_out(
    fedrec: Fedrec, run: Path, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 × 8 × 24² bytes for 24 films."""
    monkeypatch.setattr("fedrec.recsys.baselines.linear.free_memory", lambda on: 18_431)
    outcome = fedrec("evaluate", run, "--data", toy, "--baselines", "--json")
    assert not {"EASE", "next-item ridge", "closed forms together"} & outcome.answer["baselines"].keys()
    assert outcome.answer["baselines"].keys() >= {"text neighbours", "item-kNN"}
    assert "EASE is left out: EASE solves for a matrix of 24 × 24, more than memory holds" in outcome.err
    monkeypatch.setattr("fedrec.recsys.baselines.linear.free_memory", lambda on: 18_432)
    assert "EASE" in fedrec("evaluate", run, "--data", toy, "--baselines", "--json").answer["baselines"]


def test_the_command_knows_every_protocol() -> None:
    assert tuple(protocol.value for protocol in Protocol) == PROTOCOLS


def test_evaluate_writes_a_rank_for_each_user_and_no_id(fedrec: Fedrec, run: Path, toy: Path, tmp_path: Path) -> None:
    found = fedrec("evaluate", run, "--data", toy, "--ranks", tmp_path / "ranks.npy", "--json").answer
    ranks = np.load(tmp_path / "ranks.npy", allow_pickle=False)
    assert ranks.shape == (12,)
    assert ranks.dtype.kind == "i"
    assert (1 / (ranks + 1)).mean() == pytest.approx(found["test"]["full"]["mrr"], abs=1e-9)
    assert [path.name for path in tmp_path.iterdir()] == ["ranks.npy"]


@pytest.mark.parametrize("alone", [[], ["--alone"]])
def test_personalise(fedrec: Fedrec, run: Path, toy: Path, alone: list[str]) -> None:
    """No step at all is the run's own validation; what is chosen is the best trial; the run is left as it was."""
    before = tree(run)
    asked = ["personalise", run, "--data", toy, "--steps", "1,3", "--rates", "0.1", "--part", "user", *alone]
    found = fedrec(*asked, "--json").answer
    assert [trial["steps"] for trial in found["trials"]] == [0, 1, 3]
    assert found["choice"] in [{name: trial[name] for name in found["choice"]} for trial in found["trials"]]
    assert found["test"]["users"] == 12
    logged = json.loads((run / "metrics.json").read_text())["validation"]["full"]
    assert (found["trials"][0]["validation"] == pytest.approx(logged, abs=1e-9)) is not bool(alone)
    assert (found["start"] == "scratch") is bool(alone)
    assert "every trial" in fedrec(*asked).out
    assert tree(run) == before


def test_train_central_writes_the_artifact_and_no_pickle(
    fedrec: Fedrec, toy: Path, embeddings: Tensor, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('rounds = 7\nmode = "federated"\n')
    asked = [*SETS, "--set", "mode=central", "--set=rounds=2", "--config", settings]
    told = fedrec("train", toy, "--out", "pooled", *asked, "--json").answer
    folder = tmp_path / told.pop("run")
    assert told == json.loads((folder / "metrics.json").read_text())
    assert {path.name for path in folder.iterdir()} == ARTIFACT
    heads = {path.read_bytes()[:2] for path in folder.iterdir()}
    assert not heads & {b"PK", *(bytes([0x80, protocol]) for protocol in range(2, 6))}
    config = json.loads((folder / "card.json").read_text())["config"]
    assert (config["mode"], config["rounds"]) == ("central", 2)
    again = fedrec("train", toy, "--out", "pooled", "--resume", "--json").answer
    assert again == told | {"run": "pooled"}


def test_data_of_which_nobody_can_learn_is_refused_before_the_run_begins(fedrec: Fedrec, tmp_path: Path) -> None:
    """Three events each: two are held out, and from the one that is left nothing can be predicted."""
    first_three = toy_interactions().group_by("user_id", maintain_order=True).head(3)
    write_dataset(Frames(first_three, toy_items()), tmp_path / "short", name="short")
    told = fedrec("train", tmp_path / "short", "--out", tmp_path / "run", "--set", "rounds=1")
    is_refused(told, "held_out = 2 a user needs 4 events", "the longest history has 3", "lower held_out")
    assert not (tmp_path / "run").exists()


def test_train_begins_from_another_run(fedrec: Fedrec, toy: Path, run: Path, tmp_path: Path) -> None:
    fedrec("train", toy, "--out", "second", "--start", run, *SETS, "--set=rounds=1", "--json")
    card = json.loads((tmp_path / "second" / "card.json").read_text())
    assert card["start"]["model_version"] == json.loads((run / "card.json").read_text())["model_version"]


def test_a_setting_by_file_or_by_hand_is_the_same(fedrec: Fedrec, toy: Path, run: Path, tmp_path: Path) -> None:
    """A resume that names the run's own settings, all of them, in a file changes nothing and is let through."""
    table = to_flat(small_config())
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in table.items()]
    (tmp_path / "all.toml").write_text("".join(lines))
    copied = shutil.copytree(run, tmp_path / "copied")
    told = fedrec("train", toy, "--out", copied, "--resume", "--config", tmp_path / "all.toml", "--json").answer
    assert told["test"] == json.loads((run / "metrics.json").read_text())["test"]
    for name in ("adapter_model.safetensors", "towers.safetensors", "item_vectors.safetensors"):
        assert (copied / name).read_bytes() == (run / name).read_bytes(), name


def test_a_benchmarks_preset_is_a_file_of_settings(tmp_path: Path) -> None:
    (tmp_path / "preset.toml").write_text('data = "toy"\nseeds = [3]\n[settings]\nrounds = 7\nlora_targets = "query"\n')
    config = read_settings(tmp_path / "preset.toml", ["item_rank=5"])
    assert config is not None
    assert to_flat(config) == to_flat(RunConfig()) | {"rounds": 7, "lora_targets": "query", "item_rank": 5}
