"""Changes in few bits: the rotation, the quantiser, what is lost, what is sent, and what is refused."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard as scipys
from torch import Tensor

from benchmarks.reproduce.message_cost import uplink_bytes
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.federation import round_log, wire
from fedrec.federation.census import take_census
from fedrec.federation.checkpoint import State
from fedrec.federation.clipping import clip_and_sum, norms
from fedrec.federation.compression.eden import CompressedUpdate, Eden, count_rows, encode
from fedrec.federation.compression.quantise import SIDE, WIDTH, hadamard, quantiser
from fedrec.federation.config import from_flat
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order, Update
from fedrec.federation.node import Node
from fedrec.federation.round_log import RoundLog
from fedrec.federation.rounds import run
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.training.local_training import ClientUpdates
from tests.support.toy_world import small_config, toy_stamp
from tests.support.unreliable_grid import Tamper, trained, unreliable

BITS = range(1, 9)


def coded(change: Tensor, bits: int, salts: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """One change under the rotation of each of these salts, decoded; with the codes' scales, and the told lengths."""
    deltas = {"a": change.expand(len(salts), -1)}
    codes, lengths = encode(deltas, Eden.draw(salts, bits, seed=0, round=1))
    return torch.cat(list(codes.decode()))[:, : len(change)], codes.scales, lengths


def lone(bits: int, seed: int = 0, length: int = 3000) -> tuple[Update, dict[str, Tensor]]:
    change = torch.randn(1, length, generator=torch.Generator().manual_seed(seed))
    fitted = ClientUpdates({"b": change[:, :10].view(1, 2, 5), "a": change[:, 10:]}, torch.ones(1))
    coding = Eden.draw(np.array([seed], dtype=np.uint64), bits, 0, 1)
    return clip_and_sum(fitted, 1, 1.0, coding), {name: tensor[0] for name, tensor in fitted.deltas.items()}


def test_the_rotation_is_hadamards() -> None:
    assert torch.equal(hadamard(torch.eye(WIDTH)), torch.from_numpy(scipys(WIDTH)).float())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_the_rotation_keeps_lengths_and_undoes_itself_without_rounding(seed: int, count: int) -> None:
    whole = torch.randint(-8, 9, (count, WIDTH), generator=torch.Generator().manual_seed(seed)).float()
    turned = hadamard(whole)
    assert torch.equal(hadamard(turned), WIDTH * whole)
    assert torch.equal(turned.double().square().sum(1), WIDTH * whole.double().square().sum(1))


PUBLISHED = {  # Max 1960, table I: the levels above 0, and the mean squared error
    1: ([0.7980], 0.3634),
    2: ([0.4528, 1.510], 0.1175),
    3: ([0.2451, 0.7560, 1.344, 2.152], 0.03454),
    4: ([0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733], 0.009497),
}


@pytest.mark.parametrize("bits", PUBLISHED)
def test_the_quantiser_is_the_published_one(bits: int) -> None:
    above, error = PUBLISHED[bits]
    levels = quantiser(bits)
    assert levels.tolist() == pytest.approx([-level for level in reversed(above)] + above, abs=1e-3)
    assert lost(bits) == pytest.approx(error, abs=1e-4)


def lost(bits: int) -> float:
    """E (z − c(z))² for a standard normal z, of which a level's own share is p: 1 − 2 Σ E[z; cell] c + Σ p c²."""
    levels = quantiser(bits).double()
    bounds = torch.cat([torch.tensor([-math.inf]), (levels[1:] + levels[:-1]) / 2, torch.tensor([math.inf])]).double()
    share = torch.special.ndtr(bounds).diff()
    within = -torch.exp(-bounds.square() / 2).diff() / math.sqrt(2 * math.pi)
    return float(1 - 2 * (within * levels).sum() + (share * levels.square()).sum())


