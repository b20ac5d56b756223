"""`fedrec results`: the documents are rendered from the results files, which have one set of models."""

import copy
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.preset import ROOT
from benchmarks.report.models import choice_of
from benchmarks.report.plots import pictures, save
from benchmarks.report.traffic import bytes_of_variant, bytes_over_run
from benchmarks.report.write import find_differing, write_documents
from benchmarks.results_file import AblationResult, BenchmarkResult, Tuning, json_key, load_result, save_result
from fedrec.data.errors import InputError
from tests.support.cli import Fedrec, is_refused


def seeds(mean: float, sd: float | None = None) -> dict[str, Any]:
    return {"mean": mean, "sd": sd, "seeds": [mean]}


def metrics(ndcg: float, recall: float, sd: float | None = None) -> dict[str, Any]:
    return {"ndcg@10": seeds(ndcg, sd), "recall@10": seeds(recall, sd)}


def compared(other: str, metric: str, difference: float, interval: tuple[float, float], p: float) -> dict[str, Any]:
    return {"a": "federated", "b": other, "metric": metric, "difference": difference, "interval": interval, "p": p}


def tuned(name: str, chosen: float, grid: Sequence[float], scores: Sequence[float] = (0.1, 0.2, 0.3)) -> dict[str, Any]:
    """A baseline's tuning, with the validation scores of its trials."""
    trials = [{"settings": {name: value}, "ndcg@10": score} for value, score in zip(grid, scores, strict=False)]
    return {"settings": {name: chosen}, "chosen": {name: chosen}, "trials": trials}


DATA = {
    "name": "films",
    "users": 1200,
    "items": 30,
    "interactions": 9000,
    "source": "films.zip",
    "catalogue_fingerprint": "c0ffee" * 10,
    "citation": "Reel 1999.",
}
COMMON = {
    "split": "leave-one-out",
    "data": DATA,
    "machine": {
        "system": "Linux",
        "processor": "Abacus",
        "cores": 2,
        "memory_gib": 4.0,
        "device": "cpu",
        "fast_bfloat16": False,
    },
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "wall_seconds": 180.0,
}
SENT_BY_BASELINE = {"rounds": 100, "bytes_up_per_client_round": 215_500}

