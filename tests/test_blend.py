"""Towers and closed form as one model: its vectors against z-scores that are added up the long way."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.nn import functional as F

import fedrec
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.recsys.closed_form.contexts import KernelStack
from fedrec.recsys.closed_form.fusion import Fusion, covariance, standardise
from fedrec.recsys.closed_form.low_rank import low_rank
from fedrec.recsys.closed_form.model import ClosedForm, LinearModel
from fedrec.recsys.closed_form.new_items import RIDGE
from fedrec.recsys.evaluation.ranking import metric_means, metric_sums, rank
from fedrec.recsys.nearest import doubt, exact_scores
from fedrec.recsys.recommender import Recommender
from tests.support.closed_form import (
    KINDS,
    Kind,
    at_the_mean,
    context,
    hybrid_of,
    plain_scores,
    table_of,
    toy_closed_form,
    toy_config,
    toy_features,
    toy_solution,
    toy_texts,
    toy_whitening,
    z_scores,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# The cut to a rank.


@pytest.mark.parametrize("rank", [2, 5, 9])
def test_a_cut_is_the_truncated_svd_of_the_scores(rank: int) -> None:
    """Of all scores of 30 contexts for 40 items, less each context's mean."""
    weights, contexts, targets = drawn(12, 9).double(), drawn(30, 12, seed=1).double(), drawn(40, 9, seed=2).double()
    centred = targets - targets.mean(0)
    left, right = low_rank(weights, contexts.T @ contexts, targets, rank)
    u, sizes, v = np.linalg.svd((contexts @ weights @ centred.T).numpy())
    expected = u[:, :rank] * sizes[:rank] @ v[:rank]
    assert left.shape[1] == right.shape[1] == rank
    np.testing.assert_allclose(contexts @ left @ right.T @ centred.T, expected, atol=1e-10)


def test_a_cut_of_one_hot_targets_needs_no_matrix_of_them() -> None:
    weights, contexts = drawn(8, 8).double(), drawn(30, 8, seed=1).double()
    gram = contexts.T @ contexts
    one_hot, implied = low_rank(weights, gram, torch.eye(8), 3), low_rank(weights, gram, None, 3)
    centred = torch.eye(8).double() - 1 / 8
    scores = [left @ right.T @ centred for left, right in (one_hot, implied)]
    torch.testing.assert_close(scores[0], scores[1], atol=1e-10, rtol=0)


def test_weights_of_a_small_rank_are_not_cut_further() -> None:
    weights = (drawn(8, 2) @ drawn(2, 6, seed=1)).double()
    left, right = low_rank(weights, torch.eye(8), drawn(40, 6, seed=2), 5)
    assert left.shape == (8, 2)
    torch.testing.assert_close(left @ right.T, weights)


# Vectors of users.


def test_a_user_vector_is_the_decayed_sum_of_event_vectors() -> None:
    events = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.25, 0.25]])
    model = LinearModel(KernelStack((0.5,)), events, torch.eye(2))
    assert model.user_vectors([np.array([0, 1]), np.array([2, 0, 1])]).tolist() == [[0.5, 1.0], [0.5625, 1.0625]]
    assert model.user_vectors([np.zeros(0, dtype=np.int64)]).tolist() == [[0.0, 0.0]]
    with pytest.raises(InputError, match="items that the catalogue lacks"):
        model.user_vectors([np.array([0, 3])])


def test_a_user_vector_of_two_decays_is_the_sum_of_both() -> None:
    """Decays 1/2 and 0: event vectors of the second count for the last event alone."""
    events = torch.tensor([[1.0, 0.0, 4.0, 0.0], [0.0, 1.0, 0.0, 8.0]])
    model = LinearModel(KernelStack((0.5, 0.0)), events, torch.eye(2))
    assert model.user_vectors([np.array([0, 1]), np.array([1, 0])]).tolist() == [[0.5, 1.0 + 8.0], [1.0 + 4.0, 0.5]]