CHANGES: dict[str, Callable[[torch.Generator], Tensor]] = {
    "normal": lambda g: torch.randn(5000, generator=g),
    "heavy tails": lambda g: torch.randn(5000, generator=g) * torch.rand(5000, generator=g).log(),
    "growing": lambda g: torch.randn(5000, generator=g) * torch.logspace(-4, 2, 5000),
    "all alike": lambda g: torch.ones(5000),
    "one in ten": lambda g: torch.randn(5000, generator=g) * (torch.rand(5000, generator=g) < 0.1),
}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("bits", BITS)
def test_the_error_is_that_of_the_theory(kind: str, bits: int) -> None:
    """|x̂ − x|² / |x|² is D / (1 − D), with D what the quantiser loses: π/2 − 1 for one bit."""
    change = CHANGES[kind](torch.Generator().manual_seed(bits))
    decoded, _, lengths = coded(change, bits, np.arange(50, dtype=np.uint64))
    error = ((decoded - change).norm(dim=1) / change.norm()).square().mean()
    assert float(error) <= 1.1 * lost(bits) / (1 - lost(bits))
    assert float(lengths.mean() / change.norm()) == pytest.approx((1 - lost(bits)) ** -0.5, rel=0.02)
    assert lost(1) / (1 - lost(1)) == pytest.approx(math.pi / 2 - 1, abs=1e-3)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("kind", CHANGES)
def test_the_errors_of_many_rotations_average_out(kind: str, bits: int) -> None:
    """The mean of n decoded changes is n times as near in squared distance: coding is unbiased."""
    change, n = CHANGES[kind](torch.Generator().manual_seed(bits)), 400
    decoded, _, _ = coded(change, bits, np.arange(n, dtype=np.uint64))
    error = float((decoded.mean(0) - change).norm() / change.norm()) ** 2
    assert error <= 1.5 * lost(bits) / (1 - lost(bits)) / n


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(BITS), st.floats(1e-6, 1e6), st.integers(1, 3000))
def test_a_decoded_change_is_right_along_the_change(seed: int, bits: int, scale: float, length: int) -> None:
    """⟨x̂, x⟩ = |x|², row by row, whatever the rotation; and its length is the one that was told."""
    change = scale * torch.randn(length, generator=torch.Generator().manual_seed(seed))
    deltas = {"a": change.unsqueeze(0)}
    codes, told = encode(deltas, Eden.draw(np.array([seed], dtype=np.uint64), bits, 0, 1))
    decoded = next(codes.decode())[0].double()
    assert float(decoded[:length] @ change.double()) == pytest.approx(float(change.double().square().sum()), rel=1e-3)
    assert float(decoded.norm()) == pytest.approx(float(told[0]), rel=1e-6)


def test_nothing_is_coded_as_nothing() -> None:
    decoded, scales, lengths = coded(torch.zeros(10), 1, np.arange(2, dtype=np.uint64))
    assert not decoded.any()
    assert scales.tolist() == [[0], [0]]
    assert lengths.tolist() == [0, 0]


def test_each_client_has_a_rotation_of_its_own_in_every_round() -> None:
    salts = np.arange(4, dtype=np.uint64)
    draws = [Eden.draw(salts, 1, seed, round).flips for seed, round in ((0, 1), (0, 2), (1, 1))]
    assert len({bytes(row) for flips in draws for row in flips.numpy()}) == 12
    assert torch.equal(Eden.draw(salts[2:3], 1, 0, 1).flips, draws[0][2:3])


def test_a_client_that_diverged_adds_nothing_in_codes_too() -> None:
    fitted = ClientUpdates({"a": torch.tensor([[0.5], [torch.nan], [0.25]])}, torch.tensor([1.0, 2.0, torch.inf]))
    found = clip_and_sum(fitted, 1, 1.0, Eden.draw(np.arange(3, dtype=np.uint64), 8, 0, 1))
    assert found.deltas["a"].tolist() == pytest.approx([0.5], rel=0.02)
    assert (found.users, found.sums) == (3, {"loss": 1.0, "learners": 3.0, "clipped": 0.0, "diverged": 2.0})
    alone = ClientUpdates({"a": torch.tensor([[torch.nan]])}, torch.tensor([1.0]))
    sent = clip_and_sum(alone, 1, 1.0, Eden.draw(np.arange(1, dtype=np.uint64), 1, 0, 1))
    assert sent.codes is not None
    assert sent.deltas["a"].tolist() == [0]