FILMS: dict[str, Any] = {
    "name": "films",
    "command": "fedrec reproduce films --source films.zip",
    "preset": {"title": "Films", "data": "films", "seeds": [0, 1], "cold": {"share": 0.1}},
    "seeds": [0, 1],
    **COMMON,
    "federated": metrics(0.08, 0.16, 0.001),
    "central": metrics(0.1, 0.2, 0.002) | {"validation": {"ndcg@10": seeds(0.11)}},
    "ratio": {"ndcg@10": 0.8, "recall@10": 0.8},
    "baselines": {
        "popularity": metrics(0.04, 0.07) | {"tuning": {"settings": {}, "chosen": {}, "trials": []}},
        "EASE": metrics(0.09, 0.18) | {"tuning": tuned("ridge", 200.0, [100.0, 200.0, 300.0])},
    },
    "peers": {
        "fedmf": metrics(0.05, 0.1) | SENT_BY_BASELINE | {"sampled-99": metrics(0.3, 0.5)},
        "pfedrec-leak": metrics(0.07, 0.2) | SENT_BY_BASELINE | {"sampled-99": metrics(0.4, 0.7)},
    },
    "closed_forms": {
        "closed-form-ids": metrics(0.085, 0.17)
        | {"validation": {"ndcg@10": seeds(0.12)}, "bytes_up_per_client_run": 1_600_000}
        | {"tuning": tuned("ridge", 200.0, [100.0, 200.0, 300.0])},
        "hybrid": metrics(0.087, 0.175)
        | {"validation": {"ndcg@10": seeds(0.119)}, "bytes_up_per_client_run": 2_390_602},
    },
    "comparisons": [
        compared("popularity", "ndcg@10", 0.04, (0.03, 0.05), 0.0001),
        compared("popularity", "recall@10", 0.09, (0.08, 0.1), 0.0001),
        compared("EASE", "ndcg@10", -0.01, (-0.03, 0.01), 0.84),
        compared("EASE", "recall@10", -0.02, (-0.03, -0.01), 1.0),
    ],
    "part_seconds": {"federated-0": 110.0, "federated-1": 70.0},
    "adapter_parameters": 98304,
    "bytes_up_per_client_round": 395301,
    "bits": 32,
    "rounds": 20,
    "best_round": [20, 10],
    "clients_per_round": 120,
    "curve": [
        {"round": 10, "ndcg@10": 0.05, "megabytes_up_per_client": 0.4},
        {"round": 20, "ndcg@10": 0.08, "megabytes_up_per_client": 0.8},
    ],
    "by_history": [
        {"group": "short", "from": 9, "to": 9, "users": 1000, "ndcg@10": {"federated": 0.09, "popularity": 0.03}},
        {
            "group": "long",
            "from": 10,
            "to": 1234,
            "users": 200,
            "ndcg@10": {"federated": 0.03, "popularity": 0.05},
        },
    ],
}
FILMS["cold"] = {
    "EASE": {"users": 300, "all": {"ndcg@10": 0.0, "recall@10": 0.0}, "cold": {"ndcg@10": 0.1, "recall@10": 0.2}},
    "federated": {
        "users": 300,
        "all": {"ndcg@10": 0.05, "recall@10": 0.1},
        "cold": {"ndcg@10": 0.3, "recall@10": 0.4},
        "listed": 0.0631,
    },
}
FILMS["start"] = {
    "from": "songs",
    "before": {"ndcg@10": 0.03},
    "ndcg@10": 0.081,
    "mark": {"ndcg@10": 0.076, "share": 0.95},
    "rounds": {"start": 10, "scratch": None},
}
SENT: dict[str, Any] = {
    "name": "sent",
    "command": "fedrec reproduce sent",
    "preset": {
        "base": "films",
        "against_bytes": True,
        "settings": {"bits": 32},
        "variant": {name: {"group": "bits", "about": name} for name in ("full", "few")},
    },
    "base_settings": {"rounds": 20, "bits": 4},
    "seeds": [0],
    **COMMON,
    "part_seconds": {"full": 100.0, "few": 80.0},
    "variants": [
        {
            "name": name,
            "group": "bits",
            "about": f"{bits} bits",
            "settings": {"bits": bits},
            "text": [],
            "validation": {"ndcg@10": 0.1, "recall@10": 0.2},
            "test": {"ndcg@10": ndcg, "recall@10": 0.15},
            "adapter_parameters": 98304,
            "bytes_up_per_client_round": sent,
            "rounds": 20,
            "best_round": 20,
        }
        for name, bits, ndcg, sent in [("full", 32, 0.08, 395301), ("few", 2, 0.07, 25_100)]
    ],
}
PUBLISHED = """
[[figure]]
benchmark = "films"
model = "CineRec"
federated = true
"ndcg@10" = 0.05
source = "Critic 2020"
rule = "fewer films"
[[figure]]
benchmark = "songs"
model = "TuneRec"
"ndcg@10" = 0.9
source = "Bard 2021"
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The part of a clone that the documents are made from."""
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "published.toml").write_text(PUBLISHED)
    for result in (FILMS, SENT):
        (tmp_path / "benchmarks" / "results" / f"{result['name']}.json").write_text(json.dumps(result))
    (tmp_path / "README.md").write_text("# Films\n<!-- results -->\nold\n<!-- /results -->\nThe end.\n")
    return tmp_path


def page_of(clone: Path) -> str:
    """The rendered page, on disk."""
    write_documents(clone)
    return (clone / "docs" / "results.md").read_text()


