"""Noise by the nodes under secure aggregation: the server never sees a sum without it, whoever is lost."""

import json
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from flwr.app import RecordDict

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.federation import wire
from fedrec.federation.config import RunConfig
from fedrec.federation.exchange import RoundReport, request_updates
from fedrec.federation.messages import Order, OrderRefused, Update
from fedrec.federation.node import Node
from fedrec.federation.policy.guard import NodeGuard
from fedrec.federation.policy.node_policy import NodePolicy
from fedrec.federation.policy.order_book import OrderBook
from fedrec.federation.privacy.accounting import Releases
from fedrec.federation.privacy.audit import audit_release, draw_canaries
from fedrec.federation.privacy.ledger import Ledger
from fedrec.federation.privacy.noise import RandomBytes, draw_share
from fedrec.federation.privacy.shares import Sensitivity, add_share, count_honest
from fedrec.federation.privatise import Privatiser
from fedrec.federation.training_run import open_run, train
from fedrec.recsys.model.lora import Adapter
from tests.support.masked_group import MaskedGroup
from tests.support.privacy import PRIVATE, planned
from tests.support.staged_grid import StagedGrid
from tests.support.toy_world import begun, small_config

SECURE: dict[str, Any] = {"secure": True, "secure_clients": 2, "nodes": 6}
NOISED: dict[str, Any] = SECURE | PRIVATE | {"noise_by": "nodes"}
CLOSED: dict[str, Any] = {"method": "closed-form", "feature_width": 32, "pair_neighbours": 4}
HALVES: dict[str, dict[str, Any]] = {
    "towers": {},
    "sums over pairs": CLOSED | {"features": "pairs"},
    "sums over texts": CLOSED | {"features": "text"},
}
NOISE, RUN = 2.0, "ab" * 8
HONEST = 4
"""Of six nodes with secure_threshold = 0.66, four stay at least."""


def fixed_bytes(seed: int) -> RandomBytes:
    """A source that gives the same bytes each time."""
    return np.random.default_rng(seed).bytes


@dataclass
class Exchange:
    """An exchange with six nodes of two users each, whose noise is known, and of which some are lost."""

    grid: StagedGrid
    config: RunConfig

    @classmethod
    def over(cls, toy: Path, lost: Collection[Any] = (), **settings: Any) -> "Exchange":
        config = small_config(**settings)
        grid = StagedGrid.of(toy, config)
        grid.lost_answers, grid.until_round = {wire.MASK: set(lost)}, 1
        nodes = cast("list[Node]", grid.nodes)
        nodes[:] = [replace(node, coins=fixed_bytes(number)) for number, node in enumerate(nodes)]
        return cls(grid, config)

    @property
    def summed(self) -> bool:
        return self.config.method_row.summed

    @property
    def adapter(self) -> Adapter:
        return {} if self.summed else self.grid.nodes[0].setup.method.adapter()

    def order(self) -> Order:
        clip = 0.0 if self.summed else self.config.clip
        return Order(1, np.arange(2), clip, run=RUN, noise=NOISE if self.config.privacy.by_nodes else 0.0)

    def request(self) -> RoundReport:
        orders = dict.fromkeys(range(1, 7), self.order())
        kind = wire.STATISTICS if self.summed else wire.TRAIN
        bounds = self.grid.nodes[0].setup.closed_form.bounds if self.summed else None
        return request_updates(self.grid, kind, orders, self.adapter, self.config, bounds)

    def clean(self, number: int) -> Update:
        """A node's sum without noise."""
        node = self.grid.nodes[number]
        return (node.sum_statistics if self.summed else node.train)(self.order(), self.adapter)

    @property
    def unit(self) -> float:
        clipped = self.grid.nodes[0].setup.closed_form.clipped if self.summed else None
        return clipped.unit if clipped else 2.0**-32

    @property
    def longest(self) -> float:
        clipped = self.grid.nodes[0].setup.closed_form.clipped if self.summed else None
        return clipped.longest if clipped else 1.0 * (1 + 2.0**-16) + math.sqrt(len(self.integers(0))) * 2.0**-33

    def integers(self, number: int) -> np.ndarray:
        return units_of(self.clean(number).deltas, self.unit)