@pytest.mark.parametrize("bits", BITS)
def test_codes_survive_the_wire_exactly(bits: int) -> None:
    sent, like = lone(bits)
    content = wire.encode_update(sent)
    received = wire.decode_update(content, like, bits)
    for name, tensor in sent.deltas.items():
        assert torch.equal(received.deltas[name], tensor), name
    assert float(norms({name: tensor.unsqueeze(0) for name, tensor in received.deltas.items()})) <= 1 + 1e-6
    assert sum(len(value) for value in content["codes"].values()) == 3 * 1024 * bits // 8 + 3 * 4 + 1024 // 8  # type: ignore[arg-type]


def test_updates_of_several_users_travel_as_numbers() -> None:
    a, b = (lone(1, seed)[0] for seed in (0, 1))
    assert a.codes is not None
    assert (a + b).codes is None
    assert "deltas" in wire.encode_update(a + b)


def test_what_a_client_sends_in_a_round(toy: Path, model: TwoTowerModel) -> None:
    """The levels; 4 bytes of scale for each row of 1,024; a bit for each sign of a row; and the names around them."""
    adapter = model.adapter()
    count = sum(tensor.numel() for tensor in adapter.values())
    assert count_rows({name: tensor.shape for name, tensor in adapter.items()}) == count / WIDTH == 9
    for bits in BITS:
        sent = bytes_up(toy, model, bits)
        assert sent == pytest.approx(uplink_bytes(adapter, bits), abs=8), (
            "the varying part is the length of numbers as text"
        )
        assert count * bits / 8 + 9 * 4 + 128 < sent < count * bits / 8 + 9 * 4 + 128 + 200
    assert bytes_up(toy, model, 32) > 4 * count


def bytes_up(data: Path, model: TwoTowerModel, bits: int) -> int:
    """What a node of one user answers, trained and encoded."""
    node = Node.open(data, small_config(bits=bits))
    update = node.train(Order(round=1, users=np.array([0]), clip=node.config.clip), model.adapter())
    return wire.payload_bytes(wire.encode_update(update))


