"""Ranks and metrics: by hand, and against scikit-learn."""

from math import log2
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score
from torch import Tensor

from fedrec.data.catalogue import Catalogue
from fedrec.data.shard import NO_ITEM, Shard
from fedrec.recsys.baselines import simple
from fedrec.recsys.evaluation.ranking import RankingConfig, metric_means, metric_sums, rank, restrict_to
from fedrec.recsys.model.scoring import model_scorer
from fedrec.recsys.model.two_tower import TwoTowerModel

SAMPLED = RankingConfig("sampled-99")


def one_user(*events: int) -> Shard:
    return Shard(np.array([0]), np.array([len(events)]), np.array(events), np.array([5], dtype=np.uint64))


def fixed(*scores: float):
    return lambda histories: torch.tensor([scores] * len(histories), dtype=torch.float32)


def test_the_rank_counts_unseen_items_before_the_held_out_one() -> None:
    """Items 0 and 1 are seen; of the rest only item 4 beats item 3."""
    shard = one_user(0, 1, 3)
    assert rank(fixed(9, 8, 0.1, 0.5, 0.7, 0.2), shard, [0], "test").ranks.tolist() == [1]


def test_ties_count_against_the_model() -> None:
    shard = one_user(0, 1, 3)
    assert rank(fixed(1, 1, 1, 1, 1, 1), shard, [0], "test").ranks.tolist() == [3]  # items 2, 4, 5


def test_validation_ranks_the_item_before_the_last_without_seeing_the_last() -> None:
    shard = one_user(0, 1, 3, 2)
    assert rank(fixed(9, 1, 5, 2, 3, 4), shard, [0], "validation").ranks.tolist() == [3]  # behind 2, 4 and 5


def test_an_item_held_out_though_it_was_seen_is_ranked_among_the_unseen() -> None:
    """Item 1 is held out again: of the unseen only 4 beats it."""
    shard, score = one_user(0, 1, 1), fixed(9, 0.6, 0.1, 0.5, 0.7, 0.2)
    assert rank(score, shard, [0], "test").ranks.tolist() == [1]
    assert rank(score, shard, [0], "test", SAMPLED).ranks.tolist() == [1]


def test_coverage_is_the_share_of_items_in_anyones_top_ten() -> None:
    scores = [float(-item) for item in range(40)]
    assert rank(fixed(*scores), one_user(0, 1, 39), [0], "test", RankingConfig(coverage=True)).coverage == 10 / 40


def test_only_candidates_are_ranked_and_listed() -> None:
    """Of the candidates 1, 3, 5 and 6 the user has seen 1; 5 beats 3, the held-out item, and 6 does not."""
    shard, candidates = one_user(0, 1, 3), np.array([False, True, False, True, False, True, True])
    found = rank(
        restrict_to(fixed(9, 8, 7, 0.5, 6, 0.7, 0.2), candidates), shard, [0], "test", RankingConfig(coverage=True)
    )
    assert found.ranks.tolist() == [1]
    assert found.coverage == 3 / 4


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**16))
def test_ranks_among_candidates_count_those_alone(seed: int) -> None:
    generator = np.random.default_rng(seed)
    events, scores, candidates = (
        generator.permutation(30)[:5],
        generator.integers(9, size=30),
        generator.random(30) < 0.4,
    )
    candidates[events[-1]] = True
    unseen = [item for item in np.flatnonzero(candidates) if item not in events]
    (found,) = rank(restrict_to(fixed(*map(float, scores)), candidates), one_user(*events), [0], "test").ranks
    assert found == sum(scores[item] >= scores[events[-1]] for item in unseen)
    assert found <= rank(fixed(*map(float, scores)), one_user(*events), [0], "test").ranks[0]


def test_users_who_only_train_are_not_ranked() -> None:
    ends, salts = np.array([3, 6, 9]), np.zeros(3, dtype=np.uint64)
    shard = Shard(ends - 3, ends, np.array([0, 1, 3, 2, NO_ITEM, NO_ITEM, 1, 0, 2]), salts)
    score = fixed(9, 8, 0.1, 0.5, 0.7, 0.2)
    assert rank(score, shard, range(3), "test").ranks.tolist() == [1, 3]
    assert rank(score, shard, [1], "test").ranks.tolist() == []


