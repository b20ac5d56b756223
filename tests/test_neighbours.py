"""Item-kNN and EASE: worlds whose answer is obvious, and each against its definition."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.recsys.baselines import neighbours
from fedrec.recsys.baselines.neighbours import EASEConfig, KNNConfig, ease, ease_weights, item_knn, truncated_svd
from fedrec.recsys.baselines.tuning import TrainingData
from fedrec.recsys.evaluation.ranking import rank
from tests.support.toy_world import shard_of


def pairs_world() -> Shard:
    """100 items, always taken in pairs (0 with 1, 2 with 3, …): three pairs a user, the last one's partner held out."""
    generator = np.random.default_rng(0)
    drawn = (generator.permutation(50)[:3] for _ in range(500))
    return shard_of([[item for pair in pairs.tolist() for item in (2 * pair, 2 * pair + 1)] for pairs in drawn])


def of(shard: Shard, items: int) -> TrainingData:
    """The histories, with items that have no text."""
    return TrainingData(shard, torch.empty(items, 0))


def gram_of(rows: list[list[int]]) -> np.ndarray:
    held = np.array(rows, dtype=np.float64)
    return held.T @ held


@pytest.mark.parametrize("name", ["item-kNN", "EASE"])
def test_the_partner_comes_first(name: str) -> None:
    shard = pairs_world()
    knn, regression = item_knn(of(shard, 100), "test", KNNConfig()), ease(of(shard, 100), "test", EASEConfig(ridge=1.0))
    score = {"item-kNN": knn, "EASE": regression}[name]
    assert score([np.array([item]) for item in range(100)]).argmax(1).tolist() == [item ^ 1 for item in range(100)]
    assert rank(score, shard, range(500), "test").ranks.tolist() == [0] * 500


def test_a_neighbour_weighs_its_cosine() -> None:
    """Item 0 has users a, b, c, item 1 users b, c, item 2 user c. The last two events of each user are not read."""
    shard = shard_of([[0, 3, 4], [0, 1, 3, 4], [0, 1, 2, 3, 4]])
    scores = item_knn(of(shard, 5), "validation", KNNConfig())([np.array([0])])[0]
    assert scores.tolist() == pytest.approx([0, 2 / (3 * 2) ** 0.5, 1 / (3 * 1) ** 0.5, 0, 0])
    shrunk = item_knn(of(shard, 5), "validation", KNNConfig(shrink=2.0))([np.array([0, 1])])[0]
    of_2 = 1 / (3**0.5 + 2) + 1 / (2**0.5 + 2)
    assert shrunk[2].item() == pytest.approx(of_2)


def test_only_the_nearest_neighbours_of_an_item_count() -> None:
    shard = shard_of([[0, 3, 4], [0, 1, 3, 4], [0, 1, 2, 3, 4]])
    scores = item_knn(of(shard, 5), "validation", KNNConfig(neighbours=1))([np.array([0])])[0]
    assert scores.tolist() == pytest.approx([0, 2 / 6**0.5, 0, 0, 0])  # item 2 is nearer to item 1 than to item 0


def test_what_a_user_has_had_twice_counts_once() -> None:
    """Where a published split repeats items: no cosine is above 1, and a repeated event weighs no more."""
    repeated, once = shard_of([[0, 0, 1, 1, 3, 4]] * 2), shard_of([[0, 1, 3, 4]] * 2)
    for fit in (
        lambda s: item_knn(of(s, 5), "validation", KNNConfig()),
        lambda s: ease(of(s, 5), "validation", EASEConfig()),
    ):
        twice = fit(repeated)([np.array([0, 0])])
        assert twice.tolist() == fit(once)([np.array([0])]).tolist()
    assert item_knn(of(repeated, 5), "validation", KNNConfig())([np.array([0])])[0, 1].item() == pytest.approx(1)


def test_blocks_of_items_change_no_similarity(monkeypatch: pytest.MonkeyPatch) -> None:
    histories = [np.array([item, (item + 4) % 100]) for item in range(100)]
    whole = item_knn(of(pairs_world(), 100), "test", KNNConfig(neighbours=5))(histories)
    monkeypatch.setattr(neighbours, "MAX_SIMILARITIES", 7 * 100)
    assert item_knn(of(pairs_world(), 100), "test", KNNConfig(neighbours=5))(histories).tolist() == whole.tolist()


