"""`import fedrec`: the public API, as a notebook uses it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fedrec
from fedrec.answers import QuestionFields
from fedrec.data.dataset import Dataset
from fedrec.data.synthetic import demo_films
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.round_log import Observer
from fedrec.federation.training_run import TrainingRun, train
from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.evaluation.ranking import metric_means, metric_sums
from fedrec.serving.schema import MAX_K, Question
from tests.support.toy_world import SMALL, toy_interactions, toy_items, write_toy, write_toy_films

TEN_LINES = """
films = fedrec.load_dataset("ml-100k")                         # a Dataset: .catalogue, .users, .split
run = fedrec.train(films, rounds=60, nodes=8, out="runs/try")   # a Run; progress bar, resumable
run.metrics["test"]["ndcg@10"]                                  # about 0.11
run.rounds                                                      # a frame: round, loss, validation, bytes…
run.recommend(history=["50", "181"], k=5)                       # a frame: item_id, title, score
run.recommend(query="a heist that goes wrong", k=5)
ease = fedrec.baselines.EASE(ridge=300).fit(films)
fedrec.compare(run, ease, films, metric="ndcg@10")              # difference, interval, p
fedrec.load("runs/try").evaluate(protocol="cold")
"""


def run_python(code: str, cwd: Path, timeout: int = 120) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_imports_nothing_else(tmp_path: Path) -> None:
    """Neither torch nor flwr, nor a module of ours: a Flower bundle holds this file without the others beside it."""
    loaded = json.loads(run_python("import sys, json, fedrec; print(json.dumps(sorted(sys.modules)))", tmp_path))
    assert [name for name in loaded if name.startswith("fedrec")] == ["fedrec"]
    assert not {"torch", "flwr", "numpy", "polars", "pydantic"} & set(loaded)


def test_every_name_is_there_and_listed() -> None:
    assert set(fedrec.__all__) == set(fedrec._MODULES)
    for name in fedrec.__all__:
        assert getattr(fedrec, name).__doc__, name
    assert {*fedrec.__all__, "__version__"} <= set(dir(fedrec))
    assert fedrec.__version__.count(".") == 2
    assert fedrec.Dataset is Dataset
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        fedrec.lod  # noqa: B018


def test_the_types_are_shipped() -> None:
    assert (Path(fedrec.__file__).parent / "py.typed").is_file()


def test_the_ten_lines_run_on_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dataset and the settings are other ones, and its cold items are held out, so that the last line has some."""
    monkeypatch.chdir(tmp_path)
    world = demo_films.generate(demo_films.DemoConfig(films=100, users=60))
    monkeypatch.setattr(demo_films, "generate", lambda: world)
    small = ", ".join(f"{name}={value!r}" for name, value in (SMALL | {"rounds": 2, "nodes": 2}).items())
    code = TEN_LINES.replace('load_dataset("ml-100k")', 'load_dataset("demo", split="cold-items")')
    code = code.replace("rounds=60, nodes=8", small)
    found: dict = {"fedrec": fedrec}
    exec(
        "\n".join(f"_{n} = {x}" if "=" not in x.split("(")[0] else x for n, x in enumerate(code.split("\n")[1:-1])),
        found,
    )
    films, run = found["films"], found["run"]
    assert (len(films.users), len(films.catalogue)) == (films.manifest["users"], films.manifest["items"])
    assert 0 < found["_2"] < 1
    assert found["_3"].columns[:3] == ["round", "loss", "validation"]
    assert found["_3"]["round"].to_list() == [1, 2]
    for frame in (found["_4"], found["_5"]):
        assert frame.columns == ["item_id", "title", "score"]
        assert len(frame) == 5
        assert set(frame["item_id"]) <= set(films.catalogue.ids)
    assert not {"50", "181"} & set(found["_4"]["item_id"])
    comparison = found["_7"]
    assert comparison.difference == pytest.approx(comparison.a - comparison.b)
    assert comparison.a == pytest.approx(run.evaluate(films)["ndcg@10"])
    assert comparison.b == pytest.approx(found["ease"].evaluate(films)["ndcg@10"])
    assert comparison.interval[0] <= comparison.difference <= comparison.interval[1]
    assert "ndcg@10 over" in repr(comparison)
    assert found["_8"]["users"] == comparison.users


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_ten_lines_run_as_they_are(real_data: Path, tmp_path: Path) -> None:
    """On MovieLens 100K, prepared from a copy of it before. Its split has no cold items."""
    zipped = (real_data / "ml-100k.zip").resolve()
    prepared = f"import fedrec\nfedrec.load_dataset('ml-100k', source={str(zipped)!r})"
    *lines, last = TEN_LINES.strip().split("\n")
    code = "\n".join([prepared, *lines, "print(run.metrics['test']['ndcg@10'])", f"try:\n {last}"])
    code += "\nexcept fedrec.InputError as error:\n print(error)"
    ndcg, refusal = run_python(code, tmp_path, timeout=3600).splitlines()  # 60 rounds, however slow the machine is
    assert 0.1 < float(ndcg) < 0.125
    assert "has no cold items" in refusal


