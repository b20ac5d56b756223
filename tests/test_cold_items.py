"""Items that nobody has touched: the closed form scores them as those with texts like their own."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.nn import functional as F

from fedrec.recsys.closed_form.features import Whitening
from fedrec.recsys.closed_form.new_items import RIDGE, TEXT_LENGTH, TargetRegression, scale_vectors
from fedrec.recsys.closed_form.packing import unpack
from fedrec.recsys.closed_form.search import Hyperparameters
from fedrec.recsys.closed_form.solutions import WEIGHTS
from fedrec.recsys.closed_form.statistics import GRAM
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


PLAIN = Whitening(torch.zeros(8), torch.eye(8))
"""No whitening: unit vectors."""


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rms(vectors: Tensor | np.ndarray) -> float:
    """Compute the root mean square of the lengths of vectors, by hand."""
    return float(np.sqrt((np.asarray(vectors) ** 2).sum(1).mean()))


@pytest.mark.parametrize("one_hot", [False, True])
def test_target_vectors_are_those_of_a_ridge_regression(one_hot: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against scikit-learn's, of the known items alone, in blocks."""
    monkeypatch.setattr("fedrec.recsys.closed_form.new_items.BLOCK", 7)
    embeddings, known = drawn(60, 8, seed=0), torch.arange(5, 55)
    table = torch.eye(60) if one_hot else drawn(60, 5, seed=1) + 3
    texts, targets = F.normalize(embeddings, dim=-1), table[known]
    centred = targets - targets.mean(0)
    golden = Ridge(alpha=RIDGE, fit_intercept=False).fit(texts[known], centred)
    ours = TargetRegression.fit(embeddings, PLAIN, known, None if one_hot else table)
    expected = targets.mean(0).numpy() + golden.predict(texts)
    np.testing.assert_allclose(ours(texts), expected, atol=1e-5)
    assert ours.spread == pytest.approx(rms(golden.predict(texts[known])), rel=1e-4)
    factor = drawn(len(ours.mean), 2, seed=3).double()
    np.testing.assert_allclose(ours.through(factor)(texts), expected @ factor.numpy(), atol=1e-5)
    scaled = scale_vectors(ours, (targets.T @ targets).double(), 50, 2.0)
    assert rms(scaled(texts[known]) - scaled.mean) == pytest.approx(2 * TEXT_LENGTH * rms(centred), rel=1e-4)


@pytest.mark.parametrize("known", [0, 1, 3])
def test_without_texts_that_differ_a_new_item_is_at_the_mean(known: int) -> None:
    targets, embeddings = drawn(4, 4, seed=0), torch.zeros(4, 8)
    ours = TargetRegression.fit(embeddings, PLAIN, torch.arange(known), targets)
    scaled = scale_vectors(ours, (targets[:known].T @ targets[:known]).double(), known, 1.0)
    assert torch.allclose(scaled(torch.ones(2, 8)), targets[:known].double().sum(0) / max(known, 1))


# Over ids, the sums tell which items are new.


def ids_of(embeddings: Tensor, rows: np.ndarray, **settings: object) -> ClosedFormMethod:
    config = small_config(method="closed-form", features="ids", **settings)
    return ClosedFormMethod(embeddings, rows, config.closed_form, 0, held_out=0)


def test_an_item_that_was_never_a_target_is_new(embeddings: Tensor) -> None:
    method = ids_of(embeddings[:6], np.arange(5), reverse=0.0, priors="0")
    total = method.sum_users(shard_of([[0, 1, 2], [2, 1]]), np.arange(2)).statistics
    assert method.known_items(total).tolist() == [1, 2]
    weights = method.solver(total).solve(Hyperparameters(1.0, 1.0, 1.0))[WEIGHTS]
    assert weights[:, [0, 3, 4, 5]].any(0).all()


@pytest.mark.parametrize("chosen", [Hyperparameters(2.0, 1.0, 1.0), Hyperparameters(2.0, 1.0, 1.0, 5.0, 0.5)])
def test_scores_of_new_items_spread_over_contexts_as_those_of_others(
    embeddings: Tensor, chosen: Hyperparameters
) -> None:
    """Over all contexts, and as many more as the penalty stands for."""
    rng = np.random.default_rng(0)
    histories = [rng.permutation(WARM)[:8].tolist() for _ in range(60)]
    method = ids_of(embeddings, WARM, decays="0.5,0.9", priors="0,5")
    total = method.sum_users(shard_of(histories), np.arange(60)).statistics
    weights = method.solver(total).solve(chosen)[WEIGHTS].double().numpy()
    gram = unpack(total)[GRAM].numpy() + (chosen.ridge + chosen.prior) * np.eye(48)
    z = method._whitening(embeddings[WARM]).double().numpy()
    known = weights[:, WARM]
    centred = known - known.mean(1, keepdims=True)
    slope = np.linalg.solve(z.T @ z + RIDGE * np.eye(z.shape[1]), z.T @ centred.T)
    predicted = z @ slope

    def spread(vectors: np.ndarray) -> float:
        return rms(vectors @ np.linalg.cholesky(gram))

    scale = spread(centred.T) / spread(predicted)
    cold = method._whitening(embeddings[COLD]).double().numpy()
    expected = known.mean(1) + scale * cold @ slope
    np.testing.assert_allclose(weights[:, COLD].T, expected, atol=1e-5)


def test_an_item_that_is_sent_later_is_scored_as_if_it_had_been_there(embeddings: Tensor) -> None:
    """The artifact's map gives an item the candidate vector that training gives it if it is in the catalogue."""
    rng = np.random.default_rng(0)
    method = ids_of(embeddings, WARM, priors="5")
    histories = [rng.permutation(WARM)[:8].tolist() for _ in range(60)]
    total, chosen = method.sum_users(shard_of(histories), np.arange(60)).statistics, Hyperparameters(2.0, 1.0, 1.0, 5.0)
    cut = method.cut(method.solver(total).solve(chosen), total, chosen)
    closed_form = method.artifact(cut, total, torch.zeros(24, 2))
    _, sent = closed_form.item_vectors(embeddings[COLD])
    torch.testing.assert_close(sent, closed_form.model.candidates[COLD], atol=0.02, rtol=0)
    assert closed_form.model.candidates[COLD].norm(dim=1).min() > 0.1
