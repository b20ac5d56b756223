"""The bound on exposure: an adapter that shows an item to everybody is brought within it, and others are left alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.attacks.crafting import scale_to, slope_of
from benchmarks.attacks.poisoned_run import target_of
from benchmarks.attacks.world import World
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.federation.clipping import norms
from fedrec.federation.config import from_flat
from fedrec.federation.exposure import FACTOR, INVENTED, ExposureBound, correction_of
from fedrec.federation.node import Node
from fedrec.federation.rounds import Correction, keep
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.model.lora import Adapter
from tests.support.lab import small_world
from tests.support.toy_world import small_config

EXPOSURE = 0.1


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def bound(world: World) -> ExposureBound:
    return ExposureBound.of(world.setup(world.configure(settings={"exposure": EXPOSURE})))


def promoted(world: World, target: int, correct: Correction = keep) -> Adapter:
    """The start of a run, moved along the gradient of a target's probability for ten users, and corrected each time."""
    node = world.node(world.config)
    histories = [node.shard.history(user, "train") for user in range(10)]
    adapter = node.setup.method.adapter()
    for number in range(12):
        step = scale_to(slope_of(node, adapter, target, histories), 0.05)
        adapter = correct({name: tensor + step[name].float() for name, tensor in adapter.items()}, number)
    return adapter


def distance(a: Adapter, b: Adapter) -> float:
    return float(norms({name: (tensor - b[name]).unsqueeze(0) for name, tensor in a.items()}))


def test_the_bound_of_an_item_by_hand(world: World, bound: ExposureBound) -> None:
    """Ten times the item's share of all popularity, times the factor, or the setting if that is more."""
    share = world.popularity / world.popularity.sum()
    assert bound.histories.shape[0] == INVENTED
    assert bound.most.numpy() == pytest.approx(INVENTED * np.maximum(EXPOSURE, FACTOR * 10 * share))
    counts = np.bincount(bound.histories.numpy().ravel(), minlength=len(share))
    assert np.corrcoef(counts, share)[0, 1] > 0.8, "invented users have what is popular"
    assert not counts[share == 0].any()


def test_a_promoted_item_is_brought_within_its_bound(world: World, bound: ExposureBound) -> None:
    target = target_of(world, "dead")

    def share_shown(adapter: Adapter) -> float:
        return float(bound.show(adapter)[:, target].float().mean())

    assert share_shown(promoted(world, target)) > 0.5, "the attack works"
    assert share_shown(promoted(world, target, bound.apply)) <= EXPOSURE


def test_an_adapter_within_its_bounds_is_left_alone(world: World) -> None:
    setup = world.setup(world.configure(settings={"exposure": 1.0}))
    adapter = setup.method.adapter()
    assert ExposureBound.of(setup).apply(adapter, 1) is adapter


def test_without_the_setting_nothing_is_corrected(world: World) -> None:
    adapter = promoted(world, target_of(world, "dead"))
    assert correction_of(world.setup(world.config))(adapter, 1) is adapter


def test_a_run_is_the_same_anywhere_and_another_without_the_bound(world: World) -> None:
    """To the bit: the bound depends on the adapter and the public catalogue alone."""
    config = world.configure(settings={"rounds": 2, "validate_every": 2, "exposure": 0.01})
    setup = world.setup(config)
    one, three = (
        world.train([Node.host(setup, part, nodes) for part in range(nodes)], config, f"{nodes}").adapter
        for nodes in (1, 3)
    )
    assert all(torch.equal(tensor, three[name]) for name, tensor in one.items())
    free = replace(config, server=replace(config.server, exposure=0.0))
    assert distance(one, world.train([world.node(free)], free, "free").adapter) > 0


def test_without_popularity_a_bound_is_refused(toy: Path) -> None:
    config = small_config(exposure=0.1)
    with pytest.raises(InputError, match=r"exposure = 0\.1: the catalogue has no popularity"):
        correction_of(TrainingSetup(Dataset.open(toy), config))


@pytest.mark.parametrize("method", ["closed-form", "fedmf"])
def test_without_towers_a_bound_is_refused(method: str) -> None:
    with pytest.raises(InputError, match=f"exposure = 0.1: it bounds what the towers show, and {method} has none"):
        from_flat({"method": method, "exposure": 0.1})


def test_it_goes_with_secure_aggregation_and_with_noise() -> None:
    assert from_flat({"exposure": 0.1, "secure": True, "nodes": 3}).server.exposure == 0.1
    assert from_flat({"exposure": 0.1, "epsilon": 8.0}).server.exposure == 0.1
