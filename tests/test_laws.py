"""The laws that everything else stands on: alone, anywhere, private."""

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.shard import Cohort, Shard
from fedrec.federation import wire
from fedrec.federation.census import take_census
from fedrec.federation.checkpoint import State
from fedrec.federation.clipping import clip_and_sum, norms
from fedrec.federation.compression.eden import Eden, encode
from fedrec.federation.config import RunConfig
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.round_log import RoundLog
from fedrec.federation.rounds import run
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.hardware import parallel_map
from fedrec.recsys.model.two_tower import Model
from fedrec.recsys.training.local_training import ClientUpdates, FitConfig, train_clients
from tests.support.recorder import Recorder, bytes_of
from tests.support.toy_world import small_config, toy_stamp


def trained(data: Path, config: RunConfig, model: Model, folder: Path) -> State:
    grid = LocalGrid.over(TrainingSetup(Dataset.open(data), config))
    start = State.start(model.adapter(), config.server)
    folder.mkdir()
    return run(grid, take_census(grid, config, toy_stamp()), start, config, RoundLog(folder))


@pytest.mark.parametrize(("steps", "forget"), [(1, 0.0), (3, 0.3)])
@pytest.mark.parametrize("size", [2, 5, 64])
def test_alone(
    model: Model, bent: dict[str, Tensor], shard: Shard, embeddings: Tensor, steps: int, forget: float, size: int
) -> None:
    """A client in a cohort gets, to the bit, what the same client gets alone."""
    config = FitConfig(local_steps=steps, event_dropout=forget, dropout=forget, negatives=16, precision="float32")

    def trained(block: Cohort) -> ClientUpdates:
        return train_clients(model, bent, block, embeddings, config, (0, 1))

    clients, blocks = zip(*shard.crops(range(12), 9, 0, 1).blocks(1000, size), strict=True)
    together = {}
    for places, part in zip(clients, parallel_map(trained, blocks), strict=True):
        for place, client in enumerate(places):
            together[int(client)] = ({name: tensor[place] for name, tensor in part.deltas.items()}, part.losses[place])
    assert sorted(together) == list(range(12))
    lone = (block for user in range(12) for _, block in shard.crops([user], 9, 0, 1).blocks(1000, 1))
    for user, alone in enumerate(parallel_map(trained, lone)):
        deltas, loss = together[user]
        assert torch.equal(alone.losses[0], loss)
        for name, delta in deltas.items():
            assert torch.equal(alone.deltas[name][0], delta), name
        assert any(delta.any() for delta in deltas.values())


@pytest.mark.parametrize("optimizer", ["fedadam", "fedavgm"])
def test_anywhere(toy: Path, model: Model, tmp_path: Path, optimizer: str) -> None:
    """The same users on 1, 3 or 12 nodes give the same model, to the bit."""
    config = small_config(optimizer=optimizer)
    one, *others = (trained(toy, replace(config, nodes=n), model, tmp_path / str(n)) for n in (1, 3, 12))
    assert any(not torch.equal(tensor, model.adapter()[name]) for name, tensor in one.adapter.items())
    for other in others:
        for name, tensor in one.adapter.items():
            assert torch.equal(tensor, other.adapter[name]), name
            assert torch.equal(one.best[name], other.best[name]), name
        assert (other.best_round, other.best_score) == (one.best_round, one.best_score)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_anywhere_in_few_bits(toy: Path, model: Model, tmp_path: Path, bits: int) -> None:
    """A change coded and decoded on its node is, to the bit, what the server decodes of a node of one user."""
    config = small_config(rounds=2, bits=bits)
    one, three, twelve = (trained(toy, replace(config, nodes=n), model, tmp_path / str(n)) for n in (1, 3, 12))
    plain = trained(toy, replace(config, bits=32), model, tmp_path / "plain")
    for name, tensor in one.adapter.items():
        assert torch.equal(tensor, three.adapter[name]), name
        assert torch.equal(tensor, twelve.adapter[name]), name
    assert any(not torch.equal(tensor, plain.adapter[name]) for name, tensor in one.adapter.items())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    bits=st.integers(1, 8),
    clients=st.integers(2, 6),
    length=st.integers(1, 3000),
    scale=st.floats(1e-6, 1e6),
)
def test_alone_in_few_bits(seed: int, bits: int, clients: int, length: int, scale: float) -> None:
    """A client's codes, and what they are decoded to, are the same in any company."""
    generator = torch.Generator().manual_seed(seed)
    deltas = {"b": scale * torch.randn(clients, length, generator=generator), "a": torch.randn(clients, 2, 3)}
    salts = np.arange(clients, dtype=np.uint64)
    codes, lengths = encode(deltas, Eden.draw(salts, bits, seed, 1))
    decoded = torch.cat(list(codes.decode()))
    for client in range(clients):
        one = slice(client, client + 1)
        lone, length_alone = encode({n: t[one] for n, t in deltas.items()}, Eden.draw(salts[one], bits, seed, 1))
        assert torch.equal(lone.levels, codes.levels[one])
        assert torch.equal(lone.scales, codes.scales[one])
        assert torch.equal(length_alone, lengths[one])
        assert torch.equal(next(lone.decode()), decoded[one])


