"""The lab of attacks: every attack succeeds where no defence is up, and a defence that helps is seen to help."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.attacks import laboratory, run
from benchmarks.attacks.attack import Attack, Bar, Case, Column
from benchmarks.attacks.breaches import BREACHED, BREACHES, Breach, refusal
from benchmarks.attacks.crafting import PROMOTIONS
from benchmarks.attacks.defences import OFF, POLICY, SMALL_NOISE
from benchmarks.attacks.flip import FLIP
from benchmarks.attacks.free_riders import FREE_RIDERS
from benchmarks.attacks.history import HISTORY
from benchmarks.attacks.intruder import INTRUDER
from benchmarks.attacks.leverage import ADAPTERS, LEVERAGE
from benchmarks.attacks.matching import Dictionary, fisher_discriminant, pursue, soft_span_share
from benchmarks.attacks.members import MEMBERS, likelihood_ratios
from benchmarks.attacks.orders import ORDERS
from benchmarks.attacks.overview import DEFENCES, ROWS, Measured
from benchmarks.attacks.promotion import FORGED, PROMOTION
from benchmarks.attacks.registry import ATTACKS, EVERY
from benchmarks.attacks.results import CaseResult, load_results
from benchmarks.attacks.scoring import auc, average, found_at_one_percent, precision
from benchmarks.attacks.sums import SUMS
from benchmarks.attacks.tickets import TICKETS
from benchmarks.attacks.traps import TRAPS, craft_traps, rarest_items
from benchmarks.attacks.vector import VECTOR
from benchmarks.attacks.world import FULL, World, with_noise
from benchmarks.report import attacks_page
from fedrec.data.errors import InputError
from fedrec.federation.messages import OrderRefused, Update
from fedrec.federation.policy.node_policy import NodePolicy
from tests.support.cli import Fedrec, is_refused
from tests.support.lab import SETTINGS, case_of, measured, small_world
from tests.support.toy_world import SMALL


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.mktemp("lab"), victims=4)


def test_auc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(5, size=50).astype(float), rng.random(50) < 0.3
    assert auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))
    assert math.isnan(auc(scores, np.zeros(50, dtype=bool)))


def test_scores_by_hand() -> None:
    scores, truth = np.array([4.0, 3, 2, 1]), np.array([True, False, True, False])
    assert auc(scores, truth) == 3 / 4
    assert precision(scores, truth) == 1 / 2
    assert found_at_one_percent(scores, truth) == 1 / 2
    assert average([{"a": 1.0}, {"a": math.nan}, {"a": 2.0}]) == {"a": 1.5}


def test_a_span_holds_its_own_vectors_and_no_others() -> None:
    vectors = torch.eye(6)
    rows = torch.tensor([[1.0, 2, 0, 0, 0, 0], [3, 1, 0, 0, 0, 0]])
    assert soft_span_share(vectors, rows).tolist() == pytest.approx([1, 1, 0, 0, 0, 0], abs=1e-6)


def test_pursuit_takes_a_sum_apart_in_the_order_of_its_weights() -> None:
    vectors = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    vectors /= vectors.norm(dim=1, keepdim=True)
    assert pursue(vectors, 1.0 * vectors[7] + 0.6 * vectors[3] + 0.3 * vectors[21], 3) == [7, 3, 21]


def test_a_dictionary_finds_the_vectors_of_a_weighted_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(50, 32, generator=generator)
    matrix = vectors[[4, 9, 30]].T @ torch.randn(3, 8, generator=generator)
    assert set(Dictionary.of(vectors).subspace(matrix).topk(3).indices.tolist()) == {4, 9, 30}


def test_the_discriminant_of_one_feature_is_its_sign() -> None:
    assert fisher_discriminant(np.array([[3.0, 1], [4, 0], [0, 0], [1, 1]]), np.array([1, 1, 0, 0], bool))[0] > 0


def test_noise_has_the_standard_deviation_that_it_states() -> None:
    update = Update(1, 1, {"a": torch.zeros(200, 200, dtype=torch.float64)}, {})
    noisy = with_noise(update, clip=0.5, noise=0.2, generator=np.random.default_rng(0))
    assert float(noisy.deltas["a"].std()) == pytest.approx(0.1, rel=0.02)
    assert with_noise(update, 0.5, 0.0, np.random.default_rng(0)) is update


@pytest.mark.parametrize("about", ["sum of 1 user, at the start", "sum of 1 user, at the start, untrained attack"])
def test_a_single_change_names_the_items_of_its_user(world: World, about: str) -> None:
    found = measured(HISTORY, world, about)
    assert found["auc"] > 0.99
    assert found["auc"] > found["popularity_auc"] + 0.1


@pytest.mark.parametrize("bits", ["4 bits", "1 bit"])
def test_few_bits_hide_nothing(world: World, bits: str) -> None:
    assert measured(HISTORY, world, "sum of 1 user, at the start", bits)["auc"] > 0.97


def test_noise_hides_a_change(world: World) -> None:
    found = measured(HISTORY, world, "sum of 16 users, at the start", "noise 1.0")
    assert found["auc"] < found["popularity_auc"] + 0.05


def test_sums_over_texts_name_the_items_even_in_a_difference(world: World) -> None:
    assert measured(SUMS, world, "sum of 1 user, features text")["precision"] > 0.95
    assert measured(SUMS, world, "one user, by two sums of 128 and 127 users, features text")["precision"] > 0.95


def test_sums_over_ids_name_the_items_outright(world: World) -> None:
    assert measured(SUMS, world, "sum of 16 users, features ids")["precision"] == 1


def test_noise_hides_the_items_of_sums(world: World) -> None:
    assert measured(SUMS, world, "sum of 1 user, features text", "noise 1.0")["auc"] < 0.65


def test_a_vector_of_the_closed_form_is_the_recent_history(world: World) -> None:
    found = measured(VECTOR, world, "vector of the closed form")
    assert found["newest"] > 0.8
    assert found["recent"] > 0.8 > 0.5 > found["popularity_recent"]


def test_traps_find_rare_items_in_a_sum(world: World) -> None:
    found = measured(TRAPS, world, "sum of 16 users")
    assert found["auc"] > max(0.9, found["popularity_auc"])
    assert measured(TRAPS, world, "sum of 128 users", "noise 1.0")["auc"] < 0.75


def test_a_trap_fires_for_its_item_alone(world: World) -> None:
    items = rarest_items(world, 16)
    adapter = craft_traps(world, world.node(world.config), items)
    fired = torch.nn.functional.gelu(4 * world.embeddings @ adapter["item.down"].T) > 0.1  # (N, R)
    assert fired[items].diagonal().all()
    assert fired.sum() <= 1.1 * len(items)


def test_orders_to_evaluate_name_the_held_out_item(world: World) -> None:
    world = replace(world, size=replace(world.size, victims=2))
    assert measured(ORDERS, world, "12 orders of one user")["found"] == 1
    assert measured(ORDERS, world, "12 orders of 17 users, and of 16 of them")["found"] == 1
    assert measured(ORDERS, world, "12 orders of one user", "noise 0.1")["found"] < 1


def test_tickets_from_ids_are_guessed_and_random_ones_are_not(world: World) -> None:
    assert measured(TICKETS, world, "salts from ids")["found"] > 0.9
    assert measured(TICKETS, world, "salts from ids", "random salts")["found"] == 0


def test_members_of_a_closed_form_are_told_apart_unless_there_is_noise(world: World) -> None:
    assert measured(MEMBERS, world, "closed form, 512 features")["auc"] > 0.9
    assert measured(MEMBERS, world, "closed form, 512 features", "noise 1.0")["auc"] < 0.65


def test_members_of_towers_are_measured(world: World) -> None:
    assert 0 <= measured(MEMBERS, world, "towers after 3 rounds")["auc"] <= 1


def test_the_likelihood_ratio_uses_what_shadow_models_saw() -> None:
    members = np.array([[True, False], [False, True]])
    signals = np.array([[5.0, 0], [5, 0], [1, 4]])  # user 0 looks like a member, user 1 does not
    member, other = likelihood_ratios(signals, members)
    assert member > 0 > other


def promotion_case(how: str, share: float = 0.5, nodes: int = 1) -> Case:
    return Case(how, OFF, {"share": share, "how": how, "target": "dead", "nodes": nodes})


def test_promotion_by_crafted_changes_shows_the_target(world: World) -> None:
    longer = replace(world, size=replace(world.size, poisoned_rounds=8))
    found = PROMOTION.measure(longer, promotion_case("crafted changes"))
    assert found["shown"] > 0.3 > 0.1 > found["shown_before"]


@pytest.mark.parametrize(("how", "nodes"), [*((how, 1) for how in (*PROMOTIONS, *FORGED)), ("crafted changes", 3)])
def test_every_way_to_promote_is_measured(world: World, how: str, nodes: int) -> None:
    short = replace(world, size=replace(world.size, poisoned_rounds=1))
    assert 0 <= PROMOTION.measure(short, promotion_case(how, 0.2, nodes))["shown"] <= 1


@pytest.mark.parametrize("attack", [PROMOTION, FLIP, FREE_RIDERS], ids=lambda attack: attack.name)
def test_poisoned_runs_are_measured_against_an_honest_one(world: World, attack: Attack) -> None:
    found = attack.measure(world, attack.cases(world.size)[0])
    assert found.keys() == {"shown", "shown_before", "ndcg", "ndcg_lost", "cost"}


def test_invented_users_are_left_out_by_a_bound_on_a_nodes_users(world: World) -> None:
    about = "10 times all users, all invented"
    assert measured(FREE_RIDERS, world, about, "a bound on a node's users")["ndcg_lost"] == 0
    assert measured(FREE_RIDERS, world, about)["ndcg_lost"] != 0


def test_an_intruder_turns_a_round_and_a_rule_over_nodes_stops_it(world: World) -> None:
    about = INTRUDER.cases(world.size)[0].about
    assert measured(INTRUDER, world, about)["cosine"] < 0
    defence = "a quarter of a round from one node, geometric median"
    assert measured(INTRUDER, world, about, defence)["cosine"] > 0.3


def test_a_node_with_a_policy_obeys_nothing_beyond_it(world: World) -> None:
    about = "requests beyond the policy"
    assert measured(BREACHED, world, about)["obeyed"] == len(BREACHES)
    assert measured(BREACHED, world, about, "policy")["obeyed"] == 0


@pytest.mark.parametrize("breach", BREACHES, ids=lambda breach: breach.limit)
def test_a_refusal_names_the_field_that_was_to_be_breached(world: World, breach: Breach) -> None:
    assert breach.limit in (refusal(world, POLICY, breach) or "obeyed")


def test_traps_that_pass_the_policy_are_milder(world: World) -> None:
    sharp, mild = (measured(LEVERAGE, world, about)["leverage"] for about in list(ADAPTERS)[:2])
    assert mild <= NodePolicy.largest_leverage < sharp


# The laboratory


def counting_attack(calls: list[str], value: float = 1.0) -> Attack:
    def measure(world: World, case: Case) -> dict[str, float]:
        calls.append(case.about)
        if case.about == "refused":
            raise OrderRefused("an order is refused: 1 user, and this node answers for 16")
        return {"auc": value}

    cases = [Case("first", control=True), Case("second", SMALL_NOISE), Case("refused")]
    words = {"title": "Counting", "attacker": "A.", "does": "B.", "conclusion": "C."}
    columns = (Column("auc", "AUC"),)
    return Attack("counting", **words, columns=columns, bar=Bar("auc", 0.5), cases=lambda size: cases, measure=measure)


def run_all(attack: Attack, world: World) -> list[CaseResult]:
    return list(laboratory.run_cases(attack, world, lambda text: None))


@pytest.fixture
def fresh(world: World, tmp_path: Path) -> World:
    return replace(world, folder=tmp_path / "lab")


def test_a_case_is_run_once_and_an_interrupted_attack_resumes(fresh: World) -> None:
    calls: list[str] = []
    attack = counting_attack(calls)
    laboratory.run_case(attack, attack.cases(fresh.size)[0], fresh)
    found = run_all(attack, fresh)
    assert calls == ["first", "second", "refused"]
    assert run_all(attack, fresh) == found
    assert len(calls) == 3
    run_all(attack, replace(fresh, seed=1))
    assert len(calls) == 6


def test_a_refused_order_is_a_row_and_a_failed_control_is_told(fresh: World) -> None:
    attack = counting_attack([], value=0.4)
    found = run_all(attack, fresh)
    assert "answers for 16" in found[2].refused
    assert [case.about for case in laboratory.failed_controls(attack, found)] == ["first"]


def test_every_attack_has_a_control_without_a_defence(world: World) -> None:
    for attack in ATTACKS.values():
        controls = [case for case in attack.cases(world.size) if case.control]
        assert controls, attack.name
        assert all(case.defence == OFF for case in controls), attack.name
        keys = [str(case.key) for case in attack.cases(world.size)]
        assert len(set(keys)) == len(keys), attack.name
        assert attack.bar.figure in {column.name for column in attack.columns}, attack.name


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in (SMALL | SETTINGS).items()), "utf-8")
    return path


def test_the_command_writes_figures_from_which_the_page_is_made(
    fedrec: Fedrec, world: World, settings_file: Path, tmp_path: Path
) -> None:
    found = fedrec("attack", "tickets", settings_file, "--data", world.dataset.folder, "--quick")
    assert (found.code, "salts from ids" in found.out) == (0, True)
    results = load_results(tmp_path / "benchmarks" / "attacks.json")
    assert results["tickets"].users == 120
    page = attacks_page.render_page(tmp_path)
    assert "| salts from ids (control) | none | 99.2 % | 120 | 1,000 |" in page
    assert "Not measured yet: `fedrec attack history`." in page


def test_the_command_refuses_an_unknown_attack_and_trained_on_items(fedrec: Fedrec, world: World) -> None:
    data = world.dataset.folder
    is_refused(fedrec("attack", "nothing", "--data", data), "no attack", EVERY)
    is_refused(fedrec("attack", "tickets", "--data", data, "--set", "held_out=0"), "held_out = 0", "use 2")


def test_a_failed_control_ends_the_command(fedrec: Fedrec, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "attacks_named", lambda name: [counting_attack([], value=0.4)])
    found = fedrec("attack", "counting", "--data", world.dataset.folder, "--quick")
    assert (found.code, "a control failed (counting: first)" in found.err) == (2, True)


def test_a_damaged_file_of_figures_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "attacks.json"
    path.write_text('{"history": {"name": "history"}}', "utf-8")
    with pytest.raises(InputError, match=r"history\.command"):
        load_results(path)


def test_the_plot_is_of_the_plain_cases(world: World, fresh: World) -> None:
    def figures(world: World, case: Case) -> dict[str, float]:
        return {"precision": 1 / float(case.options["users"]), "popularity_precision": 0.1}

    found = run_all(replace(HISTORY, measure=figures), fresh)
    (picture,) = attacks_page.pictures_of(laboratory.result_of(HISTORY, fresh, "command", found))
    assert [point[0] for point in picture.figures] == [1, 2, 4, 16, 64, 128]
    assert case_of(HISTORY, world, "sum of 1 user, at the start").control


def test_every_cell_of_the_overview_is_a_case_or_says_why_not(world: World) -> None:
    for row in ROWS:
        assert len(row.cells) == len(DEFENCES), row.title
        known = {(case.about, case.defence.name) for case in row.attack.cases(FULL)}
        assert {cell for cell in row.cells if isinstance(cell, Measured)} <= known, row.title
        assert all(cell for cell in row.cells)
    assert {row.attack.name for row in ROWS} == ATTACKS.keys() - {"intruder", "leverage"}