def damaged(change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Tamper:
    def tamper(reply: Message) -> Message:
        parts: dict[str, bytes] = dict(reply.content.config_records["codes"])  # type: ignore[arg-type]
        reply.content["codes"] = ConfigRecord(parts | change(parts))  # type: ignore[arg-type]
        return reply

    return tamper


def scaled(value: float) -> Tamper:
    return damaged(lambda parts: {"scales": np.full(len(parts["scales"]) // 4, value, dtype="<f4").tobytes()})


def as_numbers(reply: Message, model: TwoTowerModel) -> Message:
    update = wire.decode_update(reply.content, model.adapter(), 1)
    reply.content = wire.encode_update(replace(update, codes=None))
    return reply


def without_scales(reply: Message) -> Message:
    del reply.content.config_records["codes"]["scales"]
    return reply


REFUSED: dict[str, tuple[Tamper, str]] = {
    "cut short": (damaged(lambda parts: {"levels": parts["levels"][:-1]}), "bytes where"),
    "other bits": (damaged(lambda parts: {"levels": 2 * parts["levels"]}), "bytes where"),
    "other rows": (damaged(lambda parts: {"scales": parts["scales"][4:]}), "bytes where"),
    "few flips": (damaged(lambda parts: {"flips": b"0"}), "bytes where"),
    "more": (damaged(lambda parts: {"more": b"0"}), "bytes where"),
    "less": (without_scales, "bytes where"),
    "no bytes": (damaged(lambda parts: {"levels": 7}), "cannot be decoded"),  # type: ignore[dict-item]
    "nan": (scaled(math.nan), "not finite"),
    "infinite": (scaled(math.inf), "not finite"),
    "too long": (scaled(1.0), "a sum of length"),
    "far too long": (scaled(3e38), "not finite"),
}


@pytest.mark.parametrize("fault", [*REFUSED, "numbers"])
def test_bad_codes_are_refused_and_counted(toy: Path, model: TwoTowerModel, tmp_path: Path, fault: str) -> None:
    config = small_config(rounds=1, nodes=12, clients_per_round=12, bits=1)
    tamper, said = REFUSED.get(fault, (lambda reply: as_numbers(reply, model), "without codes"))
    state = trained(unreliable(toy, config, tamper), config, model, tmp_path / "bad")
    (record,) = round_log.read(tmp_path / "bad")
    assert (record["clients_asked"], record["clients_answered"], record["clients_refused"]) == (12, 11, 1)
    assert "node 2" in record["refusals"][0]
    assert said in record["refusals"][0]
    silent = trained(unreliable(toy, config, lambda reply: None), config, model, tmp_path / "silent")
    assert all(torch.equal(tensor, state.adapter[name]) for name, tensor in silent.adapter.items())


def test_codes_are_refused_where_nobody_asked_for_them(toy: Path, model: TwoTowerModel, tmp_path: Path) -> None:
    def in_codes(reply: Message) -> Message:
        change = {name: 1e-3 * tensor.unsqueeze(0) for name, tensor in model.adapter().items()}
        sums = wire.decode_update(reply.content).sums
        update = clip_and_sum(
            ClientUpdates(change, torch.ones(1)), 1, 1.0, Eden.draw(np.array([1], dtype=np.uint64), 8, 0, 1)
        )
        reply.content = wire.encode_update(replace(update, sums=sums))
        return reply

    config = small_config(rounds=1, nodes=12, clients_per_round=12)
    trained(unreliable(toy, config, in_codes), config, model, tmp_path)
    assert "node 2" in round_log.read(tmp_path)[0]["refusals"][0]


def test_eight_bits_learn_nearly_what_all_bits_learn(toy: Path, model: TwoTowerModel, tmp_path: Path) -> None:
    start = model.adapter()
    moved = {}
    for bits in (1, 8, 32):
        config = small_config(rounds=1, clients_per_round=12, optimizer="fedavg", server_rate=1.0, bits=bits)
        state = trained(LocalGrid.over(TrainingSetup(Dataset.open(toy), config)), config, model, tmp_path / str(bits))
        moved[bits] = torch.cat([(state.adapter[name] - start[name]).flatten() for name in start])
    near, far = (float((moved[bits] - moved[32]).norm() / moved[32].norm()) for bits in (8, 1))
    assert near < 0.02 < far < 0.7


def test_a_resumed_run_draws_the_same_rotations(toy: Path, model: TwoTowerModel, tmp_path: Path) -> None:
    config = small_config(rounds=4, bits=1, schedule="constant")
    whole = trained(LocalGrid.over(TrainingSetup(Dataset.open(toy), config)), config, model, tmp_path / "whole")
    trained(
        LocalGrid.over(TrainingSetup(Dataset.open(toy), config)), replace(config, rounds=2), model, tmp_path / "halves"
    )
    half, grid = State.load(tmp_path / "halves"), LocalGrid.over(TrainingSetup(Dataset.open(toy), config))
    assert half is not None
    roster = take_census(grid, config, toy_stamp())
    resumed = run(grid, roster, half, config, RoundLog(tmp_path / "halves"))
    assert all(torch.equal(tensor, resumed.adapter[name]) for name, tensor in whole.adapter.items())


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"bits": 9}, "bits = 9: value error, choose 1 to 8, or 32"),
        ({"bits": "0"}, "choose 1 to 8"),
        ({"bits": 16}, "choose 1 to 8"),
        ({"bits": 4, "mode": "central"}, "leave bits at 32"),
    ],
)
def test_bits_that_cannot_be_are_refused(table: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_flat(table)


@pytest.mark.cuda
def test_a_gpu_decodes_to_the_same_bits() -> None:
    update, like = lone(4)
    assert update.codes is not None
    moved = CompressedUpdate(
        update.codes.coding.to(torch.device("cuda")), update.codes.levels.cuda(), update.codes.scales.cuda()
    )
    for name, tensor in moved.total({name: t.shape for name, t in like.items()}).items():
        assert torch.equal(tensor, update.deltas[name]), name


def test_a_row_is_a_square_of_its_side() -> None:
    assert SIDE**2 == WIDTH == 2**10
