"""Results of one benchmark whose jobs were made on two machines."""

from typing import Any

from benchmarks.reproduce.merge import merge_results
from benchmarks.results_file import AblationResult, BenchmarkResult, Result

DATA: dict[str, Any] = {
    "name": "films",
    "users": 3,
    "items": 5,
    "interactions": 15,
    "source": "films.zip",
    "catalogue_fingerprint": "c0ffee",
    "citation": "Reel 1999.",
}
PRESET = {"data": "films", "seeds": [0], "settings": {"rounds": 6}, "parts": ["federated"]}


def machine(name: str) -> dict[str, Any]:
    return {
        "system": "Linux",
        "processor": name,
        "cores": 2,
        "memory_gib": 4.0,
        "device": "cpu",
        "fast_bfloat16": False,
    }


def common(seconds: dict[str, float], on: str) -> dict[str, Any]:
    return {
        "name": "films",
        "command": "fedrec reproduce films",
        "split": "leave-one-out",
        "data": DATA,
        "seeds": [0],
        "machine": machine(on),
        "versions": {},
        "wall_seconds": sum(seconds.values()),
        "part_seconds": seconds,
    }


def result(models: dict[str, Any], seconds: dict[str, float], on: str, scores: dict[str, float]) -> BenchmarkResult:
    pairs = [compared("central")] if "central" in models else []
    group = {"group": "short", "from": 1, "to": 3, "users": 3, "ndcg@10": scores}
    fields = {"preset": PRESET, "comparisons": pairs, "by_history": [group]}
    return BenchmarkResult.model_validate(common(seconds, on) | fields | models)


def compared(other: str) -> dict[str, Any]:
    return {"a": "federated", "b": other, "metric": "ndcg@10", "difference": 0.1, "interval": [0.0, 0.2], "p": 0.02}


def reached(ndcg: float) -> dict[str, Any]:
    return {metric: {"mean": ndcg, "sd": None, "seeds": [ndcg]} for metric in ("ndcg@10", "recall@10")}


def merged(existing: Result, new: Result, only_in_existing: dict[str, str]) -> dict[str, Any]:
    """The merged file's JSON."""
    both = merge_results(existing, new, only_in_existing)
    assert both
    return both.to_json()


def changed(one: BenchmarkResult, **fields: Any) -> BenchmarkResult:
    """The same result with other fields, which are checked."""
    return BenchmarkResult.model_validate(one.to_json() | fields)


EXISTING = result(
    {"federated": reached(1), "central": reached(2)},
    {"federated-0": 3.0, "central-0": 4.0},
    "first",
    {"federated": 0.2, "central": 0.3},
)
NEW = result({"baselines": {"EASE": reached(5)}}, {"baseline-ease": 6.0}, "second", {"EASE": 0.1})
ONLY_IN_EXISTING = {"federated-0": "federated", "central-0": "central"}


def test_each_machine_adds_its_models() -> None:
    both = merged(EXISTING, NEW, ONLY_IN_EXISTING)
    assert (both["federated"], both["central"], both["baselines"]) == (reached(1), reached(2), {"EASE": reached(5)})
    assert both["machine"] == machine("first")
    assert both["elsewhere"] == [{"machine": machine("second"), "versions": {}, "parts": ["baseline-ease"]}]
    assert both["by_history"][0]["ndcg@10"] == {"federated": 0.2, "central": 0.3, "EASE": 0.1}
    assert both["comparisons"] == EXISTING.to_json()["comparisons"]
    assert both["wall_seconds"] == 13.0
    assert both["part_seconds"] == {"federated-0": 3.0, "central-0": 4.0, "baseline-ease": 6.0}


def test_closed_forms_are_added_to_those_of_the_file() -> None:
    def solved(models: dict[str, float]) -> BenchmarkResult:
        closed_forms = {name: reached(ndcg) | {"bytes_up_per_client_run": 9} for name, ndcg in models.items()}
        preset = PRESET | {"closed_form": {name: {"decays": [0.5]} for name in models}}
        seconds = {f"{name}-0": 1.0 for name in models}
        return changed(result({"closed_forms": closed_forms}, seconds, "second", models), preset=preset)

    both = merge_results(EXISTING, solved({"hybrid": 3}), ONLY_IN_EXISTING)
    assert both
    again = merged(both, solved({"closed-form-ids": 4}), ONLY_IN_EXISTING | {"hybrid-0": "hybrid"})
    assert list(again["closed_forms"]) == ["hybrid", "closed-form-ids"]
    assert again["federated"] == reached(1), "whose bytes the file lacks"
    assert again["by_history"][0]["ndcg@10"] == {"federated": 0.2, "central": 0.3, "hybrid": 3, "closed-form-ids": 4}