def units_of(sums: Adapter, unit: float) -> np.ndarray:
    """The numbers of some sums in whole units, by the names of the tensors."""
    return np.concatenate([(sums[name] / unit).flatten().numpy() for name in sorted(sums)]).astype(np.int64)


# ---- what the server sees


@pytest.mark.parametrize("lost", [[], [3], [3, 5]])
@pytest.mark.parametrize("half", HALVES)
def test_the_unmasked_sum_is_the_clean_one_and_the_shares_of_those_that_stayed(
    toy: Path, half: str, lost: list[int]
) -> None:
    """To the bit, for known shares. Their variance is that of the guarantee if two of six nodes are lost, as many as
    can be, and more if fewer are."""
    exchange = Exchange.over(toy, lost, **NOISED | HALVES[half])
    report = exchange.request()
    (update,) = report.updates
    stayed = [number for number in range(6) if number + 1 not in lost]
    clean = np.sum([exchange.integers(number) for number in stayed], axis=0)
    variance = (NOISE * exchange.longest / exchange.unit) ** 2
    shares = [draw_share(len(clean), variance, HONEST, fixed_bytes(number)) for number in stayed]
    seen = units_of(update.deltas, exchange.unit)
    assert np.array_equal(seen, clean + np.sum(shares, axis=0))
    assert report.excess == len(stayed) / HONEST
    found = float((seen - clean).astype(float).var() / variance)
    assert found == pytest.approx(report.excess, rel=8 * math.sqrt(2 / len(clean)))


@pytest.mark.parametrize("half", HALVES)
def test_the_control_a_sum_to_which_the_server_adds_the_noise_is_clean(toy: Path, half: str) -> None:
    exchange = Exchange.over(toy, **NOISED | HALVES[half] | {"noise_by": "server"})
    (update,) = exchange.request().updates
    clean = np.sum([exchange.integers(number) for number in range(6)], axis=0)
    assert np.array_equal(units_of(update.deltas, exchange.unit), clean)
    assert update.sums["learners"] == 12


def test_no_metric_leaves_beside_the_noise(toy: Path) -> None:
    """Loss and counts would be exact."""
    (update,) = Exchange.over(toy, **NOISED).request().updates
    assert set(update.sums.values()) == {0.0}


@pytest.mark.parametrize("half", HALVES)
def test_with_fewer_nodes_than_the_noise_is_sized_for_nothing_is_revealed(toy: Path, half: str) -> None:
    exchange = Exchange.over(toy, [1, 2, 3], **NOISED | HALVES[half])
    report = exchange.request()
    assert (report.updates, report.revealed) == ([], False)
    assert "3 of 6 nodes are left" in report.refusals[0]
    exchange.grid.until_round = 0
    assert exchange.request().revealed, "the control"


def test_the_server_finds_canaries_in_a_clean_sum_and_not_in_one_with_the_nodes_noise() -> None:
    """What it finds in a sum of four of six nodes stays below the claim."""
    numbers, delta, noise = 20_000, 1e-3, 1.2
    claim = Releases(1, 1.0, noise, 0, 0.0).spent(delta)
    most = Sensitivity(1.0, 2.0**-30, numbers)
    canaries = draw_canaries(120, numbers, 1.0, np.random.default_rng(0))
    sums = [np.round(part.sum(0) / most.unit).astype(np.int64) for part in np.split(canaries, 6)]
    audits = {}
    for noised in (False, True):
        added = [part.copy().view(np.uint64) for part in sums]
        for number, part in enumerate(added):
            if noised:
                add_share(part, most.variance(noise), HONEST, fixed_bytes(number))
        group = MaskedGroup.of(added)
        group.share()
        group.mask(lost={1, 4})
        group.attest()
        group.reveal()
        lost = [number for number in range(6) if not any(group.numbers[p] is added[number] for p in group.masked)]
        there = np.concatenate([part for number, part in enumerate(np.split(canaries, 6)) if number not in lost])
        seen = group.collector.unmask().view(np.int64) * most.unit
        audits[noised] = audit_release(seen, there, delta, 1 - 1e-6)
    assert audits[True] <= claim < audits[False] / 2