def test_a_benchmark_as_a_table(clone: Path) -> None:
    """The best of a column is in bold, except for a federated baseline with a leak."""
    rows = [
        "| model | trained | NDCG@10 | Recall@10 | MB a client sends | made by |",
        "| --- | --- | ---: | ---: | ---: | --- |",
        "| fedrec, federated | federated | 0.0800 ± 0.0010 | 0.1600 ± 0.0010 | 0.79 | `--part federated` |",
        "| the same model on pooled data | centrally | **0.1000 ± 0.0020** | **0.2000 ± 0.0020** | – "
        "| `--part central` |",
        "| fedrec, closed form over ids (ridge = 200; of 3 tried) | federated | 0.0850 | 0.1700 | 1.60 "
        "| `--part closed-form` |",
        "| fedrec, towers and closed form | federated | 0.0870 | 0.1750 | 2.39 | `--part hybrid` |",
        "| EASE (ridge = 200; of 3 tried) | centrally | 0.0900 | 0.1800 | – | `--part baseline-ease` |",
        "| PFedRec with the leak of its code (100 rounds, 215.5 kB each) "
        "| federated | 0.0700 | 0.2000 | 21.55 | `--part peers` |",
        "| FedMF (100 rounds, 215.5 kB each) | federated | 0.0500 | 0.1000 | 21.55 | `--part peers` |",
        "| popularity | centrally | 0.0400 | 0.0700 | – | `--part baseline-popularity` |",
        "| CineRec, *as published* | federated | 0.0500 | – | – | Critic 2020; fewer films |",
    ]
    assert "\n\n" + "\n".join(rows) + "\n\n" in page_of(clone)


@pytest.mark.parametrize(
    ("tuning", "text"),
    [
        (tuned("ridge", 100.0, [100.0, 200.0]), " (ridge = 100 (the lowest); of 2 tried)"),
        (tuned("ridge", 200.0, [100.0, 200.0]), " (ridge = 200 (the highest); of 2 tried)"),
        (tuned("shrink", 0.0, [0.0, 10.0]), " (shrink = 0; of 2 tried)"),
        (tuned("last", 1, [1, 3]), " (last = 1; of 2 tried)"),
        (tuned("dropout", 0.2, [0.2, 0.4]), " (dropout = 0.2 (the lowest); of 2 tried)"),
        (tuned("steps", 0, [0]), " (steps = 0; of 1 tried)"),
        (tuned("last", 3, [3]), " (last = 3; of 1 tried)"),
        (
            tuned("steps", 0, [5, 0, 10], [0.08, 0.11, 0.09]),
            " (left out: 0.0900 on validation at best, of 2 tried, and 0.1100 without)",
        ),
    ],
)
def test_a_choice_at_the_edge_of_the_grid_is_marked(tuning: dict[str, Any], text: str) -> None:
    assert choice_of(Tuning.model_validate(tuning)) == text


def test_a_figure_that_is_not_published_is_not_the_best_published(clone: Path) -> None:
    rumour = (
        '[[figure]]\nbenchmark = "films"\nmodel = "Rumour"\n"ndcg@10" = 0.9\nsource = "?"\nkind = "as a reference"\n'
    )
    (clone / "benchmarks" / "published.toml").write_text(PUBLISHED + rumour)
    write_documents(clone)
    assert "0.0500 (CineRec)" in (clone / "README.md").read_text()
    assert "| Rumour, *as a reference* |" in (clone / "docs" / "results.md").read_text()


