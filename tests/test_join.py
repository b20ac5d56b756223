"""Results of one benchmark that were made on two machines."""

from typing import Any

from benchmarks.reproduce.merge import merge_results


def result(models: dict[str, Any], seconds: dict[str, float], machine: str, scores: dict[str, float]) -> dict[str, Any]:
    return {
        **dict.fromkeys(("name", "split", "data", "seeds"), "same"),
        "preset": {"settings": {"rounds": 6}, "parts": ["federated"]},
        **models,
        "machine": machine,
        "versions": {},
        "comparisons": [{"a": "federated", "b": "central", "metric": "ndcg@10"}] if "central" in models else [],
        "by_history": [{"group": "short", "users": 3, "ndcg@10": scores}],
        "wall_seconds": sum(seconds.values()),
        "part_seconds": seconds,
    }


def reached(ndcg: float) -> dict[str, Any]:
    return {metric: {"mean": ndcg} for metric in ("ndcg@10", "recall@10")}


TOLD = result(
    {"federated": reached(1), "central": reached(2)},
    {"federated-0": 3.0, "central-0": 4.0},
    "first",
    {"federated": 0.2, "central": 0.3},
)
FOUND = result({"baselines": {"EASE": 5}}, {"baseline-ease": 6.0}, "second", {"EASE": 0.1})
ELSEWHERE = {"federated-0": "federated", "central-0": "central"}


def test_each_machine_adds_its_models() -> None:
    both = merge_results(TOLD, FOUND, ELSEWHERE)
    assert both
    assert (both["federated"], both["central"], both["baselines"]) == (reached(1), reached(2), {"EASE": 5})
    assert both["machine"] == "first"
    assert both["elsewhere"] == [{"parts": ["baseline-ease"], "machine": "second", "versions": {}}]
    assert both["by_history"][0] == {
        "group": "short",
        "users": 3,
        "ndcg@10": {"federated": 0.2, "central": 0.3, "EASE": 0.1},
    }
    assert both["comparisons"] == TOLD["comparisons"]
    assert both["wall_seconds"] == 13.0
    assert both["part_seconds"] == {"federated-0": 3.0, "central-0": 4.0, "baseline-ease": 6.0}


def test_another_machine_more_keeps_what_the_two_before_told() -> None:
    both = merge_results(TOLD, FOUND, ELSEWHERE)
    assert both
    third = result({"peers": {"fedmf": 7}}, {"peer-fedmf-0": 1.0}, "third", {"fedmf": 0.05})
    three = merge_results(both, third, ELSEWHERE | {"baseline-ease": "EASE"})
    assert three
    assert (three["baselines"], three["peers"]) == ({"EASE": 5}, {"fedmf": 7})
    assert [entry["machine"] for entry in three["elsewhere"]] == ["second", "third"]
    assert three["by_history"][0]["ndcg@10"].keys() == {"federated", "central", "EASE", "fedmf"}


def test_a_model_made_again_takes_the_place_of_the_one_told() -> None:
    again = result({"federated": reached(1.5)}, {"federated-0": 5.0}, "second", {"federated": 0.25}) | {"rounds": 7}
    again["comparisons"] = [{"a": "federated", "b": "EASE", "metric": "ndcg@10"}]
    both = merge_results(TOLD | {"rounds": 6}, again, {"central-0": "central"})
    assert both
    assert (both["federated"], both["central"], both["rounds"]) == (reached(1.5), reached(2), 7)
    assert both["ratio"] == {"ndcg@10": 0.75, "recall@10": 0.75}
    assert both["by_history"][0]["ndcg@10"] == {"federated": 0.25, "central": 0.3}
    assert both["comparisons"] == again["comparisons"]  # the one told was of another model
    assert both["part_seconds"] == {"central-0": 4.0, "federated-0": 5.0}
    assert (both["machine"], both["elsewhere"][0]["machine"]) == ("first", "second")


def test_a_machine_whose_parts_were_all_made_again_is_not_told_of() -> None:
    told = TOLD | {"elsewhere": [{"parts": ["central-0"], "machine": "second", "versions": {}}]}
    again = result({"federated": reached(1.5)}, {"federated-0": 5.0}, "third", {"federated": 0.25})
    both = merge_results(told, again, {"central-0": "central"})
    assert both
    assert (both["machine"], both["elsewhere"]) == ("third", told["elsewhere"])


def test_a_preset_may_ask_for_more_than_it_did() -> None:
    more = FOUND | {"preset": FOUND["preset"] | {"parts": ["federated", "baselines"]}}
    both = merge_results(TOLD, more, ELSEWHERE)
    assert both
    assert both["preset"] == more["preset"]


def test_what_does_not_belong_together_is_not_joined() -> None:
    assert merge_results(TOLD | {"preset": {"settings": {"rounds": 7}}}, FOUND, ELSEWHERE) is None
    assert merge_results(TOLD, FOUND | {"federated": reached(9)}, ELSEWHERE) is None  # of another seed, made here
    assert merge_results(TOLD, FOUND | {"part_seconds": {}}, ELSEWHERE) is None


def test_variants_stand_in_the_order_of_the_preset() -> None:
    def variants(names: list[str], machine: str) -> dict[str, Any]:
        preset = {"variant": {"a": {}, "b": {}, "c": {}}}
        seconds = dict.fromkeys(names, 1.0)
        made = result({"variants": [{"name": name, "on": machine} for name in names]}, seconds, machine, {})
        return made | {"preset": preset}

    both = merge_results(variants(["a", "c"], "first"), variants(["b", "c"], "second"), {"a": "a"})
    assert both
    assert both["variants"] == [
        {"name": name, "on": on} for name, on in (("a", "first"), ("b", "second"), ("c", "second"))
    ]