@pytest.mark.parametrize(
    ("nodes", "left", "honest", "fewest"), [(6, 4, 1.0, 4), (6, 4, 0.9, 4), (100, 66, 0.9, 56), (10, 7, 0.5, 2)]
)
def test_the_fewest_honest_nodes_of_a_sum(nodes: int, left: int, honest: float, fewest: int) -> None:
    """All that are lost were honest, and all others stay: 66 of 100, less the 10 that may not be."""
    assert count_honest(nodes, left, honest) == fewest


def test_without_an_honest_node_there_is_no_share() -> None:
    with pytest.raises(ValueError, match="may all be dishonest"):
        add_share(np.zeros(3, dtype=np.uint64), 100.0, 0)


def test_a_sum_that_no_noise_makes_so_long_is_refused(toy: Path) -> None:
    def garbled(stage: str, node: int, content: RecordDict) -> RecordDict:
        if (stage, node) != (wire.MASK, 2):
            return content
        numbers = content.array_records["masked"]["numbers"].numpy().copy()
        numbers[:-4] += np.uint64(2**45)  # not the metrics
        return wire.encode_masked(numbers)

    exchange = Exchange.over(toy, **NOISED)
    exchange.grid.change = garbled
    report = exchange.request()
    assert report.updates == []
    assert "is the most with noise" in report.refusals[0]


# ---- what a node asks


@pytest.mark.parametrize(("settings", "noise"), [(NOISED, 0.0), (NOISED, math.inf), (SECURE | PRIVATE, 1.0)])
def test_an_order_has_the_noise_of_its_run(toy: Path, settings: dict[str, Any], noise: float) -> None:
    exchange = Exchange.over(toy, **settings)
    with pytest.raises(OrderRefused, match=f"noise = {noise:g}"):
        exchange.grid.nodes[0].train(replace(exchange.order(), noise=noise), exchange.adapter)


def test_a_node_can_ask_for_more_noise_than_a_server_orders(toy: Path, tmp_path: Path) -> None:
    tickets = Shard.load(toy).tickets()
    guard = NodeGuard(NodePolicy(smallest_cohort=4, smallest_noise=1.0), OrderBook(tmp_path / "orders.db"))
    for question in ("train", "statistics"):
        order = Order(1, np.arange(4), noise=0.9)
        with pytest.raises(OrderRefused, match=r"noise = 0\.9, and smallest_noise = 1"):
            guard.admit(question, order, tickets, nodes=3)
        guard.admit(question, replace(order, noise=1.0), tickets, nodes=3)


# ---- runs and their ledgers


def test_a_run_says_where_its_noise_is_from_and_what_the_server_learns(toy: Path, tmp_path: Path) -> None:
    settings = NOISED | {"nodes": 4, "method": "hybrid", "features": "pairs", "pair_neighbours": 4, "rounds": 2}
    found = begun(tmp_path / "run", toy, small_config(**settings, clients_per_round=9, honest_nodes=0.9))
    ledger = found.card["privacy"]
    assert (ledger["noise_by"], ledger["honest_nodes"]) == ("nodes", 0.9)
    assert "shares that nodes add before they mask" in ledger["mechanism"]
    assert (ledger["rounds"], ledger["statistics"]) == (2, 1)
    assert ledger["statistic_excess"] == 4 / 3, "four nodes stayed, of which three would have been enough"
    assert ledger["spent"]["epsilon"] <= 8.0 < ledger["spent_at_server"]["epsilon"]
    control = planned().as_record()
    assert control["noise_by"] == "server"
    assert "spent_at_server" not in control