def test_the_closed_form_of_ease_solves_its_least_squares() -> None:
    """Each column, solved numerically under its constraint: the item's own weight is zero."""
    held = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 1]]
    ridge, weights, x = 0.7, ease_weights(gram_of(held), 0.7), np.array(held)
    assert np.diag(weights).tolist() == [0.0] * 4
    for item in range(4):
        others = [other for other in range(4) if other != item]

        def cost(b: np.ndarray, item: int = item, others: list[int] = others) -> float:
            return float(((x[:, item] - x[:, others] @ b) ** 2).sum() + ridge * (b**2).sum())

        solved = minimize(cost, np.zeros(3), tol=1e-12).x
        assert weights[others, item] == pytest.approx(solved, abs=1e-6)


def test_ease_of_two_items_by_hand() -> None:
    """Two users have both items, one only the first: b = 2 / (3 + λ) from the first, 2 / (2 + λ) to it."""
    weights = ease_weights(gram_of([[1, 1], [1, 1], [1, 0]]), ridge=1.0)
    assert weights == pytest.approx(np.array([[0, 2 / (3 + 1)], [2 / (2 + 1), 0]]))


def test_a_history_scores_the_sum_of_its_items_weights() -> None:
    weights = ease_weights(gram_of([[1, 1, 0], [1, 1, 1]]), ridge=2.0)
    score = ease(of(shard_of([[0, 1, 2], [0, 1, 2, 0]]), 3), "test", EASEConfig(ridge=2.0))
    assert score([np.array([0, 2])])[0].tolist() == pytest.approx(weights[0] + weights[2], abs=1e-6)


@pytest.mark.parametrize("name", ["item-kNN", "EASE"])
def test_a_recent_event_weighs_more(name: str) -> None:
    """With a decay of ½ the last event weighs 1, the one before it ½, and an item had twice as its latest event."""
    world = of(shard_of([[0, 1, 2, 3, 4], [0, 2, 1, 3, 4], [1, 2, 0, 3, 4]]), 5)
    equally, recently = {
        "item-kNN": [item_knn(world, "test", KNNConfig(decay=decay)) for decay in (1.0, 0.5)],
        "EASE": [ease(world, "test", EASEConfig(ridge=1.0, decay=decay)) for decay in (1.0, 0.5)],
    }[name]
    alone = equally([np.array([item]) for item in range(5)])
    assert equally([np.array([0, 1, 2])])[0].tolist() == pytest.approx((alone[0] + alone[1] + alone[2]).tolist())
    assert recently([np.array([0, 1, 2])])[0].tolist() == pytest.approx(
        (alone[0] / 4 + alone[1] / 2 + alone[2]).tolist()
    )
    assert recently([np.array([2, 1, 2])])[0].tolist() == pytest.approx((alone[1] / 2 + alone[2]).tolist())


def test_weights_of_lower_rank_are_the_nearest_ones() -> None:
    """What is left out is as large as the singular values that are; of full rank nothing is."""
    weights = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)
    sizes = np.linalg.svd(weights, compute_uv=False)
    for width in range(1, 7):
        near = truncated_svd(weights, width)
        assert np.linalg.matrix_rank(near, tol=1e-4) == width
        assert np.linalg.norm(weights - near) == pytest.approx(np.linalg.norm(sizes[width:]), abs=1e-5)


def test_ease_in_vectors_answers_as_its_nearest_weights() -> None:
    shard, history = pairs_world(), [np.array([0, 3])]
    whole = ease(of(shard, 100), "test", EASEConfig(ridge=1.0))(history)
    assert torch.allclose(ease(of(shard, 100), "test", EASEConfig(ridge=1.0), rank=100)(history), whole, atol=1e-5)
    assert not torch.allclose(ease(of(shard, 100), "test", EASEConfig(ridge=1.0), rank=5)(history), whole, atol=1e-2)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_a_split_ranks_and_what_comes_after_it_is_not_read(split: str) -> None:
    """The held-out events hold items that nobody has had before: they score nothing."""
    shard = shard_of([[0, 1, 2, 4, 5], [1, 0, 2, 4, 5]])
    unread = {"validation": [4, 5], "test": [5]}[split]
    every = [np.array([item]) for item in range(6)]
    for scorer in (item_knn(of(shard, 6), split, KNNConfig()), ease(of(shard, 6), split, EASEConfig())):
        assert scorer(every)[:, unread].abs().sum() == 0
        assert scorer(every)[:, 2].abs().sum() > 0


def test_ease_of_more_items_than_memory_holds_is_refused() -> None:
    with pytest.raises(InputError, match="more than memory holds"):
        ease(of(pairs_world(), 10_000_000), "test", EASEConfig())
