"""Next-item ridge: its statistics by hand, against explicit contexts, and against scikit-learn's ridge."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from fedrec.data.errors import InputError
from fedrec.recsys.baselines.next_item import (
    NextItemConfig,
    context_products,
    next_item_ridge,
    next_item_statistics,
    solve_ridge,
    successor_weights,
)
from fedrec.recsys.baselines.tuning import TrainingData
from tests.support.toy_world import shard_of

ITEMS = 7
HISTORIES = [[0, 1, 2, 3], [2, 4, 0, 5, 1, 6], [3], [], [1, 1, 2, 1, 4]]  # the last one repeats an item


def explicit_examples(decay: float) -> tuple[np.ndarray, np.ndarray]:
    """The contexts and the next items of all examples, one by one, as their definition says."""
    one_hot = np.eye(ITEMS)
    examples = [(history, t) for history in HISTORIES for t in range(1, len(history))]
    contexts = [sum(decay ** (t - 1 - s) * one_hot[history[s]] for s in range(t)) for history, t in examples]
    return np.stack(contexts), np.stack([one_hot[history[t]] for history, t in examples])


def test_the_statistics_of_one_history_by_hand() -> None:
    """0, 1, 2 with a decay of ½: the contexts are (1, 0, 0) before item 1 and (½, 1, 0) before item 2."""
    gram, cross = next_item_statistics([np.array([0, 1, 2])], 3, 0.5)
    assert gram.tolist() == [[1 + 0.5**2, 0.5, 0], [0.5, 1, 0], [0, 0, 0]]
    assert cross.tolist() == [[0, 1, 0.5], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("decay", [0.3, 0.8, 1.0])
def test_the_statistics_are_the_sums_over_explicit_examples(decay: float) -> None:
    x, y = explicit_examples(decay)
    gram, cross = next_item_statistics([np.array(history, dtype=np.int64) for history in HISTORIES], ITEMS, decay)
    assert gram == pytest.approx(x.T @ x)
    assert cross == pytest.approx(x.T @ y)


@pytest.mark.parametrize("events", [0, 1, 2, 9])
def test_the_products_of_decays_are_those_of_their_triangle(events: int) -> None:
    """Row t of L holds the weights of the context before event t, so LᵀL sums the products of each two events."""
    triangle = successor_weights(events, 0.7).T
    assert context_products(events, 0.7) == pytest.approx(triangle.T @ triangle)


def test_the_weights_are_those_of_scikit_learn() -> None:
    x, y = explicit_examples(0.8)
    golden = Ridge(alpha=0.5, fit_intercept=False, solver="cholesky").fit(x, y).coef_.T  # (N, N)
    assert solve_ridge(x.T @ x, x.T @ y, 0.5) == pytest.approx(golden)


def test_a_history_is_scored_by_its_decayed_sum() -> None:
    """Fitted on the events before each held-out item alone: 5 and 6 are nobody's next item."""
    shard = shard_of([[0, 1, 2, 5, 6], [2, 0, 1, 5, 6], [4, 4, 0, 3, 5, 6]])
    data, config = TrainingData(shard, torch.empty(ITEMS, 0)), NextItemConfig(decay=0.5, ridge=2.0)
    read = [shard.history(user, "validation") for user in range(3)]
    weights = solve_ridge(*next_item_statistics(read, ITEMS, 0.5), 2.0)
    scores = next_item_ridge(data, "validation", config)([np.array([4, 1, 4])])[0]
    assert scores.tolist() == pytest.approx((weights[4] / 4 + weights[1] / 2 + weights[4]).tolist(), abs=1e-6)
    assert scores[[5, 6]].tolist() == [0, 0]


def test_what_always_follows_comes_first() -> None:
    """Everybody walks 0 → 1 → 2 → 3 → 4 from some place on; EASE, which knows no order, could not tell."""
    shard = shard_of([[start, *range(start + 1, 10), 0, 0] for start in range(6)] * 5)
    score = next_item_ridge(TrainingData(shard, torch.empty(10, 0)), "test", NextItemConfig(decay=0.5, ridge=0.1))
    assert score([np.arange(item + 1) for item in range(9)]).argmax(1).tolist() == list(range(1, 10))


def test_more_items_than_memory_holds_are_refused() -> None:
    data = TrainingData(shard_of([[0, 1, 2]]), torch.empty(10_000_000, 0))
    with pytest.raises(InputError, match=r"next-item ridge solves .* more than memory holds; item-kNN needs less"):
        next_item_ridge(data, "test", NextItemConfig())