def test_one_release_of_everybody_spends_the_same_at_the_server() -> None:
    """Sampling hides nobody from the server, and in the closed form's sums nobody is sampled."""
    ledger = replace(planned(rounds=0).with_statistics(), noise_by="nodes")
    assert ledger.spent_at_server == ledger.spent


def test_a_release_is_entered_before_nodes_are_asked(tmp_path: Path) -> None:
    planned().save(tmp_path)
    by_nodes = Privatiser.open(tmp_path, small_config(**NOISED))
    assert by_nodes.open_release("rounds") == 1.0
    assert Ledger.load(tmp_path).rounds == 1
    total = Update(1, 9, {"a": torch.ones(50).double()}, {"learners": 0.0})
    released, _ = by_nodes.release_round(total, 1.0, {})
    assert released
    assert torch.equal(released.deltas["a"], total.deltas["a"]), "the noise is in it"
    assert released.sums == {"learners": 10.0}
    assert Ledger.load(tmp_path).rounds == 1, "and it is counted once"
    nobody, _ = by_nodes.release_round(None, 1.0, {"a": torch.zeros(50)})
    assert nobody
    assert (nobody.deltas["a"] != 0).all(), "if nobody is drawn, there is no node to add it"
    by_server = Privatiser.open(tmp_path, small_config(**PRIVATE))
    assert by_server.open_release("rounds") == 0
    assert Ledger.load(tmp_path).rounds == 1, "the control: the server enters it when it draws the noise"


def test_sums_that_nobody_revealed_can_be_asked_for_again(toy: Path, tmp_path: Path) -> None:
    settings = NOISED | HALVES["sums over pairs"]
    run = open_run(tmp_path / "run", Dataset.open(toy), small_config(**settings), resume=False)
    grid = StagedGrid.of(toy, run.config)
    grid.lost_answers, grid.until_round = {wire.MASK: {1, 2, 3}}, 1
    with pytest.raises(InputError, match=r"3 of 6 nodes are left, .*; settle that and resume"):
        train(grid, run)
    assert Ledger.load(run.out).statistics == 0
    grid.lost_answers = {wire.REVEAL: {1, 2, 3}}
    with pytest.raises(InputError, match=r"3 of 6 nodes are left, .*; settle that and resume"):
        train(grid, run)
    assert Ledger.load(run.out).statistics == 1, "three nodes have revealed their shares"
    with pytest.raises(InputError, match="a second release would overspend"):
        train(grid, run)


def test_the_solution_knows_how_much_noise_there_is(toy: Path, tmp_path: Path) -> None:
    """Six shares of which four are enough: the standard deviation is √(6/4) times that of the plan."""
    found = begun(tmp_path / "run", toy, small_config(**NOISED | HALVES["sums over pairs"]))
    ledger = json.loads(json.dumps(found.card["privacy"]))
    private = Privatiser.open(tmp_path / "run", small_config(**NOISED | HALVES["sums over pairs"]))
    bounds = StagedGrid.of(toy, private.config).nodes[0].setup.closed_form.clipped
    assert bounds
    wanted = ledger["plan"]["statistic_noise"] * bounds.longest * math.sqrt(6 / 4)
    assert private.deviation(bounds) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"secure": False}, "add secure = true"),
        ({"clip_quantile": 0.5}, "set clip_quantile = 0"),
        ({"honest_nodes": 0.3}, "raise one of both"),
    ],
)
def test_settings_that_do_not_go_with_noise_by_nodes_are_refused(changes: dict[str, Any], remedy: str) -> None:
    with pytest.raises(InputError, match=remedy):
        small_config(**NOISED | changes)
    small_config(**NOISED | changes | {"noise_by": "server"})
