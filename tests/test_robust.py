"""Robust aggregation: the rules by hand, how many false answers each withstands, and groups of users over any nodes."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.data.errors import InputError
from fedrec.federation.aggregate import AGGREGATIONS, aggregate, sum_updates
from fedrec.federation.config import from_flat
from fedrec.federation.exchange import RoundReport
from fedrec.federation.groups import deal_groups, request_round
from fedrec.federation.messages import Order, Update
from fedrec.federation.robust.rules import coordinate_median, geometric_median, multi_krum, trimmed_mean
from fedrec.federation.roster import Roster
from tests.support.toy_world import finished

ROBUST = [name for name in AGGREGATIONS if name != "sum"]


def answer(change: list[float], learners: float = 1.0, users: int = 1) -> Update:
    """An answer whose users have changed by `change` in the mean."""
    sums = {"loss": learners, "learners": learners, "clipped": 0.0, "diverged": 0.0}
    return Update(1, users, {"w": torch.tensor(change).double() * learners}, sums)


def mean_change(updates: list[Update], rule: str, liars: float = 0.2) -> list[float]:
    """The change that the server would step along."""
    total = aggregate(updates, rule, liars)
    assert total
    return (total.deltas["w"] / total.sums["learners"]).tolist()


# ---- by hand


def means(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).double()


def test_the_median_by_hand() -> None:
    assert coordinate_median(means([1, 9], [2, 8], [30, 7]), 0).tolist() == [2, 8]
    assert coordinate_median(means([1, 9], [2, 8], [4, 7], [30, 0]), 0).tolist() == [(2 + 4) / 2, (7 + 8) / 2]


def test_the_trimmed_mean_by_hand() -> None:
    rows = means([1, 9], [2, 8], [3, 4], [30, -7], [6, 6])
    assert trimmed_mean(rows, 1).tolist() == [(2 + 3 + 6) / 3, (8 + 4 + 6) / 3]
    assert trimmed_mean(rows, 2).tolist() == coordinate_median(rows, 2).tolist()
    assert trimmed_mean(rows, 0).tolist() == [42 / 5, 20 / 5]


def test_the_geometric_median_by_hand() -> None:
    """Of a convex quadrangle it is where the diagonals cross (Fagnano); of points on a line, the middle one."""
    crossed = geometric_median(means([0, 0], [4, 4], [0, 3], [3, 0]), 0)
    assert torch.allclose(crossed, torch.tensor([1.5, 1.5]).double(), atol=1e-4)
    assert torch.allclose(geometric_median(means([0], [1], [10]), 0), torch.tensor([1.0]).double(), atol=1e-4)


def test_the_geometric_median_has_the_smallest_sum_of_distances() -> None:
    rows = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)).double()
    found = geometric_median(rows, 0)
    cost = torch.linalg.vector_norm(rows - found, dim=1).sum()
    for near in found + 1e-3 * torch.eye(3).double().repeat(2, 1) * torch.tensor([[1.0]] * 3 + [[-1.0]] * 3):
        assert cost <= torch.linalg.vector_norm(rows - near, dim=1).sum()


def test_multi_krum_by_hand() -> None:
    """Five answers, one false: the 5 - 1 - 2 = 2 of which the two nearest are nearest."""
    rows = means([0], [1], [1.5], [4], [100])  # scores: 1 + 2.25, 1 + 0.25, 0.25 + 2.25, 6.25 + 9, …
    assert multi_krum(rows, 1).tolist() == [(1 + 1.5) / 2]
    assert multi_krum(rows[:2], 0).tolist() == [0.5], "of two answers, the mean"


def test_the_norm_bound_by_hand() -> None:
    """Lengths 1, 5 and 10 of the mean changes: the last is halved, and the sum has the weights of the users."""
    updates = [answer([1.0, 0.0]), answer([3.0, 4.0], learners=2, users=2), answer([0.0, 10.0])]
    assert mean_change(updates, "norm-bound") == [(1 + 6) / 4, (8 + 5) / 4]
    assert mean_change([answer([0.0]), answer([0.0]), answer([1.0])], "norm-bound") == [0.0]


# ---- on the scale of a sum


@pytest.mark.parametrize("rule", AGGREGATIONS)
def test_nodes_that_agree_are_the_sum(rule: str) -> None:
    updates = [answer([1.0, -2.0], learners=n, users=n + 1) for n in (1, 2, 3, 4)]
    total = aggregate(updates, rule, 0.2)
    assert total
    assert torch.allclose(total.deltas["w"], torch.tensor([10.0, -20.0]).double(), atol=1e-9)
    assert (total.users, total.sums) == (14, sum_updates(updates).sums)


@pytest.mark.parametrize("rule", ROBUST)
def test_a_node_has_one_vote_and_one_without_learners_none(rule: str) -> None:
    """A node that hosts most of the users cannot outvote the others; with the sum it does (the control)."""
    updates = [answer([1.0])] * 4 + [answer([-1.0], learners=40, users=40), answer([0.0], learners=0)]
    if rule != "norm-bound":  # it bounds lengths alone
        assert mean_change(updates, rule, 0.2)[0] > 0.99
    assert mean_change(updates, "sum") == [-36 / 44]


@pytest.mark.parametrize("rule", AGGREGATIONS)
def test_a_round_of_nobody_moves_nothing(rule: str) -> None:
    nothing = [answer([0.0], learners=0)] * 2
    total = aggregate(nothing, rule, 0.2)
    assert total
    assert total.deltas["w"].tolist() == [0.0]
    assert aggregate([], rule, 0.2) is None


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(7)), st.sampled_from(sorted(AGGREGATIONS)))
def test_the_order_of_the_nodes_does_not_matter(order: list[int], rule: str) -> None:
    rows = torch.randn(7, 5, generator=torch.Generator().manual_seed(3)).tolist()
    updates = [answer(row, learners=n, users=n) for n, row in enumerate(rows, start=1)]
    assert mean_change([updates[place] for place in order], rule) == pytest.approx(mean_change(updates, rule))


# ---- how many false answers each withstands


def honest_and_false(false: int, size: float) -> list[Update]:
    """Nine answers near (1, -1), the last ones of which say the opposite instead, `size` times as long."""
    noise = 0.1 * torch.randn(9, 2, generator=torch.Generator().manual_seed(1))
    rows = (noise + torch.tensor([1.0, -1.0])).tolist()
    return [answer(row) for row in rows[: 9 - false]] + [answer([-size, size])] * false


@pytest.mark.parametrize(("rule", "withstands"), [("median", 4), ("trimmed-mean", 4), ("geometric-median", 4)])
def test_any_minority_is_withstood_and_no_majority(rule: str, withstands: int) -> None:
    """Breakdown at one half; the control is the sum, which one false answer turns round."""
    assert mean_change(honest_and_false(withstands, 1e6), rule, 0.49)[0] > 0.7
    assert mean_change(honest_and_false(withstands + 1, 1e6), rule, 0.49)[0] < -1e5
    assert mean_change(honest_and_false(1, 1e6), "sum")[0] < -1e5


def test_the_trimmed_mean_withstands_the_share_that_it_was_told() -> None:
    """A fifth of nine, rounded up, is two: three false answers get through."""
    assert mean_change(honest_and_false(2, 1e6), "trimmed-mean", 0.2)[0] > 0.7
    assert mean_change(honest_and_false(3, 1e6), "trimmed-mean", 0.2)[0] < -1e4


def test_multi_krum_withstands_fewer_than_half_less_one() -> None:
    """Of nine answers three, if told so (2 f + 2 < n); four that agree are nearer to each other than the others are."""
    assert mean_change(honest_and_false(3, 1e6), "multi-krum", 0.33)[0] > 0.7
    assert mean_change(honest_and_false(5, 1e6), "multi-krum", 0.33)[0] < -1e5


def test_the_norm_bound_withstands_length_and_not_direction() -> None:
    assert mean_change(honest_and_false(1, 1e6), "norm-bound")[0] > 0.7
    opposed = mean_change(honest_and_false(4, 1.0), "norm-bound")[0]
    assert opposed == pytest.approx(1 / 9, abs=0.1), "four of nine in the other direction leave one ninth"


@pytest.mark.parametrize(("rule", "answers"), [("trimmed-mean", 2), ("multi-krum", 4)])
def test_too_few_answers_are_said(rule: str, answers: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fedrec"):
        mean_change([answer([1.0])] * answers, rule, 0.1)
        assert f"{answers} answers bear 0 false ones, not the 1 of liars = 0.1" in caplog.text
        caplog.clear()
        mean_change([answer([1.0])] * (answers + 1), rule, 0.1)
        assert not caplog.records


# ---- groups


def test_groups_are_dealt_evenly_and_anew_in_each_round() -> None:
    users = np.arange(100, 117)
    dealt = deal_groups(users, 5, seed=0, round=1)
    assert sorted(map(len, dealt)) == [3, 3, 3, 4, 4]
    assert np.array_equal(np.sort(np.concatenate(dealt)), users)
    assert all((np.diff(part) > 0).all() for part in dealt)
    again, later = (deal_groups(users, 5, seed=0, round=number) for number in (1, 2))
    assert all(map(np.array_equal, dealt, again))
    assert not all(map(np.array_equal, dealt, later))
    assert len(deal_groups(users[:2], 5, seed=0, round=1)) == 2


def roster_of(nodes: list[int]) -> Roster:
    """A roster of one user for each entry, on the node of that number."""
    roster = Roster.empty({})
    for node in sorted(set(nodes)):
        roster = roster.with_node(node, np.flatnonzero(np.array(nodes) == node).astype(np.uint64))
    return roster


class Nodes:
    """Nodes that answer with the number of their users, but for those that never do."""

    def __init__(self, silent: tuple[int, ...] = ()) -> None:
        self.silent, self.asked = silent, list[list[int]]()

    def __call__(self, orders: Mapping[int, Order]) -> RoundReport:
        self.asked.append(sorted(orders))
        report = RoundReport(clients_asked=sum(len(order.users) for order in orders.values()), bytes_up=len(orders))
        for node, order in orders.items():
            if node in self.silent:
                report.absences.append(f"node {node}")
            else:
                report.nodes.append(node)
                report.updates.append(answer([1.0], learners=len(order.users), users=len(order.users)))
                report.clients_answered += len(order.users)
        return report


GROUPED = {"aggregation": "median", "groups": 3, "clients_per_round": 12}


def test_each_group_is_the_sum_over_its_users_on_all_nodes() -> None:
    nodes, order = Nodes(), Order(1, np.arange(12), 1.0)
    report = request_round(nodes, roster_of([1] * 6 + [2] * 6), order, from_flat(GROUPED))
    assert [update.users for update in report.updates] == [4, 4, 4]
    assert [update.deltas["w"].item() for update in report.updates] == [4.0, 4.0, 4.0]
    assert (report.clients_asked, report.clients_answered, report.bytes_up) == (12, 12, 6)
    assert nodes.asked == [[1, 2]] * 3, "a node of many users answers once for each group"


def test_a_phone_answers_once() -> None:
    nodes = Nodes()
    report = request_round(nodes, roster_of(list(range(1, 13))), Order(1, np.arange(12), 1.0), from_flat(GROUPED))
    assert nodes.asked == [list(range(1, 13))]
    assert [update.users for update in report.updates] == [4, 4, 4]


def test_a_silent_node_is_waited_for_once() -> None:
    nodes = Nodes(silent=(2,))
    report = request_round(nodes, roster_of([1] * 6 + [2] * 6), Order(1, np.arange(12), 1.0), from_flat(GROUPED))
    assert nodes.asked == [[1, 2], [1], [1]]
    assert sum(update.users for update in report.updates) == 6
    assert report.absences == ["node 2"]


def test_without_groups_each_node_is_one_answer() -> None:
    nodes, order = Nodes(), Order(1, np.arange(12), 1.0)
    config = replace(from_flat({}), clients_per_round=12)
    assert [update.users for update in request_round(nodes, roster_of([1] * 9 + [2] * 3), order, config).updates] == [
        9,
        3,
    ]


def test_anywhere_holds_for_groups_and_not_for_nodes(toy: Path, tmp_path: Path) -> None:
    """A robust rule over groups gives the same model, to the bit, on any nodes. Over nodes it cannot."""
    shared = {"rounds": 2, "clients_per_round": 12, "aggregation": "trimmed-mean", "liars": 0.3}
    grouped = [finished(toy, tmp_path / f"g{n}", **shared, groups=4, nodes=n).adapter for n in (1, 3, 12)]
    for other in grouped[1:]:
        assert all(torch.equal(tensor, other[name]) for name, tensor in grouped[0].items())
    plain = [finished(toy, tmp_path / f"n{n}", **shared, nodes=n).adapter for n in (3, 12)]
    assert not all(torch.equal(tensor, plain[1][name]) for name, tensor in plain[0].items())


def test_a_hybrid_adds_its_sums_by_any_rule(toy: Path, tmp_path: Path) -> None:
    """The rule is the towers'; the equations are those of the sums over all users."""
    shared = {"method": "hybrid", "features": "ids", "held_out": 0, "rounds": 1, "nodes": 4, "clients_per_round": 12}
    for rule in ("sum", "median"):
        finished(toy, tmp_path / rule, **shared, aggregation=rule)
    totals = [(tmp_path / rule / "statistics/total.safetensors").read_bytes() for rule in ("sum", "median")]
    assert totals[0] == totals[1]


# ---- what does not go together


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aggregation": "median", "method": "closed-form"}, "the sums of closed-form are added"),
        ({"aggregation": "median", "mode": "central"}, "in central mode the pooled users are one client"),
        ({"groups": 8}, "groups add up to the same sum"),
        ({"groups": 2, "aggregation": "median"}, "needs at least 3 groups"),
        ({"groups": 200, "aggregation": "median"}, "at most clients_per_round = 128"),
        ({"groups": 8, "aggregation": "median", "method": "fedmf"}, "clients of fedmf keep a state"),
        ({"liars": 0.5}, "less than 0.5"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        from_flat(changes)
