"""The closed form's mathematics: contexts and sums by hand, the same to the bit in any grouping, and scikit-learn's
ridge from the same contexts."""

from collections.abc import Callable
from math import cos

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.recsys.closed_form.bounds import SumBounds
from fedrec.recsys.closed_form.config import MAX_ITEMS, ClosedFormConfig, check_catalogue
from fedrec.recsys.closed_form.contexts import BLOCK, DecayKernel, KernelStack
from fedrec.recsys.closed_form.features import FourierFeatures, Whitening
from fedrec.recsys.closed_form.model import LinearModel
from fedrec.recsys.closed_form.packing import SCALE, pack, packed_shapes, unpack
from fedrec.recsys.closed_form.solve import RidgePath, decoding, target_gram
from fedrec.recsys.closed_form.statistics import (
    CROSS,
    GRAM,
    FeatureSums,
    ItemSums,
    Statistics,
    per_feature,
    sum_statistics,
)

ITEMS, WIDTH = 30, 12
STACKS = [
    KernelStack((0.5,)),
    KernelStack((0.8,)),
    KernelStack((0.0,)),
    KernelStack((0.9,), reverse=0.3),
    KernelStack((0.6, 0.95)),
    KernelStack((0.9, 0.0, 0.5), reverse=0.3),
]


@pytest.fixture(scope="module")
def histories() -> list[np.ndarray]:
    """Histories of many lengths: none, one event, more than a block, with repeated items."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, ITEMS, length) for length in (0, 1, 2, 3, 17, BLOCK, BLOCK + 1, 3 * BLOCK + 5, 40)]


@pytest.fixture(scope="module")
def features() -> Tensor:
    """Multiples of 1/128 in [-1, 1], as the feature map gives them: (N, M)."""
    return torch.randint(-128, 129, (ITEMS, WIDTH), generator=torch.Generator().manual_seed(1)) / 128


def by_loop(stack: KernelStack, histories: list[np.ndarray], phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The contexts (t, KM) and the targets (t,) of all events that have a context, event by event."""
    contexts, targets = [], []
    for history in histories:
        for t in range(len(history)):
            if len(history) > 1 and (t or stack.reverse):
                contexts.append(np.concatenate([context_by_loop(kernel, history, t, phi) for kernel in stack.kernels]))
                targets.append(history[t])
    return np.array(contexts), np.array(targets)


def context_by_loop(kernel: DecayKernel, history: np.ndarray, t: int, phi: np.ndarray) -> np.ndarray:
    """The context of event t: (M,)."""
    x = np.zeros(phi.shape[1])
    for s, item in enumerate(history):
        age = t - 1 - s if s < t else s - t - 1
        if s != t and age < kernel.reach:
            weight = round(kernel.decay**age * 1024) / 1024
            x += (weight if s < t else np.round(kernel.reverse * weight * 1024) / 1024) * phi[item]
    return x


def test_contexts_and_sums_of_a_toy() -> None:
    """One user, items 0, 1, 2, decay 1/2: the context before 1 is e0, and before 2 it is e0/2 + e1."""
    found = sum_statistics(ItemSums(3, KernelStack((0.5,))), [np.array([0, 1, 2])])
    assert found[GRAM].tolist() == [[1 + 0.25, 0.5, 0], [0.5, 1, 0], [0, 0, 0]]
    assert found[CROSS].tolist() == [[0, 1, 0.5], [0, 0, 1], [0, 0, 0]]


def test_contexts_from_both_sides_of_a_toy() -> None:
    """With reverse 1/2, the contexts of 0, 1 and 2 are e1/2 + e2/4, e0 + e2/2 and e0/2 + e1."""
    stack = KernelStack((0.5,), reverse=0.5)
    found = sum_statistics(ItemSums(3, stack), [np.array([0, 1, 2])])
    contexts = np.array([[0, 1 / 2, 1 / 4], [1, 0, 1 / 2], [1 / 2, 1, 0]])
    assert found[GRAM].tolist() == (contexts.T @ contexts).tolist()
    assert found[CROSS].tolist() == contexts.T.tolist()