def test_a_joined_dot_product_is_the_sum_of_z_scores() -> None:
    towers, candidates, ours, theirs = drawn(50, 6), drawn(50, 4, seed=1), drawn(7, 6, seed=2), drawn(7, 4, seed=3)
    joined = Fusion.over(0.3, towers, candidates).user_vectors(ours, theirs)
    blended = joined @ torch.cat([towers, candidates], dim=1).T
    expected = 0.7 * z_scores(ours @ towers.T) + 0.3 * z_scores(theirs @ candidates.T)
    centred = blended - blended.mean(1, keepdim=True)  # a constant of each user apart
    torch.testing.assert_close(centred.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_towers_score_alone_if_the_closed_form_knows_no_event(share: float) -> None:
    towers, user = drawn(20, 3), drawn(1, 3, seed=1)
    fusion = Fusion.over(share, towers, drawn(20, 2, seed=2))
    joined = fusion.user_vectors(user, torch.zeros(1, 2))
    assert torch.equal(joined, torch.cat([standardise(user, fusion.towers), torch.zeros(1, 2)], dim=1))
    assert not fusion.user_vectors(torch.zeros(1, 3), torch.zeros(1, 2)).any()


def test_a_user_is_standardised_alike_in_any_batch() -> None:
    users, spread = drawn(21, 384), covariance(drawn(100, 384, seed=1))
    alone = torch.cat([standardise(user[None], spread) for user in users])
    assert torch.equal(standardise(users, spread), alone)
    assert torch.equal(standardise(users[5:], spread), alone[5:])


# The closed form of an artifact.


@pytest.fixture(scope="module")
def towers(run: Path) -> Recommender:
    return Recommender.load(run)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def histories(shard: Shard) -> list[np.ndarray]:
    return [shard.history(user, "test") for user in range(len(shard))]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_hybrid_scores_and_ranks_as_added_z_scores(
    run: Path, toy: Path, towers: Recommender, kind: Kind, share: float, histories: list[np.ndarray], tmp_path: Path
) -> None:
    hybrid = Recommender.load(hybrid_of(run, toy, tmp_path / "hybrid", kind, share))
    theirs, ours = towers.scorer()(histories), plain_scores(toy, histories, kind)
    expected = (1 - share) * z_scores(theirs) + share * z_scores(ours)  # (B, N)
    found = hybrid.scorer()(histories)
    torch.testing.assert_close(z_scores(found), z_scores(expected), atol=1e-5, rtol=0)
    vectors = hybrid.user_vectors(hybrid.items.read, histories)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(histories)))
    for vector, scores in zip(vectors, expected, strict=True):
        ranked = [row for row, _ in hybrid.recommend(vector, k=24)]
        gaps = scores[ranked[:-1]] - scores[ranked[1:]]
        assert gaps.min() > -1e-5  # equal scores apart


def test_what_is_served_at_a_rank_is_what_weights_of_that_rank_score(
    toy: Path, towers: Recommender, kind: Kind, histories: list[np.ndarray]
) -> None:
    config = toy_config(kind)
    features = toy_features(toy, config)
    cut = toy_solution(toy, config, features, 0.5).cut(features and features.table, 5)
    served = toy_closed_form(toy, towers.vectors, kind, rank=5)
    assert served.rank == torch.linalg.matrix_rank(cut.weights) == 5
    table = table_of(features, 24)
    contexts = torch.stack([context(config.stack, table, history.astype(np.int64)) for history in histories])
    scored = cut.weights @ table.T
    expected = z_scores(at_the_mean(contexts @ scored, scored.any(0)))
    torch.testing.assert_close(z_scores(served.model.score(histories)), expected, atol=1e-4, rtol=0)


def test_vectors_are_no_longer_than_the_exact_search_allows(toy: Path, towers: Recommender, kind: Kind) -> None:
    closed_form = toy_closed_form(toy, towers.vectors, kind)
    for vectors in (closed_form.model.events, closed_form.model.candidates):
        assert vectors.norm(dim=1).max() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(closed_form.model.candidates.mean(0), torch.zeros(closed_form.rank), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["text", "stacked text"])
def test_as_an_event_a_new_item_has_the_vector_of_one_with_its_text(
    toy: Path, towers: Recommender, embeddings: Tensor, kind: Kind
) -> None:
    closed_form = toy_closed_form(toy, towers.vectors, kind)
    events, candidates = closed_form.item_vectors(embeddings)
    torch.testing.assert_close(events, closed_form.model.events, atol=1e-4, rtol=0)
    assert candidates.norm(dim=1).max() <= 1 + 1e-6


