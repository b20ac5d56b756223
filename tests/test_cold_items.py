"""Items that nobody has touched: the closed form scores them as those with texts like their own."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from fedrec.recsys.closed_form.new_items import RIDGE, TargetRegression
from fedrec.recsys.closed_form.search import Hyperparameters
from fedrec.recsys.closed_form.solutions import WEIGHTS
from fedrec.recsys.training.closed_form import ClosedFormMethod
from tests.support.toy_world import shard_of, small_config

COLD = np.array([9, 10, 11, 21, 22, 23])
"""Three films about cooking and three about space, in no history."""

WARM = np.setdiff1d(np.arange(24), COLD)


def scores_of_cold_items(embeddings: Tensor, seed: int, **settings: object) -> tuple[Tensor, Tensor]:
    """Score the cold items for 20 cooks and 20 pilots: those of the user's own kind, and the others, (40, 3) each."""
    rng = np.random.default_rng(seed)
    kinds = WARM.reshape(2, 9)
    histories = [rng.permutation(kinds[user % 2]) for user in range(40)]
    config = small_config(method="closed-form", feature_width=256, **settings)
    method = ClosedFormMethod(embeddings, WARM, config.closed_form, seed, held_out=0)
    sums = method.sum_users(shard_of([history.tolist() for history in histories]), np.arange(40))
    solution = method.solver(sums.statistics).solve(Hyperparameters(ridge=10.0, decode=0.1, share=1.0))
    scores = (method.user_vectors(solution)(histories) @ method.candidates.T)[:, torch.from_numpy(COLD)]
    cooks, pilots = scores[::2], scores[1::2]
    own = torch.cat([cooks[:, :3], pilots[:, 3:]])
    return own, torch.cat([cooks[:, 3:], pilots[:, :3]])


def share_in_order(own: Tensor, others: Tensor) -> float:
    """Compute the probability that a cold item of the user's own kind is before one of the other kind."""
    return (own.unsqueeze(2) > others.unsqueeze(1)).double().mean().item()


KINDS = {
    "text": {},
    "a large bandwidth alone": {"feature_bandwidths": "4"},
    "ids": {"features": "ids", "decays": "0.5,0.9"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_whoever_cooks_gets_new_cooking_films(embeddings: Tensor, seed: int, kind: str) -> None:
    assert share_in_order(*scores_of_cold_items(embeddings, seed, **KINDS[kind])) > 0.9


def test_features_that_only_tell_items_apart_say_nothing_of_new_ones(
    embeddings: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: new items by their own features, of which a large bandwidth makes no two alike."""
    monkeypatch.setattr(ClosedFormMethod, "candidates", property(lambda method: method.features))
    found = [share_in_order(*scores_of_cold_items(embeddings, seed, feature_bandwidths="4")) for seed in range(3)]
    assert 0.2 < np.mean(found) < 0.8


# The regression.


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_target_vectors_are_those_of_a_ridge_regression() -> None:
    """Against scikit-learn's, with the length that was asked for, in blocks."""
    texts, targets, new = drawn(50, 8, seed=0), drawn(50, 5, seed=1) + 3, drawn(4, 8, seed=2)
    golden = Ridge(alpha=RIDGE, fit_intercept=False).fit(texts, targets - targets.mean(0))
    shrunk = np.linalg.norm(golden.predict(texts), axis=1).mean()
    length = 0.6 * (targets - targets.mean(0)).norm(dim=1).mean().item() / shrunk
    expected = targets.mean(0).numpy() + length * golden.predict(new)
    ours = TargetRegression.fit(texts, targets, 0.6)
    np.testing.assert_allclose(ours(new), expected, atol=1e-5)
    factor = drawn(5, 2, seed=3).double()
    np.testing.assert_allclose(ours.through(factor)(new), expected @ factor.numpy(), atol=1e-5)


def test_known_items_have_the_length_that_was_asked_for() -> None:
    texts, targets = drawn(50, 8, seed=0), drawn(50, 5, seed=1)
    lengths = [
        (ours(texts) - ours.mean).norm(dim=1).mean().item()
        for ours in (TargetRegression.fit(texts, targets, length) for length in (0.5, 2.0))
    ]
    assert lengths[1] == pytest.approx(2 * (targets - targets.mean(0)).norm(dim=1).mean().item())
    assert lengths[0] == pytest.approx(lengths[1] / 4)


@pytest.mark.parametrize("known", [0, 1, 3])
def test_without_texts_that_differ_a_new_item_is_at_the_mean(known: int) -> None:
    targets = drawn(known, 4, seed=0)
    ours = TargetRegression.fit(torch.zeros(known, 3), targets, 1.0)
    assert torch.allclose(ours(torch.ones(2, 3)), targets.double().sum(0) / max(known, 1))


# Over ids, the sums tell which items are new.


def test_an_item_that_was_never_a_target_is_new(embeddings: Tensor) -> None:
    config = small_config(method="closed-form", features="ids", reverse=0.0, priors="0")
    method = ClosedFormMethod(embeddings[:6], np.arange(5), config.closed_form, 0, held_out=0)
    total = method.sum_users(shard_of([[0, 1, 2], [2, 1]]), np.arange(2)).statistics
    assert method.known_items(total).tolist() == [1, 2]
    weights = method.solver(total).solve(Hyperparameters(1.0, 1.0, 1.0))[WEIGHTS]
    others = torch.tensor([0, 3, 4, 5])
    expected = weights.double() @ method.predict_targets(others.numpy(), np.array([1, 2])).T
    assert weights[:, others].any()
    torch.testing.assert_close(weights[:, others], expected.float())