def test_stacked_contexts_of_a_toy() -> None:
    """With decays 1/2 and 0, the contexts of 1 and 2 are [e0; e0] and [e0/2 + e1; e1]."""
    stack = KernelStack((0.5, 0.0))
    contexts, following = np.array([[1, 0, 0, 1, 0, 0], [1 / 2, 1, 0, 0, 1, 0]]), np.array([[0, 1, 0], [0, 0, 1]])
    for accumulator in (ItemSums(3, stack), FeatureSums(torch.eye(3), torch.eye(3), stack)):
        found = sum_statistics(accumulator, [np.array([0, 1, 2])])
        assert found[GRAM].tolist() == (contexts.T @ contexts).tolist()
        assert found[CROSS].tolist() == (contexts.T @ following).tolist()


def test_each_decay_has_its_own_block(histories: list[np.ndarray], features: Tensor) -> None:
    """A long decay beside it costs a short one no bit."""
    for accumulating, width in ((ACCUMULATORS["ids"], ITEMS), (ACCUMULATORS["features"], WIDTH)):
        both = sum_statistics(accumulating(KernelStack((0.5, 0.995)), features), histories)
        short, long = (sum_statistics(accumulating(KernelStack((each,)), features), histories) for each in (0.5, 0.995))
        assert torch.equal(both[GRAM][:width, :width], short[GRAM])
        assert torch.equal(both[GRAM][width:, width:], long[GRAM])
        assert torch.equal(both[CROSS], torch.cat([short[CROSS], long[CROSS]]))


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_sums_over_ids_are_those_of_a_loop(stack: KernelStack, histories: list[np.ndarray]) -> None:
    contexts, targets = by_loop(stack, histories, np.eye(ITEMS))
    found = sum_statistics(ItemSums(ITEMS, stack), histories)
    assert np.array_equal(found[GRAM].numpy(), contexts.T @ contexts)
    assert np.array_equal(found[CROSS].numpy(), contexts.T @ np.eye(ITEMS)[targets])


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_sums_over_features_are_those_of_a_loop(
    stack: KernelStack, histories: list[np.ndarray], features: Tensor
) -> None:
    """But for the rounding of contexts, to at least 64 steps from 0 to the largest."""
    contexts, targets = by_loop(stack, histories, features.double().numpy())
    found = sum_statistics(FeatureSums(features, features, stack), histories)
    allowed = len(targets) * per_feature((kernel.largest_sum for kernel in stack.kernels), WIDTH).numpy() / 64
    cross = contexts.T @ features.double().numpy()[targets]
    assert (np.abs(found[GRAM].numpy() - contexts.T @ contexts) < np.outer(allowed, 64 * allowed) / len(targets)).all()
    assert (np.abs(found[CROSS].numpy() - cross) < allowed[:, None]).all()


Accumulating = Callable[[KernelStack, Tensor], ItemSums | FeatureSums]
ACCUMULATORS: dict[str, Accumulating] = {
    "ids": lambda stack, features: ItemSums(ITEMS, stack),
    "features": lambda stack, features: FeatureSums(features, features, stack),
}


@pytest.mark.parametrize("stack", [*STACKS, KernelStack((0.995,)), KernelStack((0.5, 0.995))], ids=str)
@pytest.mark.parametrize("kind", ACCUMULATORS)
def test_sums_add_to_the_bit(kind: str, stack: KernelStack, histories: list[np.ndarray], features: Tensor) -> None:
    """In any grouping and any order; and they subtract."""

    def sums(some: list[np.ndarray]) -> Statistics:
        return sum_statistics(ACCUMULATORS[kind](stack, features), some)

    whole, one, others = sums(histories), sums(histories[4:5]), sums(histories[:4] + histories[:4:-1])
    alone = [sums([history]) for history in histories]
    for name, tensor in whole.items():
        assert torch.equal(tensor, torch.stack([found[name] for found in alone]).sum(0))
        assert torch.equal(tensor - one[name], others[name])


@pytest.mark.parametrize("kind", ACCUMULATORS)
def test_a_history_with_an_unknown_item_is_refused(kind: str, features: Tensor) -> None:
    with pytest.raises(InputError, match="items that the catalogue lacks"):
        ACCUMULATORS[kind](KernelStack((0.5,)), features).add(np.array([0, ITEMS]))


