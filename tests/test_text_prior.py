"""Whitened texts, and EASE pulled towards the weights that they give: at its limits, and against its definition."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn import functional as F

from fedrec.data.errors import InputError
from fedrec.recsys.baselines.neighbours import ease_weights
from fedrec.recsys.baselines.text_prior import TextPriorConfig, ease_with_text_prior, weights_near
from fedrec.recsys.baselines.tuning import TrainingData
from fedrec.recsys.baselines.whitening import WhitenedTextConfig, whiten, whitened_text_neighbours
from fedrec.recsys.closed_form.text_prior import text_weights
from tests.support.toy_world import shard_of

HELD = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 1]], dtype=np.float64)
GRAM = HELD.T @ HELD


def texts(items: int, width: int) -> torch.Tensor:
    """Embeddings in a narrow cone: a common direction, and dimensions that vary more and more."""
    generator = torch.Generator().manual_seed(0)
    return 5 + torch.randn(items, width, generator=generator) * torch.arange(1, width + 1)


def test_whitened_dimensions_vary_alike_and_are_uncorrelated() -> None:
    """Before the scaling to unit length: an orthogonal matrix of items times a constant."""
    whitened = whiten(texts(40, 3), 1.0)
    assert whitened.norm(dim=1).tolist() == pytest.approx([1] * 40)
    centred = texts(40, 3).double() - texts(40, 3).double().mean(0)
    covariance = centred.T @ centred / 40
    values, vectors = np.linalg.eigh(covariance.numpy())
    expected = centred @ torch.from_numpy(vectors @ np.diag(values**-0.5) @ vectors.T)
    assert (expected.T @ expected / 40).numpy() == pytest.approx(np.eye(3), abs=1e-9)
    assert whitened.numpy() == pytest.approx(F.normalize(expected).numpy(), abs=1e-9)


def test_a_power_of_zero_centres_alone() -> None:
    centred = texts(12, 3).double() - texts(12, 3).double().mean(0)
    assert whiten(texts(12, 3), 0.0).numpy() == pytest.approx(F.normalize(centred).numpy(), abs=1e-9)


def test_directions_in_which_no_text_varies_are_left_out() -> None:
    """Three texts vary in two directions, whatever their width."""
    whitened = whiten(texts(3, 8), 1.0)
    assert whitened.isfinite().all()
    assert torch.linalg.matrix_rank(whitened) == 2


def test_whitened_neighbours_by_hand() -> None:
    """Texts at (±10, 0) and (0, ±1): whitened, both axes count alike, so (9, 1) is as near to the second axis."""
    embeddings = torch.tensor([[10.0, 0.0], [-10.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    score = whitened_text_neighbours(embeddings, WhitenedTextConfig(power=1.0, decay=0.5))
    assert score([np.array([0])])[0].tolist() == pytest.approx([1, -1, 0, 0])
    of_both = np.array([0.5, -0.5, 1, -1]) / np.hypot(0.5, 1)  # (½, 0) + (0, 1)
    assert score([np.array([0, 2])])[0].tolist() == pytest.approx(of_both.tolist(), abs=1e-6)


def test_without_a_pull_the_weights_are_those_of_ease() -> None:
    prior = ease_weights(np.eye(4) + 0.3, 1.0)
    assert weights_near(prior, GRAM, 0.7, 0.0) == pytest.approx(ease_weights(GRAM, 0.7))


def test_with_an_endless_pull_the_weights_are_the_prior() -> None:
    prior = ease_weights(np.eye(4) + 0.3, 1.0)
    assert weights_near(prior, GRAM, 0.7, 1e12) == pytest.approx(prior, abs=1e-9)


def test_the_weights_solve_their_least_squares() -> None:
    """Each column, solved numerically under its constraint: the item's own weight is zero."""
    prior, ridge, pull = ease_weights(np.eye(4) + 0.3, 1.0), 0.7, 1.3
    weights = weights_near(prior, GRAM, ridge, pull)
    assert np.diag(weights).tolist() == [0.0] * 4
    for item in range(4):
        others = [other for other in range(4) if other != item]

        def cost(b: np.ndarray, item: int = item, others: list[int] = others) -> float:
            residual = ((HELD[:, item] - HELD[:, others] @ b) ** 2).sum()
            return float(residual + ridge * (b**2).sum() + pull * ((b - prior[others, item]) ** 2).sum())

        assert weights[others, item] == pytest.approx(minimize(cost, np.zeros(3), tol=1e-12).x, abs=1e-6)


def test_an_item_that_nobody_has_had_is_scored_by_its_text() -> None:
    """Items 4 and 5 are in no history: 4 has the text of item 0, 5 that of nobody."""
    embeddings = torch.eye(6)
    embeddings[4] = embeddings[0]
    shard = shard_of([[0, 1, 2, 3], [1, 0, 3, 2], [2, 0, 1, 3]])
    score = ease_with_text_prior(TrainingData(shard, embeddings), "test", TextPriorConfig(ridge=1.0, prior=1.0))
    scores = score([np.array([0])])[0]
    assert scores[4] > scores[5]


def test_a_history_scores_the_sum_of_its_weights_decayed() -> None:
    shard, embeddings = shard_of([[0, 1, 2, 3], [1, 0, 3, 2], [2, 0, 1, 3]]), texts(4, 3)
    config = TextPriorConfig(ridge=1.0, prior=2.0, text_ridge=0.5, decay=0.5)
    score = ease_with_text_prior(TrainingData(shard, embeddings), "test", config)
    held = np.array([[1, 1, 1, 0], [1, 1, 0, 1], [1, 1, 1, 0]], dtype=np.float64)  # before the test items
    weights = weights_near(text_weights(embeddings, 0.5).numpy(), held.T @ held, 1.0, 2.0)
    assert score([np.array([3, 1])])[0].tolist() == pytest.approx((weights[3] / 2 + weights[1]).tolist(), abs=1e-6)


def test_more_items_than_memory_holds_are_refused() -> None:
    data = TrainingData(shard_of([[0, 1, 2]]), torch.empty(10_000_000, 0))
    with pytest.raises(InputError, match=r"EASE with text prior solves .* more than memory holds"):
        ease_with_text_prior(data, "test", TextPriorConfig())