def test_the_bytes_of_a_run_are_computed_if_a_file_lacks_them() -> None:
    """20 rounds, a client in a tenth of them; in a federated baseline in each; in a variant 128 of 1,200."""
    films, sent = BenchmarkResult.model_validate(FILMS), AblationResult.model_validate(SENT)
    found = {name: bytes_over_run(films, name, model) for name, model in films.own_models().items()}
    assert found == {"federated": 20 * 395301 // 10, "central": None}
    assert films.federated
    measured = films.federated.model_copy(update={"bytes_up_per_client_run": 7})
    assert bytes_over_run(films, "federated", measured) == 7
    assert bytes_over_run(films, "fedmf", films.federated_baselines["fedmf"]) == 100 * 215_500
    assert bytes_over_run(films, "alone", films.federated) == 0, "whatever each client learns stays with it"
    assert [bytes_of_variant(sent, variant) for variant in sent.variants] == [
        round(20 * 128 / 1200 * size) for size in (395301, 25_100)
    ]


def test_comparisons(clone: Path) -> None:
    rows = [
        "| fedrec, federated against | NDCG@10 | Recall@10 |",
        "| --- | --- | --- |",
        "| popularity | better: +0.0400 (+0.0300 to +0.0500), p = 0.0001 "
        "| better: +0.0900 (+0.0800 to +0.1000), p = 0.0001 |",
        "| EASE | not clear: −0.0100 (−0.0300 to +0.0100), p = 0.8400 "
        "| worse: −0.0200 (−0.0300 to −0.0100), p = 1.0000 |",
    ]
    assert "\n\n" + "\n".join(rows) + "\n\n" in page_of(clone)


def test_quality_by_history_and_variants(clone: Path) -> None:
    page = page_of(clone)
    assert (
        "| --- | ---: | ---: | ---: |\n"
        "| short: 9 | 1,000 | **0.0900** | 0.0300 |\n"
        "| long: 10 to 1,234 | 200 | 0.0300 | **0.0500** |\n\n"
    ) in page
    assert (
        "| bits | 32 bits | 0.1000 | 0.0800 | 0.1500 | 98,304 | 395.3 | 0.84 |\n"
        "| bits | 2 bits | 0.1000 | 0.0700 | 0.1500 | 98,304 | 25.1 | 0.05 |\n\n"
    ) in page


def test_the_readme_gets_a_line_for_each_dataset_and_keeps_the_rest(clone: Path) -> None:
    alone = {
        name: found for name, found in FILMS.items() if name not in {"central", "baselines", "peers", "closed_forms"}
    }
    (clone / "benchmarks" / "results" / "alone.json").write_text(json.dumps(alone | {"name": "alone"}))
    write_documents(clone)
    assert (clone / "README.md").read_text().splitlines() == [
        "# Films",
        "<!-- results -->",
        "",
        "| NDCG@10 | fedrec, federated | with a closed form | the same on pooled data "
        "| best federated baseline | best baseline | published |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| Films | 0.0800 ± 0.0010 | 0.0850 (ids) | **0.1000 ± 0.0020** "
        "| 0.0500 (FedMF) | 0.0900 (EASE) | 0.0500 (CineRec) |",
        "",
        "<!-- /results -->",
        "The end.",
    ]


def test_the_page_reports_every_figure(clone: Path) -> None:
    page = page_of(clone)
    for text in [
        "1,200 users, 30 items, 9,000 interactions; catalogue c0ffeec0ffee. Reel 1999.",
        "`fedrec reproduce films --source films.zip`, seeds 0, 1:",
        "20 rounds of 120 clients, in 2, 1 minutes; the best on validation: 20, 10.",
        "98,304 parameters; a client that takes part in a round sends 395.3 kB, at 32 bits per parameter.",
        "Federated training reaches 80.0% of the NDCG@10 on pooled data.",
        "![Films: NDCG@10 by length of history](plots/films-history.svg)",
        "Made in 3 minutes on Abacus, 2 cores, 4.0 GiB, cpu; python 3.11.7, torch 2.13.0.",
        "Events are sorted stably by timestamp, ties in file order",
        "## sent",
        "films (rounds = 20, bits = 32), except for the change that a row names.",
        "only to compare with papers that use this protocol: FedMF NDCG@10 0.3000, Recall@10 0.5000; ",
        "10% of the items are in no training event; the 300 users",
        "| fedrec, federated | **0.0500** | **0.1000** | **0.3000** | **0.4000** | 6.3% |\n"
        "| EASE | 0.0000 | 0.0000 | 0.1000 | 0.2000 | – |",
        "Warm start from the federated run of songs (`--part start`, seed 0): NDCG@10 is 0.0300 before the first round "
        "here and 0.0810 after training. To reach 95% of the best validation NDCG@10 of training from scratch, the "
        "warm start needs 10 rounds, and training from scratch needs more rounds than it had.",
    ]:
        assert text in page
    assert "TuneRec" not in page


def test_a_benchmark_with_unfinished_seeds_is_rendered(clone: Path) -> None:
    begun = FILMS | {"part_seconds": {"federated-0": 110.0}, "best_round": [20]}
    (clone / "benchmarks" / "results" / "films.json").write_text(json.dumps(begun))
    write_documents(clone)
    assert "20 rounds of 120 clients, in 2 minutes;" in (clone / "docs" / "results.md").read_text()


def test_written_once_and_checked(clone: Path, fedrec: Fedrec) -> None:
    first = fedrec("results")
    plots = {f"docs/plots/{name}.svg" for name in ("films-curve", "films-bytes", "films-history", "sent-bytes")}
    assert {line.split()[0] for line in first.out.splitlines()} == {"docs/results.md", "README.md", *plots}
    assert write_documents(clone) == []
    assert fedrec("results", "--check").code == 0
    changed = copy.deepcopy(FILMS)
    changed["by_history"][0]["ndcg@10"]["federated"] = 0.091
    (clone / "benchmarks" / "results" / "films.json").write_text(json.dumps(changed))
    outcome = fedrec("results", "--check")
    assert outcome.code == 1
    assert outcome.out.splitlines() == [
        "docs/results.md differs; run `fedrec results`",
        "docs/plots/films-history.svg differs; run `fedrec results`",
    ]
    assert write_documents(clone) == [clone / "docs" / "results.md", clone / "docs" / "plots" / "films-history.svg"]


def test_a_plot_is_the_same_to_the_byte(tmp_path: Path) -> None:
    results = BenchmarkResult.model_validate(FILMS), AblationResult.model_validate(SENT)
    for picture in [picture for result in results for picture in pictures(result)]:
        save(picture, tmp_path / "one.svg")
        save(picture, tmp_path / "two.svg")
        drawn = (tmp_path / "one.svg").read_text()
        assert drawn == (tmp_path / "two.svg").read_text()
        assert picture.stamp in drawn
        assert "dc:date" not in drawn


def test_without_matplotlib_it_says_what_to_install(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'fedrec\[plots\]'"):
        write_documents(clone)


def test_a_folder_that_is_no_clone_is_refused(clone: Path, fedrec: Fedrec) -> None:
    (clone / "README.md").write_text("# Films\n")
    is_refused(fedrec("results"), "README.md must hold <!-- results -->", "put them back")
    (clone / "benchmarks" / "results" / "films.json").write_text("{")
    is_refused(fedrec("results"), "films.json is not JSON", "make it again")
    shutil.rmtree(clone / "benchmarks")
    is_refused(fedrec("results"), "published.toml is missing", "run this in a clone")


def test_our_documents_are_what_our_results_give() -> None:
    assert find_differing(ROOT) == []


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=lambda path: path.stem)
def test_our_results_files_are_what_their_models_write(path: Path, tmp_path: Path) -> None:
    save_result(tmp_path / path.name, load_result(path, "fetch it again"))
    assert (tmp_path / path.name).read_text() == path.read_text()


def test_a_key_that_is_unknown_is_refused(tmp_path: Path) -> None:
    (tmp_path / "films.json").write_text(json.dumps(FILMS | {"mood": "good"}))
    with pytest.raises(InputError, match=r"holds no results of a benchmark \(mood: extra inputs are not permitted\)"):
        load_result(tmp_path / "films.json", "make it again")


def test_keys_of_the_file() -> None:
    fields = ["ndcg_10", "from_", "sampled_99", "part_seconds", "federated_baselines"]
    assert list(map(json_key, fields)) == ["ndcg@10", "from", "sampled-99", "part_seconds", "peers"]