def test_a_dataset_is_prepared_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_toy_films(tmp_path / "raw")
    first = fedrec.load_dataset("ml-100k", source)
    assert (first.folder, len(first.users)) == (Path("var/prepared/ml-100k"), 12)
    (mark := first.folder / "embeddings-mark.safetensors").touch()
    assert fedrec.load_dataset("ml-100k").manifest == first.manifest
    assert mark.exists()
    assert "was prepared before" in capsys.readouterr().err
    assert fedrec.load_dataset("var/prepared/ml-100k").manifest == first.manifest
    assert fedrec.load_dataset("ml-100k", source, text=["title"]).manifest["text_columns"] == ["title"]
    assert not mark.exists()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fedrec.load_dataset("nope"), "dataset 'nope' is not known; choose one of demo"),
        (lambda: fedrec.load_dataset("var/nope"), "is not a prepared dataset"),
        (lambda: fedrec.load_dataset(Path("nope")), "is not a prepared dataset"),
        (lambda: fedrec.load_dataset("demo", split="half"), "`split` = 'half'"),  # type: ignore[arg-type]
        (lambda: fedrec.load("nope"), "nope is not a run"),
    ],
)
def test_what_cannot_be_opened_is_refused(call, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fedrec.InputError, match=words):
        call()
    assert list(tmp_path.iterdir()) == []


def test_frames_are_imported_as_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    events, items = toy_interactions(), toy_items()
    events.rename({"user_id": "who"}).write_parquet("events.parquet")
    items.write_parquet("items.parquet")
    columns = {"user_column": "who", "text_columns": ["title", "text"]}
    by_file = fedrec.import_dataset("events.parquet", "items.parquet", name="files", **columns)
    by_frame = fedrec.import_dataset(events.rename({"user_id": "who"}), items, name="frames", **columns)
    assert by_file.catalogue.fingerprint == by_frame.catalogue.fingerprint
    assert by_file.users.equals(by_frame.users)
    assert np.array_equal(by_file.shard.items, by_frame.shard.items)
    assert by_frame.folder == Path("var/prepared/frames")
    with pytest.raises(fedrec.InputError, match="`name` 'a/b' holds a slash"):
        fedrec.import_dataset(events, name="a/b")


@pytest.fixture(scope="module")
def trained(run: Path) -> fedrec.Run:
    return fedrec.load(run)


def test_a_run_is_what_training_left(trained: fedrec.Run, run: Path) -> None:
    logged = json.loads((run / "metrics.json").read_text("utf-8"))
    assert trained.metrics == {split: metrics["full"] for split, metrics in logged.items()}
    assert trained.metrics_by_protocol == logged
    assert trained.config.rounds == SMALL["rounds"]
    validated = trained.rounds.filter(pl.col("validation").is_not_null())["round"].to_list()
    assert validated == [2, 4]
    assert {"loss", "bytes_up", "bytes_down", "clients_per_second"} <= set(trained.rounds.columns)