def test_a_new_item_is_scored_as_items_with_texts_like_its_own(
    toy: Path, towers: Recommender, embeddings: Tensor, kind: Kind
) -> None:
    """Its candidate vector is the ridge regression of the others' vectors on their texts."""
    closed_form = toy_closed_form(toy, towers.vectors, kind)
    _, predicted = closed_form.item_vectors(embeddings)
    known = closed_form.model.candidates.any(-1)
    texts = toy_whitening(toy, toy_config(kind))[1](embeddings)
    golden = Ridge(alpha=RIDGE, fit_intercept=False).fit(texts, closed_form.model.candidates).predict(texts)
    likeness = F.cosine_similarity(predicted, torch.from_numpy(golden).float())
    assert known.sum() > 20
    assert likeness[known].min() > 0.98


def test_a_closed_form_that_learned_nothing_leaves_the_towers_alone(
    toy: Path, towers: Recommender, kind: Kind, tmp_path: Path
) -> None:
    config = toy_config(kind)
    features = toy_features(toy, config)
    solution = toy_solution(toy, config, features, 1.0)
    nothing = replace(solution, weights=torch.zeros_like(solution.weights)).cut(features and features.table, 384)
    closed_form = ClosedForm.build(config, nothing, toy_texts(toy, config, features), towers.vectors)
    parts = (towers.catalogue, towers.vectors, towers.adapter, towers.card, closed_form)
    Recommender.of_run(*parts).save(tmp_path)
    hybrid, history = Recommender.load(tmp_path), [0, 3, 4]
    torch.testing.assert_close(hybrid.user_vector(history), towers.user_vector(history))
    assert hybrid.new_items(["a soup"]).searched.shape == (1, 384)


@pytest.mark.parametrize(("kind", "decays"), [("ids", 1), ("stacked ids", 2)])
def test_ids_tell_nothing_of_an_event_with_a_new_item(
    toy: Path, towers: Recommender, embeddings: Tensor, kind: Kind, decays: int
) -> None:
    closed_form = toy_closed_form(toy, towers.vectors, kind)
    events, _ = closed_form.item_vectors(embeddings[:2])
    assert events.shape == (2, decays * closed_form.rank)
    assert not events.any()


def test_a_history_has_the_same_vector_in_any_batch(
    run: Path, toy: Path, kind: Kind, histories: list[np.ndarray], tmp_path: Path
) -> None:
    hybrid = Recommender.load(hybrid_of(run, toy, tmp_path / "hybrid", kind))
    together = hybrid.user_vectors(hybrid.items.read, histories)
    assert torch.equal(together, torch.stack([hybrid.user_vector(history) for history in histories]))
    assert torch.equal(together[3:], hybrid.user_vectors(hybrid.items.read, histories[3:]))


def test_a_hybrid_is_evaluated_by_its_blended_scores(
    run: Path, toy: Path, kind: Kind, towers: Recommender, tmp_path: Path
) -> None:
    hybrid = fedrec.load(hybrid_of(run, toy, tmp_path / "hybrid", kind))

    def blended(histories: list[np.ndarray]) -> Tensor:
        return z_scores(towers.scorer()(histories)) + z_scores(plain_scores(toy, histories, kind))

    dataset = Dataset.open(toy)
    expected = metric_means(metric_sums(rank(blended, dataset.shard, range(12), "test").ranks))  # type: ignore[arg-type]
    assert hybrid.evaluate(dataset) == {**expected, "coverage@10": pytest.approx(0.5, abs=0.5)}


# The grid of the exact search.


def test_scores_of_vectors_of_length_sqrt_2_are_exact_and_within_the_doubt() -> None:
    rng = np.random.default_rng(0)
    halves = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in rng.standard_normal((2, 200, 384))]
    items = np.concatenate(halves, axis=1).astype(np.float32)  # √2 long
    items[0] = items[0, ::-1]
    user = items[0] / np.linalg.norm(items[0])
    scores = exact_scores(items, user)
    grid = [[Fraction(round(float(x) * 2**26), 2**26) for x in vector] for vector in (items[0], items[1], user)]
    assert scores[0] == sum(a * b for a, b in zip(grid[0], grid[2], strict=True))
    assert scores[1] == sum(a * b for a, b in zip(grid[1], grid[2], strict=True))
    assert scores[0] == pytest.approx(2**0.5)
    assert np.abs(items @ user - scores).max() < doubt(user)
