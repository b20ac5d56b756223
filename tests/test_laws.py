"""The laws that everything else stands on: alone, anywhere, private.

`MethodLaws` states them for any federated method; the federated baselines inherit them in their own test."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedrec.data.shard import Shard
from fedrec.federation.clipping import clip_and_sum, norms
from fedrec.federation.compression.eden import Eden, encode
from fedrec.federation.config import RunConfig
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.training.local_training import ClientUpdates, FitConfig
from fedrec.recsys.training.method import FederatedMethod, TwoTowerMethod
from tests.laws.method_laws import MethodLaws, train_run
from tests.support.toy_world import small_config

RUNS = [{"optimizer": "fedadam"}, {"optimizer": "fedavgm"}, *({"rounds": 2, "bits": bits} for bits in (1, 2, 4, 8))]


class TestTwoTowers(MethodLaws):
    """The project's own model, with every optimizer family, and with updates in few bits."""

    @pytest.fixture(params=[(1, 0.0), (3, 0.3)], ids=["one step", "three steps with dropout"])
    def method(self, request: pytest.FixtureRequest, model: TwoTowerModel, embeddings: Tensor) -> FederatedMethod:
        steps, share = request.param
        config = FitConfig(local_steps=steps, event_dropout=share, dropout=share, negatives=16, precision="float32")
        items = np.arange(len(embeddings))
        return TwoTowerMethod(model, embeddings, items, config, seed=0, pooled=False, held_out=2)

    @pytest.fixture
    def adapter(self, bent: dict[str, Tensor]) -> Adapter:
        return bent

    @pytest.fixture(params=RUNS, ids=str)
    def config(self, request: pytest.FixtureRequest) -> RunConfig:
        return small_config(**request.param)


def test_few_bits_give_another_model_than_all(toy: Path, tmp_path: Path) -> None:
    """Else the laws would hold in few bits because nothing is coded."""
    coded, plain = (train_run(toy, small_config(rounds=2, bits=n), tmp_path / str(n)) for n in (1, 32))
    assert any(not torch.equal(tensor, plain.adapter[name]) for name, tensor in coded.adapter.items())


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


def test_another_seed_is_another_model(toy: Path, tmp_path: Path) -> None:
    a, b = (train_run(toy, small_config(seed=seed, rounds=1), tmp_path / str(seed)) for seed in (0, 1))
    assert any(not torch.equal(tensor, b.adapter[name]) for name, tensor in a.adapter.items())


@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy])
def test_private_a_shard_cannot_be_sent(shard: Shard, send) -> None:
    with pytest.raises(TypeError, match="private"):
        send(shard)


def test_private_a_traceback_shows_no_history(shard: Shard) -> None:
    assert repr(shard) == "Shard()"
    assert repr(shard.training_windows([0, 1], 8, 0, 1)) == "Cohort()"


SHAPES = {"a": (3, 4), "b": (5,)}


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