def test_training_refuses_a_taken_folder_and_unknown_settings(toy: Path, run: Path, tmp_path: Path) -> None:
    films = fedrec.load_dataset(toy)
    with pytest.raises(fedrec.InputError, match=r"`out`.* is not empty.*`resume=True`"):
        fedrec.train(films, out=run)
    with pytest.raises(fedrec.InputError, match="setting 'round' is not known; the settings are"):
        fedrec.train(films, out=tmp_path / "new", round=3)
    with pytest.raises(fedrec.InputError, match="`other_histories` goes with `resume`"):
        fedrec.train(films, out=tmp_path / "new", other_histories=True)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_is_resumed_to_the_same_model(
    toy: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films, out = fedrec.load_dataset(toy), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("fedrec.training.train_over", interrupted)
        with pytest.raises(KeyboardInterrupt) as interrupt:
            fedrec.train(films, out=out, progress=False, **SMALL)
    assert interrupt.value.__notes__ == [f"2 rounds are saved in {out}; continue with `resume=True`"]
    with pytest.raises(fedrec.InputError, match="has not finished training"):
        _ = fedrec.load(out).metrics
    finished = fedrec.train(films, out=out, resume=True)
    assert finished.recommender.version == fedrec.load(run).recommender.version


def interrupted(grid: LocalGrid, run: TrainingRun, observe: Observer) -> None:
    """Train two rounds, then stop as Ctrl-C does."""

    def stop(record: dict[str, Any]) -> None:
        if record["round"] == 2:
            raise KeyboardInterrupt

    train(grid, run, stop)


def test_questions_have_one_vocabulary() -> None:
    """`Run.recommend`, `Client.recommend` and POST /v1/recommend."""
    assert set(QuestionFields.__annotations__) == set(Question.model_fields)


def test_a_run_recommends_with_every_field(trained: fedrec.Run, caplog: pytest.LogCaptureFixture) -> None:
    history = ["film-soup", "film-bread"]
    plain = trained.recommend(history=[*history, "lost"], k=3)
    assert "skipped: lost" in caplog.text
    assert plain.schema == {"item_id": pl.String, "title": pl.String, "score": pl.Float64}
    assert plain["item_id"].to_list() == [item.item_id for item in trained.answer(history=history, k=3).items]
    explained = trained.recommend(history=history, k=3, explain=True, details=True)
    assert explained.select(plain.columns).equals(plain)
    assert {row["item_id"] for row in explained["because"][0]} == set(history)
    assert explained["columns"].struct.field("genres").to_list() == ["Cooking"] * 3
    assert trained.recommend(query="a rocket", filters={"genres": "Cooking"}, exclude=history)["item_id"].len() == 10
    vector = trained.recommender.user_vector(trained.recommender.catalogue.rows(history)).tolist()
    by_vector = trained.recommend(vector=vector, exclude=history, k=3)
    assert by_vector["item_id"].equals(plain["item_id"])
    assert len(trained.similar("film-soup", k=4)) == 4
    assert trained.recommend(query="soup", include=["film-soup"], filters={"year": 1}).schema == plain.schema


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"history": ["lost"]}, "`history`: none of these ids"),
        ({"query": ""}, "`query`: string should have at least 1 character"),
        ({"query": "x", "k": MAX_K + 1}, "`k`: input should be less than or equal to 1000"),
        ({"query": "x", "top": 3}, "`top` is no field of a question; the fields are history, query"),
        ({}, "give a history, a query, a vector or a user"),
        ({"user": "ada"}, "`user`: a run stores no users"),
    ],
)
def test_a_question_that_cannot_be_answered_names_its_field(trained: fedrec.Run, question: dict, words: str) -> None:
    with pytest.raises(fedrec.InputError, match=words):
        trained.recommend(**question)


def test_an_unknown_item_is_similar_to_nothing(trained: fedrec.Run) -> None:
    with pytest.raises(fedrec.InputError, match="`item_id` = 'lost' is not in the catalogue"):
        trained.similar("lost")


