"""Secure aggregation over a grid: the model is the same to the bit, and a round survives what goes wrong in it."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from torch import Tensor

from fedrec.contributions import measure_contributions
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.federation import round_log, wire
from fedrec.federation.checkpoint import STATE, State
from fedrec.federation.client_app import client_app
from fedrec.federation.config import RunConfig, to_flat
from fedrec.federation.exchange import RoundReport, request_updates
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order, OrderRefused
from fedrec.federation.node import Node
from fedrec.federation.run_statistics import load_nodes, load_total
from fedrec.federation.secure_exchange import GROUP, deal_groups
from fedrec.federation.secure_node import answer_stage
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.training_run import METRICS
from fedrec.recsys.closed_form.packing import unpack
from fedrec.recsys.closed_form.statistics import CROSS, GRAM
from fedrec.recsys.model.two_tower import TwoTowerModel
from tests.support.staged_grid import StagedGrid
from tests.support.toy_world import finished, shard_of, small_config
from tests.support.unreliable_grid import trained

SECURE: dict[str, Any] = {"secure": True, "secure_clients": 4, "nodes": 4}
CLOSED: dict[str, Any] = {"method": "closed-form", "ridges": "0.1,1,10", "decodes": "0.1", "feature_width": 32}
HYBRID: dict[str, Any] = CLOSED | {"method": "hybrid", "rounds": 2, "validate_every": 1, "blend_shares": "0.3,0.6"}
METHODS: dict[str, dict[str, Any]] = {
    "towers": {"rounds": 2},
    "closed form of texts": CLOSED,
    "closed form of ids": CLOSED | {"features": "ids"},
    "hybrid": HYBRID,
    "FedMF": {"method": "fedmf", "rounds": 2, "baseline_dim": 4},
}


# ---- the same to the bit


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_the_same_to_the_bit(toy: Path, tmp_path: Path, method: str) -> None:
    """And so are the metrics, and all of the log but bytes and seconds; the loss is as it was to 2⁻³²."""
    settings = METHODS[method]
    open_state = finished(toy, tmp_path / "open", **settings, nodes=4)
    state = finished(toy, tmp_path / "secure", **settings | SECURE)
    assert (state.best_round, state.chosen) == (open_state.best_round, open_state.chosen)
    for name, tensor in open_state.best.items():
        assert tensor.numpy().tobytes() == state.best[name].numpy().tobytes(), name
    assert (tmp_path / "secure" / METRICS).read_bytes() == (tmp_path / "open" / METRICS).read_bytes()
    for before, after in zip(*(round_log.read(tmp_path / name) for name in ("open", "secure")), strict=True):
        told = {name for name in before if before[name] != after[name]}
        assert told <= {"bytes_up", "bytes_down", "seconds", "clients_per_second", "loss"}
        assert before["loss"] == pytest.approx(after["loss"], abs=1e-9)
        assert after["bytes_up"] > before["bytes_up"]


def test_a_nodes_own_sums_of_a_closed_form_are_not_known(toy: Path, tmp_path: Path) -> None:
    finished(toy, tmp_path / "run", **CLOSED | SECURE)
    assert load_total(tmp_path / "run").users == 12
    assert load_nodes(tmp_path / "run") == {}
    config = small_config(**CLOSED | SECURE)
    with pytest.raises(InputError, match=r"secure = True: no node's own sums are known"):
        measure_contributions(tmp_path / "run", TrainingSetup(Dataset.open(toy), config), False, lambda *_: None)


# ---- what goes wrong

SIX = SECURE | {"nodes": 6, "secure_clients": 2, "rounds": 2, "validate_every": 2, "clients_per_round": 12}


def rounds_of(grid: StagedGrid, model: TwoTowerModel, folder: Path) -> tuple[State, list[dict[str, Any]]]:
    state = trained(grid, grid.nodes[0].config, model, folder)
    return state, round_log.read(folder)


@pytest.mark.parametrize("lost", ["request", "answer"])
@pytest.mark.parametrize("stage", wire.REQUESTS)
def test_a_node_drops_out_at_any_stage(toy: Path, model: TwoTowerModel, tmp_path: Path, stage: str, lost: str) -> None:
    """The sum is that of the nodes that masked theirs, to the bit, and the node takes part in the next round."""
    config = small_config(**SIX | {"rounds": 1, "validate_every": 1})
    grid = StagedGrid.of(toy, config)
    setattr(grid, "lost_requests" if lost == "request" else "lost_answers", {stage: {3}})
    grid.until_round = 1
    orders = {node: Order(1, np.arange(2), 1.0, run="ab" * 8) for node in range(1, 7)}
    report = request_updates(grid, wire.TRAIN, orders, model.adapter(), config)
    counted = [n for n in orders if n != 3 or stage in (wire.ATTEST, wire.REVEAL)]
    assert sorted(report.nodes) == counted
    assert report.clients_answered == 2 * len(counted)
    assert report.absences == ["node 3: no answer within 3600 s"]
    wanted = request_updates(
        LocalGrid.over(
            TrainingSetup(Dataset.open(toy), replace(config, secure_aggregation=RunConfig().secure_aggregation))
        ),
        wire.TRAIN,
        {node: orders[node] for node in counted},
        model.adapter(),
        replace(config, secure_aggregation=RunConfig().secure_aggregation),
    )
    (update,) = report.updates
    for name in update.deltas:
        assert torch.equal(update.deltas[name], torch.stack([one.deltas[name] for one in wanted.updates]).sum(0)), name


def test_below_the_threshold_the_round_is_lost_and_the_run_goes_on(
    toy: Path, model: TwoTowerModel, tmp_path: Path
) -> None:
    grid = StagedGrid.of(toy, small_config(**SIX))
    grid.lost_answers, grid.until_round = {wire.MASK: {1, 2, 3}}, 1
    state, (lost, whole) = rounds_of(grid, model, tmp_path)
    assert state.round == 2
    assert (lost["clients_answered"], lost["clients_refused"], lost["loss"]) == (0, 6, None)
    assert lost["refusals"] == ["a group of 3 nodes: 3 of 6 nodes are left, and secure_threshold = 0.66 needs 4"]
    assert len(lost["absences"]) == 3
    assert (whole["clients_answered"], whole["refusals"]) == (12, [])


def test_a_garbled_masked_sum_is_not_in_the_model(toy: Path, model: TwoTowerModel, tmp_path: Path) -> None:
    """A node that lies about its sum spoils the group's: it is refused as a whole, by the norm of the sum."""

    def garbled(stage: str, node: int, content: RecordDict) -> RecordDict:
        if (stage, node) != (wire.MASK, 2):
            return content
        numbers = content.array_records["masked"]["numbers"].numpy()
        return wire.encode_masked(numbers + np.uint64(2**40))

    grid = StagedGrid.of(toy, small_config(**SIX))
    grid.change, grid.until_round = garbled, 1
    _, (spoilt, whole) = rounds_of(grid, model, tmp_path)
    assert (spoilt["clients_answered"], spoilt["clients_refused"]) == (0, 12)
    assert "a group of 6 nodes: " in spoilt["refusals"][0]
    assert whole["clients_answered"] == 12


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (wire.ADVERTISE, "not signed"),
        (wire.SHARE, "sealed shares, not 5 of a fixed length"),
        (wire.MASK, "where"),
        (wire.ATTEST, "not of these survivors"),
        (wire.REVEAL, "of another length"),
    ],
)
def test_an_answer_of_another_form_is_refused_alone(
    toy: Path, model: TwoTowerModel, tmp_path: Path, stage: str, said: str
) -> None:
    def changed(at: str, node: int, content: RecordDict) -> RecordDict:
        if (at, node) != (stage, 2):
            return content
        if stage == wire.MASK:
            return wire.encode_masked(np.zeros(3, dtype=np.uint64))
        fields = wire.decode_fields(content, wire.ANSWERS[stage])
        texts = {name: bytes(64) for name in ("masking", "signature") if name in fields}
        return wire.encode_fields(
            stage,
            fields
            | texts
            | (
                {"texts": [b"x"] * len(fields["places"])}
                if "places" in fields
                else {"texts": [b"x"]}
                if "texts" in fields
                else {}
            ),
        )

    grid = StagedGrid.of(toy, small_config(**SIX))
    grid.change, grid.until_round = changed, 1
    _, (hurt, whole) = rounds_of(grid, model, tmp_path)
    (refusal,) = hurt["refusals"]
    assert refusal.startswith("node 2: ")
    assert said in refusal
    counted = 12 if stage in (wire.ATTEST, wire.REVEAL) else 10  # a sum that has come stays
    assert (hurt["clients_answered"], hurt["clients_refused"]) == (counted, 12 - counted)
    assert whole["clients_answered"] == 12


