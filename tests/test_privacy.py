"""Differential privacy in a run: one user's influence is bounded, noise and ledger come before use, and a canary audit
finds no more than is claimed."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.federation.clipping import clip_and_sum, norms
from fedrec.federation.config import from_flat, to_flat
from fedrec.federation.messages import Order, Update
from fedrec.federation.node import Node
from fedrec.federation.privacy.accounting import Releases
from fedrec.federation.privacy.audit import audit_release, draw_canaries
from fedrec.federation.privacy.ledger import Ledger
from fedrec.federation.privatise import Privatiser, add_noise
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.closed_form.norm_bounds import NormBounds, norm
from fedrec.recsys.exact_sum import GRID
from fedrec.recsys.training.closed_form import ClosedFormMethod
from fedrec.recsys.training.local_training import ClientUpdates
from tests.support.privacy import PRIVATE, planned
from tests.support.toy_world import shard_of, small_config


def privatiser(folder: Path, ledger: Ledger, **changes: object) -> Privatiser:
    ledger.save(folder)
    return Privatiser.open(folder, small_config(**PRIVATE, **changes))


# ---- sensitivity


@settings(max_examples=40, deadline=None)
@given(
    scale=st.floats(1e-6, 1e6),
    clip=st.floats(1e-3, 100),
    numbers=st.integers(1, 300),
    kind=st.sampled_from(["normal", "one", "equal", "not a number"]),
)
def test_one_user_moves_the_sum_of_changes_by_at_most_the_sensitivity(
    scale: float, clip: float, numbers: int, kind: str
) -> None:
    """The noise is for `release_round`'s `longest`: clip · (1 + 2⁻¹⁶) + √numbers · 2⁻³³."""
    generator = torch.Generator().manual_seed(numbers)
    changes = torch.randn(3, numbers, generator=generator)
    changes[2] = {
        "normal": torch.randn(numbers, generator=generator),
        "one": torch.eye(numbers)[0],
        "equal": torch.ones(numbers),
        "not a number": torch.full((numbers,), math.nan),
    }[kind]
    changes[2] *= scale
    with_user, without = (
        clip_and_sum(ClientUpdates({"a": changes[:users]}, torch.ones(users)), 1, clip).deltas["a"] for users in (3, 2)
    )
    moved = float((with_user - without).norm())
    assert moved <= clip * (1 + 2.0**-16) + math.sqrt(numbers) / (2 * GRID)


