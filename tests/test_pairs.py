"""Features `pairs`: counts by hand, the same to the bit in any grouping, shrinkage, and a run that serves them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedrec.data.errors import InputError
from fedrec.federation.config import RunConfig
from fedrec.recsys.closed_form import pairs
from fedrec.recsys.closed_form.config import MAX_ITEMS, ClosedFormConfig, check_catalogue
from fedrec.recsys.closed_form.contexts import DecayKernel
from fedrec.recsys.closed_form.norm_bounds import NormBounds
from fedrec.recsys.closed_form.pairs import PAIRS, PairGate, PairSums, PairWeights, pair_bounds, shrink
from fedrec.recsys.closed_form.statistics import sum_statistics
from tests.support.toy_world import begun, small_config

KERNEL = DecayKernel(0.5)


def ring(items: int = 6, neighbours: int = 2) -> PairGate:
    """Texts on a circle: each item is counted with the items beside it."""
    angles = torch.arange(items, dtype=torch.float64) * 2 * torch.pi / items
    return PairGate.by_text(torch.stack([angles.cos(), angles.sin()], dim=1), neighbours)


def counts_of(gate: PairGate, *histories: list[int], clipped: NormBounds | None = None) -> dict[tuple[int, int], float]:
    """The counts that are not zero, by the two items."""
    found = sum_statistics(PairSums(gate, KERNEL, clipped), [np.array(h, dtype=np.int64) for h in histories])[PAIRS]
    first, second = gate.ends
    return {(int(first[p]), int(second[p])): float(found[p]) for p in torch.nonzero(found).flatten()}


def test_each_item_is_paired_with_its_nearest_by_text() -> None:
    gate = ring()
    assert list(zip(*map(np.ndarray.tolist, gate.ends), strict=True)) == [
        (0, 1), (0, 5), (1, 2), (2, 3), (3, 4), (4, 5)
    ]  # fmt: skip
    assert gate.likeness == pytest.approx(np.full(6, 0.5), abs=1e-6)
    assert gate.find(np.array([1, 5, 0]), np.array([0, 0, 3])).tolist() == [0, 1, -1]


def test_a_pair_counts_by_its_distance() -> None:
    """0 and 1 are beside each other; 1 and 2 have one event between them: γ = 1/2; 0 and 3 are not counted."""
    assert counts_of(ring(), [0, 1, 3, 2]) == {(0, 1): 1.0, (1, 2): 0.5, (2, 3): 1.0}


def test_a_pair_counts_once_at_its_closest() -> None:
    assert counts_of(ring(), [0, 3, 1, 0, 0, 1]) == {(0, 1): 1.0}


def test_orders_of_a_pair_are_one() -> None:
    assert counts_of(ring(), [1, 0], [0, 1]) == {(0, 1): 2.0}


def test_a_users_counts_are_clipped_together() -> None:
    """Four pairs of weight 1: a norm of 2, so that each counts a half."""
    clipped = pair_bounds(ring(), KERNEL, 100, 1.0)
    found = counts_of(ring(), [0, 1, 2, 3, 4], clipped=clipped)
    assert found == {pair: pytest.approx(0.5, abs=1e-8) for pair in [(0, 1), (1, 2), (2, 3), (3, 4)]}


@pytest.mark.parametrize("clip", [0.0, 0.6])
def test_counts_are_the_same_in_any_grouping(clip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    vectors = torch.nn.functional.normalize(torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    gate, kernel = PairGate.by_text(vectors, 6), DecayKernel(0.8)
    clipped = pair_bounds(gate, kernel, 300, clip) if clip else None
    histories = [generator.integers(0, 40, length) for length in (0, 1, 2, 9, 200, 30, 5)]
    together = sum_statistics(PairSums(gate, kernel, clipped), histories)[PAIRS]
    monkeypatch.setattr(pairs, "EVENTS", 7)
    apart = sum(sum_statistics(PairSums(gate, kernel, clipped), [h])[PAIRS] for h in reversed(histories))
    assert isinstance(apart, torch.Tensor)
    assert torch.equal(together, apart)


def test_sums_that_no_users_have_are_refused() -> None:
    bounds = pair_bounds(ring(), KERNEL, 100, 1.0)
    with pytest.raises(ValueError, match="3 users have at most 3"):
        bounds.check({PAIRS: torch.full((6,), 2.0, dtype=torch.float64)}, 3)
    with pytest.raises(ValueError, match="not whole multiples"):
        bounds.check({PAIRS: torch.full((6,), 2.0**-40, dtype=torch.float64)}, 3)


def test_counts_go_to_the_mean_as_noise_grows() -> None:
    generator = np.random.default_rng(0)
    rates = generator.gamma(0.5, 40.0, 8000)
    likeness, counts = generator.random(8000), generator.poisson(rates).astype(float)
    errors = []
    for deviation in (0.0, 20.0, 1000.0):
        noised = counts + deviation * generator.normal(size=8000)
        shrunken = shrink(torch.from_numpy(noised), likeness, deviation).numpy()
        errors.append(np.abs(shrunken - counts).mean())
        assert np.square(shrunken - rates).mean() <= np.square(noised - rates).mean(), "closer than the noised counts"
        assert (shrunken >= 0).all()
    assert errors[0] < 1 < errors[1] < errors[2]


def test_weights_without_counts_are_the_texts() -> None:
    gate = ring()
    table = PairWeights.of(gate, torch.zeros(6, dtype=torch.float64), 0.0).table(3.0)
    assert torch.equal(table, table.T)
    assert (table > 0).sum() == 12
    assert float(table[0, 1] - table[2, 3]) == pytest.approx(0, abs=1e-9)


def test_a_discount_divides_a_pair_by_the_popularity_of_both_items() -> None:
    """Of a ring with the weights 1 to 6, item 0 has 1 + 2 and item 1 has 1 + 3: the keys are (0, 1), (0, 5), (1, 2)."""
    weights = PairWeights(ring(), torch.arange(1.0, 7.0).double(), torch.zeros(6).double())
    plain, cosines = weights.table(0.0), weights.table(0.0, 0.5)
    assert plain[0].tolist() == [0, 1, 0, 0, 0, 2]
    assert float(cosines[0, 1]) == pytest.approx(1 / (3 * 4) ** 0.5)
    assert float(cosines[5, 0]) == pytest.approx(2 / (3 * float(plain[5].sum())) ** 0.5)
    assert torch.equal(weights.table(0.0, 0.0), plain)


def test_a_rare_item_is_not_blown_up_by_a_discount() -> None:
    """Without a count an item has no weight, and with hardly any it counts as one of a hundredth of the mean."""
    counts = torch.tensor([0.0, 0.0, 0.0, 1e-9, 100.0, 100.0], dtype=torch.float64)
    table = PairWeights(ring(), counts, torch.zeros(6).double()).table(0.0, 0.5)
    assert table.isfinite().all()
    assert float(table.max()) <= 100 / (0.01 * 400 / 6)
    assert not PairWeights(ring(), torch.zeros(6).double(), torch.zeros(6).double()).table(0.0, 0.5).any()


def test_a_table_over_too_many_items_is_refused() -> None:
    config = ClosedFormConfig(features="pairs")
    check_catalogue(config, MAX_ITEMS)
    with pytest.raises(InputError, match="features = 'pairs': sums over 8,193 items do not fit"):
        check_catalogue(config, MAX_ITEMS + 1)


def test_counts_are_not_sent_in_few_bits() -> None:
    with pytest.raises(InputError, match="sums over pairs are sent as they are"):
        small_config(method="closed-form", features="pairs", bits=4)


def pair_config(**changes: object) -> RunConfig:
    return small_config(method="closed-form", features="pairs", pair_neighbours=11, pair_priors="0,1", **changes)


def test_a_run_over_pairs_serves_what_it_measures(toy: Path, tmp_path: Path) -> None:
    """One node and three give the same model to the bit; cooks are shown cooking, pilots space."""
    one = begun(tmp_path / "one", toy, pair_config())
    three = begun(tmp_path / "three", toy, pair_config(nodes=3))
    assert one.closed_form
    assert three.closed_form
    assert torch.equal(one.closed_form.model.events, three.closed_form.model.events)
    scores = one.closed_form.model.score([np.array([0, 1]), np.array([12, 13])])
    assert set(scores[0].topk(4).indices.tolist()) <= set(range(12))
    assert set(scores[1].topk(4).indices.tolist()) <= set(range(12, 24))