# ---- what a node refuses


@pytest.fixture
def nodes(toy: Path) -> list[Node]:
    return list(StagedGrid.of(toy, small_config(**SIX)).nodes)


def asked(node: Node, stage: str, **fields: Any) -> RecordDict:
    return answer_stage(wire.encode_fields(stage, fields), node)


def test_a_node_answers_no_order_in_the_open(toy: Path, model: TwoTowerModel) -> None:
    """Otherwise a server would say `secure`, and ask for each node's sum as before. The control: without it they
    answer."""
    config = small_config(**SIX)
    grid, order = StagedGrid.of(toy, config), Order(1, np.arange(2), 1.0)
    open_config = small_config(**SIX | {"secure": False})
    report = request_updates(grid, wire.TRAIN, {1: order}, model.adapter(), open_config)
    assert report.updates == []
    assert "with secure = True this node answers with masked sums alone" in report.refusals[0]
    control = LocalGrid.over(TrainingSetup(Dataset.open(toy), open_config))
    assert len(request_updates(control, wire.TRAIN, {1: order}, model.adapter(), open_config).updates) == 1


def shared(nodes: list[Node], users: int = 2) -> dict[int, list[bytes]]:
    """Nodes that have shared their keys for a round: their sealed shares, by place."""
    keys = [
        wire.decode_fields(
            asked(node, wire.ADVERTISE, run="ab" * 8, round=1, kind=wire.TRAIN, clients=users),
            wire.ANSWERS[wire.ADVERTISE],
        )
        for node in nodes
    ]
    columns = {name: [own[name] for own in keys] for name in keys[0]} | {"clients": [users] * len(keys)}
    return {
        node.memory.session.known_group.place_of(node.memory.session.advertisement): wire.decode_fields(
            content, wire.ANSWERS[wire.SHARE]
        )["texts"]
        for node in nodes
        if (content := asked(node, wire.SHARE, **columns))
    }