def test_packed_sums_are_the_upper_triangle_in_units() -> None:
    gram = torch.tensor([[4.0, 1, 2], [1, 5, 3], [2, 3, 6]], dtype=torch.float64)
    packed = pack({GRAM: gram, CROSS: torch.ones(3, 2, dtype=torch.float64)})
    assert (packed[GRAM] * SCALE).tolist() == [4, 1, 2, 5, 3, 6]
    assert {name: tensor.shape for name, tensor in packed.items()} == packed_shapes(3, 2)
    assert torch.equal(unpack(packed)[GRAM], gram)
    assert torch.equal(unpack(packed)[CROSS], torch.ones(3, 2))


@pytest.mark.parametrize("stack", [KernelStack((0.8,)), KernelStack((0.6, 0.95))], ids=str)
@pytest.mark.parametrize("ridge", [0.1, 10.0, 1000.0])
def test_weights_are_those_of_scikit_learn(ridge: float, stack: KernelStack, histories: list[np.ndarray]) -> None:
    contexts, targets = by_loop(stack, histories, np.eye(ITEMS))
    golden = Ridge(alpha=ridge, fit_intercept=False).fit(contexts, np.eye(ITEMS)[targets]).coef_.T
    weights = RidgePath.of(sum_statistics(ItemSums(ITEMS, stack), histories)).weights(ridge)
    assert np.allclose(weights.numpy(), golden, atol=1e-9)


def test_decoding_is_the_ridge_from_features_to_items(features: Tensor) -> None:
    """D ψ(i) are the coefficients by which scikit-learn tells item i from the others."""
    golden = Ridge(alpha=0.3, fit_intercept=False).fit(features.double().numpy(), np.eye(ITEMS)).coef_.T  # (M, N)
    found = decoding(target_gram(features, torch.arange(ITEMS)), 0.3) @ features.double().T
    assert np.allclose(found.numpy(), golden, atol=1e-9)


def test_a_linear_model_scores_the_context_after_a_history() -> None:
    """Items 0 and 1 lead to 2: after 0 then 1, decay 1/2, the score of 2 is 1 + 1/2."""
    weights = torch.tensor([[0.0, 0, 1], [0, 0, 1], [0, 0, 0]])
    model = LinearModel(KernelStack((0.5,)), weights, torch.eye(3))
    assert model.score([np.array([0, 1]), np.zeros(0, dtype=np.int64)]).tolist() == [[0, 0, 1.5], [0, 0, 0]]


def test_whitening_makes_variances_equal() -> None:
    points = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([4.0, 2, 1, 0.5])
    whitening = Whitening.fit(points, 1.0)
    moved = (points - whitening.mean) @ whitening.root
    assert torch.allclose(moved.T @ moved / 500, torch.eye(4), atol=1e-3)
    assert torch.equal(whitening.root, whitening.root.T)


def test_random_features_are_centred_cosines_on_a_grid() -> None:
    whitening, one = Whitening(torch.zeros(1), torch.ones(1, 1)), torch.ones(1)
    (feature,) = FourierFeatures(whitening, 2 * one[None], 0.5 * one, 0.1 * one)(torch.tensor([[3.0]]))
    assert feature.item() == round((cos(2 * 1 + 0.5) - 0.1) / 1.1 * 128) / 128  # 3 is the unit vector 1


@pytest.mark.parametrize("bandwidths", [(1.5,), (0.5, 3.0)])
def test_the_dot_product_of_random_features_is_the_centred_kernel(bandwidths: tuple[float, ...]) -> None:
    points = torch.nn.functional.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    whitening = Whitening(torch.zeros(5), torch.eye(5))
    fitted = FourierFeatures.fit(points, whitening, 20_000, bandwidths, seed=0)
    found = fitted(points) * (1 + fitted.mean.abs())
    squares = torch.cdist(points, points).square()
    kernel = torch.stack([torch.exp(-(bandwidth**2) * squares / 2) for bandwidth in bandwidths]).mean(0)
    centred = kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
    assert torch.allclose(2 / 20_000 * found @ found.T, centred, atol=0.05)