HISTORIES = st.lists(st.lists(st.integers(0, 23), max_size=40), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(histories=HISTORIES, own=st.lists(st.integers(0, 23), max_size=60), features=st.sampled_from(["pairs", "text"]))
def test_one_user_moves_the_statistics_by_at_most_the_clip(
    histories: list[list[int]], own: list[int], features: str
) -> None:
    method = method_over(features, clip=0.7)
    everyone = shard_of([*histories, own])
    users = np.arange(len(histories) + 1)
    with_user, without = (method.sum_users(everyone, some).statistics for some in (users, users[:-1]))
    bounds = method.clipped
    assert bounds
    moved = {name: tensor - without[name] for name, tensor in with_user.items()}
    assert norm(moved) <= bounds.longest
    bounds.check(with_user, len(users))  # and the server accepts the sums


def method_over(features: str, clip: float = 0.0) -> ClosedFormMethod:
    """A closed form over 24 random texts."""
    texts = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    config = small_config(features=features, feature_width=12, pair_neighbours=5, reverse=0.5).closed_form
    return ClosedFormMethod(texts, np.arange(24), config, 0, 0, clip=clip)


def test_a_users_statistics_are_clipped_jointly() -> None:
    """Half of the clip for each of two tensors: their joint norm is 5, so that both are scaled by 1/5."""
    bounds = NormBounds.clipped({"a": torch.Size([1]), "b": torch.Size([1])}, 1.0)
    clipped = bounds.clip({"a": torch.tensor([3.0]).double(), "b": torch.tensor([-4.0]).double()})
    assert float(clipped["a"]) == pytest.approx(0.6, abs=1e-8)
    assert float(clipped["b"]) == pytest.approx(-0.8, abs=1e-8)
    assert norm(clipped) <= 1


# ---- releases


def total_of(numbers: int, users: int = 10, clipped: float = 0.0) -> Update:
    sums = {"loss": 1.0, "learners": 9.0, "clipped": clipped, "diverged": 0.0}
    return Update(1, users, {"a": torch.zeros(numbers, dtype=torch.float64)}, sums)


def test_a_round_is_released_with_noise_of_the_clip_and_without_other_numbers(tmp_path: Path) -> None:
    released, next_clip = privatiser(tmp_path, planned(noise=2.0)).release_round(total_of(20_000), 0.5, {})
    assert released
    assert float(released.deltas["a"].std()) == pytest.approx(2.0 * 0.5, rel=0.03)
    multiples = released.deltas["a"] * GRID
    assert torch.equal(multiples, multiples.round())
    assert released.sums == {"learners": 10.0}, "a tenth of 100 users is expected, whoever was drawn"
    assert next_clip == 0, "as in the settings"


def test_nobody_drawn_is_released_as_noise(tmp_path: Path) -> None:
    released, _ = privatiser(tmp_path, planned()).release_round(None, 1.0, {"a": torch.zeros(50)})
    assert released
    assert (released.deltas["a"] != 0).all()


def test_without_a_guarantee_everything_is_handed_on(tmp_path: Path) -> None:
    total = total_of(5)
    assert Privatiser.open(tmp_path, small_config()).release_round(total, 1.0, {}) == (total, 0.0)


@pytest.mark.parametrize(("clipped", "grows"), [(0.0, False), (1.0, True)])
def test_the_clip_follows_its_quantile(tmp_path: Path, clipped: float, grows: bool) -> None:
    """With all changes below the clip it falls, by at most e^(-0.2 · 0.5); with all above, it grows."""
    cohort = 10_000
    private = privatiser(tmp_path, planned(population=10 * cohort), clip_quantile=0.5, clip=4.0)
    total = total_of(3, users=cohort, clipped=clipped * cohort)
    _, next_clip = private.release_round(total, 1.0, {})
    expected = math.exp(0.2 * 0.5) if grows else math.exp(-0.2 * 0.5)
    assert next_clip == pytest.approx(expected, rel=0.06)


def test_the_clip_never_exceeds_that_of_the_settings(tmp_path: Path) -> None:
    private = privatiser(tmp_path, planned(population=100_000), clip_quantile=0.9, clip=1.0)
    assert private.release_round(total_of(3, users=10_000, clipped=10_000), 1.0, {})[1] <= 1.0


def test_statistics_are_released_once(tmp_path: Path) -> None:
    bounds = NormBounds.clipped({"a": torch.Size([20_000])}, 0.5)
    private = privatiser(tmp_path, planned(noise=2.0, population=77))
    released = private.release_statistics(total_of(20_000), bounds)
    assert private.deviation(bounds) == 2.0 * 0.5
    assert float(released.deltas["a"].std()) == pytest.approx(1.0, rel=0.03)
    assert (released.users, released.sums) == (77, {"learners": 77.0})
    with pytest.raises(InputError, match="counts the closed form's sums as released already"):
        private.release_statistics(total_of(20_000), bounds)


# ---- the audit

SURE = 1 - 1e-6
"""The confidence of a bound. The noise is another in each test: at 95 %, one audit in twenty would fail."""


@pytest.mark.parametrize("seed", range(5))
def test_a_canary_audit_finds_no_more_than_is_claimed(tmp_path: Path, seed: int) -> None:
    """Both halves: 100 of 1,000 users are canaries. Without noise, the same audit finds far more than the claim."""
    numbers, delta = 20_000, 1e-3
    generator = np.random.default_rng(seed)
    canaries = draw_canaries(100, numbers, 1.0, generator)
    others = draw_canaries(100, numbers, 1.0, generator).sum(0)
    total = torch.from_numpy(np.round((canaries.sum(0) + others) * 2**30) / 2**30)
    bounds = NormBounds.clipped({"a": torch.Size([numbers])}, 1.0)
    claim = Releases(1, 1.0, 1.2, 0, 0.0).spent(delta)
    private = privatiser(tmp_path, replace(planned(noise=1.2), plan=Releases(1, 1.0, 1.2, 1, 1.2)))
    update = Update(1, 200, {"a": total}, {"clipped": 0.0})
    round_of_towers, _ = private.release_round(update, 1.0, {})
    statistics = private.release_statistics(update, bounds)
    assert round_of_towers
    for released in (round_of_towers, statistics):
        assert audit_release(released.deltas["a"].numpy(), canaries, delta, SURE) <= claim
    assert audit_release(total.numpy(), canaries, delta, SURE) > 2 * claim, "the control, without noise"


def test_noise_is_as_wide_as_asked() -> None:
    noised = add_noise({"a": torch.zeros(20_000)}, deviation=3.0, unit=0.25)["a"]
    assert float(noised.std()) == pytest.approx(3.0, rel=0.03)
    assert torch.equal(noised * 4, (noised * 4).round())


def test_norms_of_the_clipped_are_those_of_the_release(toy: Path) -> None:
    """What a node answers for one user is as long as the sensitivity at most, whatever the clip."""
    node = Node.host(TrainingSetup(Dataset.open(toy), small_config(clip=1e-4)))
    answer = node.train(Order(1, np.array([3]), 1e-4), node.setup.method.adapter())
    length = float(norms({name: tensor.unsqueeze(0) for name, tensor in answer.deltas.items()})[0])
    numbers = sum(tensor.numel() for tensor in answer.deltas.values())
    assert 0 < length <= 1e-4 * (1 + 2.0**-16) + math.sqrt(numbers) / (2 * GRID)


# The default model under noise.


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        ({}, ("hybrid", "text")),
        ({"epsilon": 0}, ("hybrid", "text")),
        ({"epsilon": "8"}, ("closed-form", "pairs")),
        ({"epsilon": 8.0, "features": "text"}, ("closed-form", "text")),
        ({"epsilon": 8.0, "method": "closed-form"}, ("closed-form", "pairs")),
        ({"epsilon": 8.0, "method": "hybrid"}, ("hybrid", "text")),
        ({"epsilon": 8.0, "method": "fedrec"}, ("fedrec", "text")),
    ],
)
def test_with_noise_the_default_is_the_model_that_it_hurts_least(
    settings: dict[str, Any], model: tuple[str, str]
) -> None:
    config = from_flat(settings)
    assert (config.method, config.closed_form.features) == model
    assert from_flat(to_flat(config)) == config


def test_a_refusal_of_the_default_under_noise_says_that_it_is_one() -> None:
    with pytest.raises(
        InputError, match=r"setting mode.*\(with epsilon, features = 'pairs' and method = .* unless you"
    ):
        from_flat({"epsilon": 8.0, "mode": "central"})
    with pytest.raises(InputError, match="setting mode") as plain:
        from_flat({"epsilon": 8.0, "mode": "central", "method": "fedrec"})
    assert "unless" not in str(plain.value)


def test_an_epsilon_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="setting epsilon = 'much'"):
        from_flat({"epsilon": "much"})