def test_another_seed_is_another_model(toy: Path, model: Model, tmp_path: Path) -> None:
    a, b = (trained(toy, small_config(seed=seed, rounds=1), model, tmp_path / str(seed)) for seed in (0, 1))
    assert any(not torch.equal(tensor, b.adapter[name]) for name, tensor in a.adapter.items())


@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy])
def test_private_a_shard_cannot_be_sent(shard: Shard, send) -> None:
    with pytest.raises(TypeError, match="private"):
        send(shard)


def test_private_a_traceback_shows_no_history(shard: Shard) -> None:
    assert repr(shard) == "Shard()"
    assert repr(shard.crops([0, 1], 8, 0, 1)) == "Cohort()"


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    clip=st.floats(0.01, 10),
    scale=st.floats(1e-6, 1e6),
    clients=st.integers(1, 5),
    bits=st.sampled_from([1, 2, 3, 5, 8, 32]),
)
def test_private_one_user_moves_the_sum_by_at_most_the_clip(
    seed: int, clip: float, scale: float, clients: int, bits: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    deltas = {name: scale * torch.randn(clients, *shape, generator=generator) for name, shape in SHAPES.items()}
    everyone, fewer = (
        clip_and_sum(
            ClientUpdates({name: tensor[first:] for name, tensor in deltas.items()}, torch.zeros(clients - first)),
            1,
            clip,
            Eden.draw(np.arange(first, clients, dtype=np.uint64), bits, seed, 1) if bits < 32 else None,
        )
        for first in (0, 1)
    )
    moved = {name: (everyone.deltas[name] - fewer.deltas[name]).unsqueeze(0) for name in SHAPES}
    assert float(norms(moved)) <= clip * (1 + 1e-6) + 1e-8


SHAPES = {"a": (3, 4), "b": (5,)}


@pytest.mark.parametrize(("nodes", "bits"), [(3, 32), (12, 1)])
def test_private_nothing_sent_holds_an_id(
    toy: Path, model: Model, catalogue: Catalogue, shard: Shard, tmp_path: Path, nodes: int, bits: int
) -> None:
    """No message of a whole run holds an item id, a user id, a salt, or anything as long as the catalogue."""
    config = small_config(rounds=2, nodes=nodes, bits=bits)
    grid = Recorder.over(TrainingSetup(Dataset.open(toy), config))
    grid.crossed = []
    start = State.start(model.adapter(), config.server)
    run(grid, take_census(grid, config, toy_stamp()), start, config, RoundLog(tmp_path))
    secrets = [item_id.encode() for item_id in catalogue.ids]
    secrets += [b"person-", *(int(salt).to_bytes(8, order) for salt in shard.salts for order in ("little", "big"))]
    assert len(grid.crossed) >= 2 * 3 + 2 * 2
    assert sum(wire.payload_bytes(message.content) for message in grid.crossed) > 10_000
    for message in grid.crossed:
        payload = b"".join(bytes_of(message))
        assert not [secret for secret in secrets if secret in payload]
        for record in message.content.array_records.values():
            assert all(len(catalogue) not in array.shape for array in record.values())