def test_models_on_cold_items_are_added_to_those_of_the_file() -> None:
    rows = {name: {"users": 3, "all": {"ndcg@10": 0.1}, "cold": {"ndcg@10": 0.2}} for name in ("federated", "EASE")}
    existing = changed(EXISTING, cold={"federated": rows["federated"]})
    assert merged(existing, changed(NEW, cold={"EASE": rows["EASE"]}), ONLY_IN_EXISTING)["cold"] == rows
    assert merged(existing, NEW, ONLY_IN_EXISTING)["cold"] == {"federated": rows["federated"]}


def test_a_third_machine_keeps_the_results_of_both_before() -> None:
    both = merge_results(EXISTING, NEW, ONLY_IN_EXISTING)
    assert both
    third = result({"peers": {"fedmf": reached(7)}}, {"peer-fedmf-0": 1.0}, "third", {"fedmf": 0.05})
    three = merged(both, third, ONLY_IN_EXISTING | {"baseline-ease": "EASE"})
    assert (three["baselines"], three["peers"]) == ({"EASE": reached(5)}, {"fedmf": reached(7)})
    assert [entry["machine"]["processor"] for entry in three["elsewhere"]] == ["second", "third"]
    assert three["by_history"][0]["ndcg@10"].keys() == {"federated", "central", "EASE", "fedmf"}


def test_a_model_that_is_made_again_replaces_the_old_one() -> None:
    again = result({"federated": reached(1.5)}, {"federated-0": 5.0}, "second", {"federated": 0.25})
    again = changed(again, rounds=7, comparisons=[compared("EASE")])
    both = merged(changed(EXISTING, rounds=6), again, {"central-0": "central"})
    assert (both["federated"], both["central"], both["rounds"]) == (reached(1.5), reached(2), 7)
    assert both["ratio"] == {"ndcg@10": 0.75, "recall@10": 0.75}
    assert both["by_history"][0]["ndcg@10"] == {"federated": 0.25, "central": 0.3}
    assert both["comparisons"] == [compared("EASE")]  # the old one was of the replaced model
    assert both["part_seconds"] == {"central-0": 4.0, "federated-0": 5.0}
    assert both["machine"] == machine("first")
    assert both["elsewhere"][0]["machine"] == machine("second")


def test_a_machine_disappears_when_all_its_jobs_are_made_again() -> None:
    elsewhere = [{"machine": machine("second"), "versions": {}, "parts": ["central-0"]}]
    again = result({"federated": reached(1.5)}, {"federated-0": 5.0}, "third", {"federated": 0.25})
    both = merged(changed(EXISTING, elsewhere=elsewhere), again, {"central-0": "central"})
    assert (both["machine"], both["elsewhere"]) == (machine("third"), elsewhere)


def test_the_families_of_a_preset_may_differ() -> None:
    more = changed(NEW, preset=PRESET | {"parts": ["federated", "baselines"]})
    assert merged(EXISTING, more, ONLY_IN_EXISTING)["preset"]["parts"] == ["federated", "baselines"]


def test_other_benchmarks_are_not_merged() -> None:
    other = changed(EXISTING, preset=PRESET | {"settings": {"rounds": 7}})
    assert merge_results(other, NEW, ONLY_IN_EXISTING) is None
    assert merge_results(changed(EXISTING, split="another"), NEW, ONLY_IN_EXISTING) is None
    ours_too = changed(NEW, federated=reached(9))  # of another seed, made here
    assert merge_results(EXISTING, ours_too, ONLY_IN_EXISTING) is None


def test_variants_keep_the_order_of_the_preset() -> None:
    def variants(names: list[str], on: str) -> AblationResult:
        preset = {"base": "films", "variant": {name: {"group": "g", "about": name} for name in "abc"}}
        figures = {"ndcg@10": 0.1}
        rows = [
            {
                "name": name,
                "group": "g",
                "about": on,
                "settings": {},
                "text": [],
                "test": figures,
                "validation": figures,
                "adapter_parameters": 1,
                "bytes_up_per_client_round": 1,
                "rounds": 1,
                "best_round": 1,
            }
            for name in names
        ]
        fields = {"preset": preset, "base_settings": {}, "variants": rows}
        return AblationResult.model_validate(common(dict.fromkeys(names, 1.0), on) | fields)

    both = merged(variants(["a", "c"], "first"), variants(["b", "c"], "second"), {"a": "a"})
    rows = [(row["name"], row["about"]) for row in both["variants"]]
    assert rows == [("a", "first"), ("b", "second"), ("c", "second")]