def test_the_mean_of_features_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    whole = FourierFeatures.fit(points, Whitening.fit(points, 0.5), 8, (1.0,), seed=0)
    assert whole(points).mean(0).abs().max() < 1 / 128
    monkeypatch.setattr("fedrec.recsys.closed_form.features.BLOCK", 3)
    assert torch.equal(FourierFeatures.fit(points, Whitening.fit(points, 0.5), 8, (1.0,), seed=0).mean, whole.mean)


# ---- the catalogue


def test_ids_of_too_large_a_catalogue_are_refused() -> None:
    check_catalogue(ClosedFormConfig(features="ids"), MAX_ITEMS)
    check_catalogue(ClosedFormConfig(), 10**9)
    with pytest.raises(InputError, match=r"features = 'ids'.*8,193 items.*use features = 'text'"):
        check_catalogue(ClosedFormConfig(features="ids"), MAX_ITEMS + 1)


def test_the_sums_of_more_decays_are_of_fewer_items() -> None:
    """4,729² · 2² + 4,729² · 2 numbers are no more than 8,192² · 2."""
    two = ClosedFormConfig(features="ids", decays=(0.6, 0.95))
    check_catalogue(two, 4729)
    with pytest.raises(InputError, match=r"4,730 items do not fit, at most 4,729 do with 2 of `decays`"):
        check_catalogue(two, 4730)


# ---- bounds


def toy_sums(features: str, *decays: float) -> tuple[SumBounds, Statistics]:
    """The packed sums of one user of three events, over three ids or two features."""
    kind = "ids" if features == "ids" else "text"
    config = ClosedFormConfig(kind, feature_width=2, decays=decays or (0.8,), reverse=0.0, statistic_events=3)
    table = torch.tensor([[1.0, 0.5], [-1.0, 0.25], [0.0, 1.0]])
    accumulator = ItemSums(3, config.stack) if features == "ids" else FeatureSums(table, table, config.stack)
    return SumBounds.of(config, 3), pack(sum_statistics(accumulator, [np.array([0, 1, 2])]))


@pytest.mark.parametrize("decays", [(0.8,), (0.0, 0.995)])
@pytest.mark.parametrize("features", ["ids", "text"])
def test_honest_sums_are_within_their_bounds(features: str, decays: tuple[float, ...]) -> None:
    bounds, sums = toy_sums(features, *decays)
    bounds.check(sums, 1)
    assert {name: tensor.shape for name, tensor in bounds.template.items()} == {n: t.shape for n, t in sums.items()}


LIES: dict[str, tuple[str, Callable[[Tensor], Tensor], str]] = {
    "much more than its users have": (GRAM, lambda t: t * 1e6, "and 1 users have at most"),
    "a part of a unit": (CROSS, lambda t: t + 2.0**-60, "not whole multiples"),
    "a negative square": (GRAM, lambda t: -t, "a sum of squares"),
    "a product without its squares": (GRAM, lambda t: t.index_fill(0, torch.tensor([1]), 5 / SCALE), "above the root"),
}


@pytest.mark.parametrize("decays", [(0.8,), (0.5, 0.995)])
@pytest.mark.parametrize("features", ["ids", "text"])
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_told_from_sums(lie: str, features: str, decays: tuple[float, ...]) -> None:
    name, change, said = LIES[lie]
    bounds, sums = toy_sums(features, *decays)
    with pytest.raises(ValueError, match=said):
        bounds.check(sums | {name: change(sums[name])}, 1)


def test_each_decay_has_its_own_unit_and_bound() -> None:
    """With decays 0 and 0.995, a context weighs at most 1 and at most 198."""
    bounds, sums = toy_sums("text", 0.0, 0.995)
    cross = sums[CROSS].clone()
    cross[2:] *= 100  # of the long decay
    bounds.check(sums | {CROSS: cross}, 1)
    cross[:2] *= 100
    with pytest.raises(ValueError, match=r"cross holds .* and 1 users have at most"):
        bounds.check(sums | {CROSS: cross}, 1)
    finer = sums[CROSS].clone()
    finer[0, 0] += 2.0**-14 / SCALE  # a unit of the short decay times one of a target
    bounds.check(sums | {CROSS: finer}, 1)
    finer[2, 0] += 2.0**-14 / SCALE
    with pytest.raises(ValueError, match="cross holds numbers that are not whole multiples"):
        bounds.check(sums | {CROSS: finer}, 1)