def mask_request(node: Node, sealed: dict[int, list[bytes]], order: Order, adapter: dict[str, Tensor]) -> RecordDict:
    session = node.memory.session
    place = session.place
    texts = {other: rows[place - (place > other)] for other, rows in sealed.items() if other != place}
    fields = {"session": session.known_group.session, "places": list(texts), "texts": list(texts.values())}
    content = wire.encode_fields(wire.MASK, fields)
    content.update(wire.encode_order(order, adapter))
    return content


ORDER = Order(1, np.arange(2), 1.0, run="ab" * 8)


@pytest.mark.parametrize(
    "order",
    [replace(ORDER, round=2), replace(ORDER, run="cd" * 8), replace(ORDER, users=np.arange(1))],
    ids=["round", "run", "users"],
)
def test_the_order_is_the_one_that_the_keys_were_signed_for(
    nodes: list[Node], model: TwoTowerModel, order: Order
) -> None:
    sealed = shared(nodes)
    with pytest.raises(OrderRefused, match="not the one that the keys were signed for"):
        answer_stage(mask_request(nodes[0], sealed, order, model.adapter()), nodes[0])
    assert answer_stage(mask_request(nodes[0], sealed, ORDER, model.adapter()), nodes[0])


def test_what_the_run_forbids_is_refused_in_a_masked_order_too(nodes: list[Node], model: TwoTowerModel) -> None:
    sealed = shared(nodes)
    with pytest.raises(OrderRefused, match="clip = 2 is not above 0 and at most 1"):
        answer_stage(mask_request(nodes[0], sealed, replace(ORDER, clip=2.0), model.adapter()), nodes[0])


def test_a_message_of_an_older_round_is_refused(nodes: list[Node], model: TwoTowerModel) -> None:
    """A server that repeats the messages of a round: the keys are others, and so is the session."""
    request = mask_request(nodes[0], shared(nodes), ORDER, model.adapter())
    shared(nodes)
    with pytest.raises(OrderRefused, match="it belongs to another session"):
        answer_stage(request, nodes[0])


def test_a_round_is_revealed_once(toy: Path, model: TwoTowerModel) -> None:
    """Two sums of a round, of which one has lost a node, would tell that node's own: the second is refused. A round
    that was given up may come again."""
    config = small_config(**SIX)
    grid = StagedGrid.of(toy, config)
    orders = dict.fromkeys(range(1, 7), ORDER)

    def requested() -> RoundReport:
        return request_updates(grid, wire.TRAIN, orders, model.adapter(), config)

    grid.lost_answers, grid.until_round = {wire.MASK: {1, 2, 3}}, 1
    assert requested().updates == []
    grid.until_round = 0
    assert len(requested().updates) == 1
    again = requested()
    assert again.updates == []
    assert "round 1 is asked for after round 1 was revealed" in again.refusals[0]