def test_metrics_by_hand() -> None:
    means = metric_means(metric_sums(np.array([0, 4, 9, 10, 99])))
    assert means["users"] == 5
    assert means["mrr"] == pytest.approx((1 + 1 / 5 + 1 / 10 + 1 / 11 + 1 / 100) / 5)
    assert means["recall@5"] == means["hr@5"] == 2 / 5
    assert means["recall@10"] == means["hr@10"] == 3 / 5
    assert means["recall@20"] == means["hr@20"] == 4 / 5
    assert means["ndcg@10"] == pytest.approx((1 + 1 / log2(6) + 1 / log2(11)) / 5)
    assert means["ndcg@20"] == pytest.approx((1 + 1 / log2(6) + 1 / log2(11) + 1 / log2(12)) / 5)


def test_metrics_of_nobody_are_zero() -> None:
    assert metric_means(metric_sums(np.array([], dtype=np.int64)))["ndcg@10"] == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=12, max_size=30, unique=True), st.data())
def test_ndcg_is_scikit_learns(scores: list[int], data: st.DataObject) -> None:
    """Without ties, on unseen items, our NDCG@10 is `sklearn.metrics.ndcg_score` with one relevant item."""
    target = data.draw(st.integers(2, len(scores) - 1))
    ranks = rank(fixed(*map(float, scores)), one_user(0, 1, target), [0], "test").ranks
    truth = np.zeros((1, len(scores) - 2))
    truth[0, target - 2] = 1
    expected = ndcg_score(truth, np.array([scores[2:]]), k=10)
    assert metric_sums(ranks)["ndcg@10"] == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16))
def test_sampled_ranks_are_never_worse_than_full_ones(seed: int) -> None:
    generator = np.random.default_rng(seed)
    events = generator.permutation(300)[:5]
    shard = one_user(*events)
    score = fixed(*generator.normal(size=300))
    full, sampled = (rank(score, shard, [0], "test", config).ranks[0] for config in (RankingConfig(), SAMPLED))
    assert sampled <= min(full, 99)
    assert sampled == rank(score, shard, [0], "test", SAMPLED).ranks[0]


def test_sampled_ranks_of_a_small_catalogue_are_the_full_ones(shard: Shard) -> None:
    score = simple.random_scores(24, seed=3)
    full = rank(score, shard, range(12), "test").ranks
    score = simple.random_scores(24, seed=3)
    assert rank(score, shard, range(12), "test", SAMPLED).ranks.tolist() == full.tolist()


def test_blocks_of_users_change_no_rank(
    model: TwoTowerModel, bent: dict[str, Tensor], shard: Shard, embeddings: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = model_scorer(model, bent, model.item_vectors(bent, embeddings))
    whole = rank(score, shard, range(12), "test").ranks.tolist()
    monkeypatch.setattr("fedrec.recsys.evaluation.ranking.MAX_USERS", 5)
    assert rank(score, shard, range(12), "test").ranks.tolist() == whole


def test_text_neighbours_stay_with_the_users_taste(shard: Shard, embeddings: Tensor) -> None:
    scores = simple.text_neighbours(embeddings)([shard.history(user) for user in range(12)])
    cooking, space = scores[:, :12].mean(1), scores[:, 12:].mean(1)
    assert (cooking > space).tolist() == [True] * 6 + [False] * 6


def test_popularity_counts_what_a_split_may_read() -> None:
    shard = Shard(np.array([0, 4]), np.array([4, 8]), np.array([0, 1, 2, 3, 0, 2, 1, 3]), np.zeros(2, dtype=np.uint64))
    assert simple.popularity(shard, 4, "validation")([np.array([0])]).tolist() == [[2, 1, 1, 0]]
    assert simple.popularity(shard, 4, "test")([np.array([0])]).tolist() == [[2, 2, 2, 0]]


def test_popularity_on_ml_100k_is_the_known_figure(ml_100k: Path) -> None:
    """0.044 with ties in file order; ties by item id would give 0.025."""
    shard, items = Shard.load(ml_100k), len(Catalogue.load(ml_100k))
    assert (len(shard), items, len(shard.items)) == (943, 1682, 100_000)
    ranks = rank(simple.popularity(shard, items, "test"), shard, range(943), "test").ranks
    assert metric_means(metric_sums(ranks))["ndcg@10"] == pytest.approx(0.0439, abs=5e-5)