def test_a_run_is_evaluated_on_its_own_dataset_alone(
    trained: fedrec.Run, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    films = fedrec.load_dataset(toy)
    found = trained.evaluate(films)
    assert found.pop("coverage@10") > 0
    assert found == pytest.approx(trained.metrics["test"], abs=1e-9)
    assert metric_means(metric_sums(trained.user_ranks(films))) == found
    with pytest.raises(fedrec.InputError, match="var/prepared/toy is not there; name the prepared folder with `data`"):
        trained.evaluate()
    (tmp_path / "var" / "prepared").mkdir(parents=True)
    (tmp_path / "var" / "prepared" / "toy").symlink_to(toy)
    assert trained.evaluate(split="validation")["ndcg@10"] == pytest.approx(trained.metrics["validation"]["ndcg@10"])
    assert fedrec.evaluate(trained, films, "sampled-99")["users"] == 12
    with pytest.raises(fedrec.InputError, match=r"`protocol` cold: .*toy has no cold items"):
        trained.evaluate(protocol="cold")
    with pytest.raises(fedrec.InputError, match="`protocol` = 'half' is not known"):
        trained.evaluate(protocol="half")
    with pytest.raises(fedrec.InputError, match="train items"):
        trained.evaluate(split="train")
    other = fedrec.import_dataset(toy_interactions(), name="toy", out="other")
    with pytest.raises(fedrec.InputError, match="was trained on other items than"):
        trained.evaluate(other)


def test_baselines_are_fitted_for_the_split_that_they_are_ranked_on(toy: Path) -> None:
    films = fedrec.load_dataset(toy)
    popularity = fedrec.baselines.Popularity().fit(films)
    for split in ("test", "validation"):
        counts = np.bincount(films.shard.events(split)[1], minlength=24)
        assert popularity.scorer(split)([np.array([0])])[0].tolist() == counts.tolist()
    assert popularity.evaluate(films)["users"] == 12


@pytest.mark.parametrize(
    "baseline",
    [
        fedrec.baselines.Random(seed=3),
        fedrec.baselines.TextNeighbours(last=2),
        fedrec.baselines.WhitenedTextNeighbours(power=0.5),
        fedrec.baselines.ItemKNN(neighbours=5),
        fedrec.baselines.ItemKNNWithRecency(neighbours=5),
        fedrec.baselines.EASE(ridge=10),
        fedrec.baselines.EASEWithRecency(ridge=10),
        fedrec.baselines.EASEWithTextPrior(prior=10),
        fedrec.baselines.NextItemRidge(decay=0.5),
        fedrec.baselines.ClosedFormsTogether(next_item=0.4),
        fedrec.baselines.SASRec(width=8, layers=1, epochs=2, dropout=0.0),
    ],
    ids=lambda baseline: baseline.title,
)
def test_a_baseline_is_asked_as_a_run_is(baseline: fedrec.baselines.Baseline, toy: Path) -> None:
    films = fedrec.load_dataset(toy)
    fitted = baseline.fit(films)
    frame = fitted.recommend(history=["film-soup", "film-bread", "lost"], k=4)
    assert frame.schema == {"item_id": pl.String, "title": pl.String, "score": pl.Float64}
    assert frame["score"].is_sorted(descending=True)
    assert not {"film-soup", "film-bread"} & set(frame["item_id"])
    assert len(fitted.recommend(history=["film-soup"], k=24, exclude_seen=False)) == 24
    assert fitted.evaluate(films).keys() >= {"ndcg@10", "coverage@10"}
    with pytest.raises(fedrec.InputError, match="`history`: none of these ids"):
        fitted.recommend(history=["lost"])


def test_tuning_takes_what_validation_prefers(toy: Path) -> None:
    films = fedrec.load_dataset(toy)
    tuned = fedrec.baselines.EASE().tune(films, {"ridge": [1.0, 100.0]})
    assert [trial.settings["ridge"] for trial in tuned.trials] == [1.0, 100.0]
    best = max(tuned.trials, key=lambda trial: trial.ndcg)
    assert tuned.baseline == fedrec.baselines.EASE(ridge=best.settings["ridge"])
    same = tuned.baseline.fit(films)
    assert np.array_equal(tuned.user_ranks(films), same.user_ranks(films))
    validation = same.evaluate(films, split="validation")["ndcg@10"]
    assert validation == pytest.approx(best.ndcg)
    with pytest.raises(fedrec.InputError, match="ridge"):
        fedrec.baselines.EASE(ridge=-1).fit(films)


def test_a_baseline_of_another_encoder_keeps_it_when_it_is_tuned(encoder: Encoder, tmp_path: Path) -> None:
    folder, films = str(encoder.folder), fedrec.load_dataset(write_toy(tmp_path / "toy"))
    tuned = fedrec.baselines.TextNeighbours(encoder=folder).tune(films, {"last": [2]})
    assert tuned.baseline == fedrec.baselines.TextNeighbours(last=2, encoder=folder)


def test_with_cold_items_a_baseline_reads_training_events_alone(tmp_path: Path) -> None:
    cold = fedrec.import_dataset(
        toy_interactions(), toy_items(), name="toy", split="cold-items", cold_share=0.3, out=tmp_path / "cold"
    )
    counts = fedrec.baselines.Popularity().fit(cold).scorer("test")([np.array([0])])[0]
    assert counts.tolist() == np.bincount(cold.shard.events("validation")[1], minlength=len(cold.catalogue)).tolist()
    assert fedrec.baselines.Random().fit(cold).evaluate(cold, protocol="cold")["users"] > 0


def test_a_baseline_is_not_measured_on_other_items(toy: Path, tmp_path: Path) -> None:
    other = fedrec.import_dataset(toy_interactions(), name="toy", out=tmp_path / "other")
    with pytest.raises(fedrec.InputError, match=r"fit it again"):
        fedrec.baselines.Popularity().fit(fedrec.load_dataset(toy)).evaluate(other)


def test_comparing_with_itself_differs_by_nothing(trained: fedrec.Run, toy: Path) -> None:
    films = fedrec.load_dataset(toy)
    same = fedrec.compare(trained, trained, films, metric="mrr")
    assert (same.difference, same.interval, same.p) == (0.0, (0.0, 0.0), 1.0)
    with pytest.raises(fedrec.InputError, match="`metric` = 'auc'"):
        fedrec.compare(trained, trained, films, metric="auc")