def test_stages_of_a_run_without_secure_aggregation_are_refused(toy: Path) -> None:
    node = Node.open(toy, small_config())
    with pytest.raises(OrderRefused, match="this run has secure = False"):
        asked(node, wire.ADVERTISE, run="ab" * 8, round=1, kind=wire.TRAIN, clients=2)


@pytest.mark.parametrize(
    ("stage", "fields", "said"),
    [
        ("nonsense", {}, "cannot be decoded"),
        (wire.ADVERTISE, {"run": "ab", "round": 1, "kind": wire.TRAIN}, "clients"),
        (wire.ADVERTISE, {"run": "ab", "round": 1.0, "kind": wire.TRAIN, "clients": 1}, "round of another type"),
        (wire.ADVERTISE, {"run": "ab", "round": 1, "kind": "census", "clients": 1}, "kind = 'census' is none of"),
        (wire.ATTEST, {"session": b"s", "places": [1, 2]}, "no session is under way"),
    ],
)
def test_a_malformed_request_is_refused(nodes: list[Node], stage: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(OrderRefused, match=said):
        asked(nodes[0], stage, **fields)


def test_a_node_that_is_started_again_goes_on_with_the_round(toy: Path, model: TwoTowerModel, tmp_path: Path) -> None:
    """Each message meets a new process: what a node needs of the messages before is in its file."""
    folder = tmp_path / "toy"
    shutil.copytree(toy, folder)
    config = small_config(**SIX)

    def opened() -> list[Node]:
        return [Node.open(folder, config, part, 6, persistent=True) for part in range(6)]

    sealed = shared(opened())
    for node in opened():
        answer_stage(mask_request(node, sealed, ORDER, model.adapter()), node)
    session = opened()[0].memory.session.known_group.session
    places = list(range(6))
    signatures = {}
    for node in opened():
        content = asked(node, wire.ATTEST, session=session, places=places)
        signatures[node.memory.session.place] = wire.decode_fields(content, wire.ANSWERS[wire.ATTEST])["signature"]
    with pytest.raises(OrderRefused, match="survivors are named twice"):
        asked(opened()[0], wire.ATTEST, session=session, places=places[:-1])
    texts = {"places": list(signatures), "texts": list(signatures.values())}
    content = asked(opened()[0], wire.REVEAL, session=session, **texts)
    assert len(wire.decode_fields(content, wire.ANSWERS[wire.REVEAL])["texts"]) == 6
    with pytest.raises(OrderRefused, match="no session is under way"):
        asked(opened()[0], wire.REVEAL, session=session, **texts)
    (stored,) = folder.glob("secure/part-0-of-6.json")
    assert json.loads(stored.read_text())["answered"] == {wire.TRAIN: 1}


# ---- an attack, with a control


def auc(scores: Tensor, items: Iterable[int]) -> float:
    """The probability that an item of the history scores above another one."""
    own = torch.zeros(len(scores), dtype=torch.bool)
    own[list(items)] = True
    wins = (scores[own].unsqueeze(1) > scores[~own]).double() + 0.5 * (scores[own].unsqueeze(1) == scores[~own])
    return float(wins.mean())


def test_the_server_finds_no_items_in_a_masked_sum(toy: Path) -> None:
    """The sums of ids of a single user name its items by what is not zero. The control: without a mask every item is
    found; with it the ranking is a coin toss (over 12 users of 24 items, 0.5 ± 0.15 is beyond four deviations)."""
    everyone = {node: Order(1, np.zeros(1, dtype=np.int64), run="ab" * 8) for node in range(1, 13)}
    found: dict[bool, list[float]] = {}
    for secure in (False, True):
        config = small_config(**CLOSED | SECURE | {"features": "ids", "nodes": 12, "secure": secure})
        grid = StagedGrid.of(toy, config)
        bounds = grid.nodes[0].setup.closed_form.bounds
        report = request_updates(grid, wire.STATISTICS, everyone, {}, config, bounds)
        if secure:
            views = {node: numbers_of(content) for stage, node, content in grid.seen if stage == wire.MASK}
        else:
            views = {
                node: torch.cat([(update.deltas[name] / bounds.entry_units[name]).flatten() for name in (CROSS, GRAM)])
                for node, update in zip(report.nodes, report.updates, strict=True)
            }
        found[secure] = [
            auc(items_score(view, grid.nodes[0].setup.closed_form.width), summed_items(grid.nodes[node - 1]))
            for node, view in views.items()
        ]
    assert len(found[True]) == 12
    assert min(found[False]) == 1
    assert abs(np.mean(found[True]) - 0.5) < 0.15


def numbers_of(content: RecordDict) -> Tensor:
    """The numbers that a server sees of a node, as signed ones, without the metric at the end."""
    return torch.from_numpy(content.array_records["masked"]["numbers"].numpy().view(np.int64).copy()).double()[:-1]


def items_score(view: Tensor, items: int) -> Tensor:
    """The score of each item in the sums that a view is taken for: its own entries in both tables, by size."""
    cross, gram = view.split([items * items, items * (items + 1) // 2])
    tables = unpack({CROSS: cross.view(items, items), GRAM: gram})
    return tables[GRAM].diagonal().abs() + tables[CROSS].abs().sum(0)


def summed_items(node: Node) -> set[int]:
    """The items of the node's one user that count in the sums."""
    return set(node.shard.history(0, "train").tolist())


# ---- groups


@pytest.mark.parametrize(
    ("nodes", "sizes"),
    [(0, []), (5, [5]), (2 * GROUP - 1, [2 * GROUP - 1]), (2 * GROUP, [GROUP, GROUP]), (1000, [67] * 10 + [66] * 5)],
)
def test_many_nodes_are_dealt_into_groups(nodes: int, sizes: list[int]) -> None:
    groups = deal_groups(list(range(nodes)))
    assert [len(group) for group in groups] == sizes
    assert sorted(node for group in groups for node in group) == list(range(nodes))
    if len(sizes) > 1:
        assert groups != deal_groups(list(range(nodes)))


@pytest.mark.timeout(900)
def test_the_sum_over_groups_is_the_sum(toy: Path) -> None:
    """130 nodes of one user each in two groups, one of which loses a node. (Seconds: it needs the smallest number of
    nodes that make two groups, and every pair of a group agrees on two keys.)"""
    config = small_config(**CLOSED | SECURE | {"features": "ids", "nodes": 130})
    setup = TrainingSetup(Dataset.open(toy), config)
    nodes = [Node(shard_of([[user % 24, (user + 1) % 24, (user * 7) % 24, 0, 1]]), setup) for user in range(130)]
    grid = StagedGrid(client_app(lambda context: nodes[context.node_id - 1]), [{}] * 130, to_flat(config))
    grid.seen, grid.until_round, grid.lost_answers = [], 1, {wire.MASK: {77}}
    orders = {node: Order(1, np.zeros(1, dtype=np.int64), run="ab" * 8) for node in range(1, 131)}
    bounds = setup.closed_form.bounds
    report = request_updates(grid, wire.STATISTICS, orders, {}, config, bounds)
    assert sorted(report.nodes) == [node for node in orders if node != 77]
    (total,) = report.updates
    alone = [node.sum_statistics(ORDER_OF_ONE, {}) for number, node in enumerate(nodes, start=1) if number != 77]
    assert (total.users, total.sums) == (129, {"learners": 129.0})
    for name, tensor in total.deltas.items():
        assert torch.equal(tensor, torch.stack([one.deltas[name] for one in alone]).sum(0)), name


ORDER_OF_ONE = Order(1, np.zeros(1, dtype=np.int64))


# ---- settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "central"}, "secure = True: in central mode"),
        ({"bits": 4}, "bits = 4: a masked number has 64 bits"),
        ({"nodes": 2}, "nodes = 2: secure aggregation needs at least 3"),
        ({"secure_threshold": 0.5}, "secure_threshold = 0.5"),
        ({"secure_clients": 0}, "secure_clients = 0"),
    ],
)
def test_settings_that_do_not_go_with_masks_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        small_config(**SECURE | settings)


def test_a_cohort_that_could_wrap_is_refused_before_it_is_asked(toy: Path, model: TwoTowerModel) -> None:
    config = small_config(**SIX | {"clip": 2.0**40})
    grid = LocalGrid.over(TrainingSetup(Dataset.open(toy), config))
    with pytest.raises(InputError, match=r"exceed 2\^63; ask for fewer clients"):
        request_updates(grid, wire.TRAIN, dict.fromkeys(range(1, 7), ORDER), model.adapter(), config)


def test_the_runs_folder_has_no_key(toy: Path, tmp_path: Path) -> None:
    finished(toy, tmp_path / "run", **METHODS["towers"] | SECURE)
    assert not [path for path in (tmp_path / "run").rglob("*") if "secure" in path.name]
    assert (tmp_path / "run" / STATE).exists()
