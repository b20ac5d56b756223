"""Comparing two rankings: by hand, against scipy, and the same under a swap; and groups of users."""

from math import log2, sqrt

import numpy as np
import pytest
from scipy.stats import bootstrap

from fedrec.data.errors import InputError
from fedrec.recsys.evaluation.groups import by_length
from fedrec.recsys.evaluation.ranking import metric_sums, per_user
from fedrec.recsys.evaluation.significance import compare


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---- each user's metric


def test_each_users_metric_by_hand() -> None:
    ranks = np.array([0, 2, 9, 10])
    assert per_user(ranks, "ndcg@10").tolist() == pytest.approx([1, 1 / log2(4), 1 / log2(11), 0])
    assert per_user(ranks, "recall@10").tolist() == per_user(ranks, "hr@10").tolist() == [1, 1, 1, 0]
    assert per_user(ranks, "recall@3").tolist() == [1, 1, 0, 0]
    assert per_user(ranks, "mrr").tolist() == pytest.approx([1, 1 / 3, 1 / 10, 1 / 11])


@pytest.mark.parametrize("metric", ["ndcg@10", "recall@5", "mrr"])
def test_users_add_up_to_the_sums_that_nodes_tell(metric: str) -> None:
    ranks = rng().integers(0, 40, 300)
    assert per_user(ranks, metric).sum() == pytest.approx(metric_sums(ranks)[metric])


@pytest.mark.parametrize("metric", ["ndcg", "map@10", "recall@", "mrr@x"])
def test_an_unknown_metric_is_refused(metric: str) -> None:
    with pytest.raises(InputError, match="ndcg@k"):
        per_user(np.array([0]), metric)


# ---- the bootstrap


def test_two_users_by_hand() -> None:
    """Differences 1 and 0: a resample's mean is 0, 1/2 or 1, in a quarter, a half and a quarter of all."""
    found = compare(np.array([1.0, 1.0]), np.array([0.0, 1.0]), rng(), resamples=40_000)
    assert (found.users, found.difference, found.low, found.high) == (2, 1 / 2, 0, 1)
    assert found.p == pytest.approx(1 / 4, abs=4 * sqrt(1 / 4 * 3 / 4 / 40_000))


def test_better_for_every_user_is_certain() -> None:
    found = compare(np.full(50, 0.7), np.full(50, 0.5), rng(), resamples=999)
    assert (found.difference, found.low, found.high) == pytest.approx((0.7 - 0.5,) * 3)
    assert found.p == 1 / 1000


def test_a_model_does_not_beat_itself() -> None:
    found = compare(np.array([0.1, 0.9]), np.array([0.1, 0.9]), rng())
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_swapping_the_models_mirrors_the_answer() -> None:
    ours, theirs = (per_user(rng(seed).integers(0, 30, 400), "ndcg@10") for seed in (1, 2))
    forth, back = compare(ours, theirs, rng()), compare(theirs, ours, rng())
    assert back.difference == -forth.difference
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low))
    assert forth.p + back.p == pytest.approx(1, abs=3 / 10_000)


def test_the_interval_is_scipys() -> None:
    ours, theirs = (per_user(rng(seed).integers(0, 25, 500), "ndcg@10") for seed in (3, 4))
    theirs_interval = bootstrap(
        (ours, theirs),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        n_resamples=10_000,
        method="percentile",
        rng=rng(5),
    ).confidence_interval
    found = compare(ours, theirs, rng(6))
    spread = found.high - found.low
    assert (found.low, found.high) == pytest.approx(tuple(theirs_interval), abs=spread / 40)


def test_few_at_a_time_are_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = (per_user(rng(seed).integers(0, 25, 60), "ndcg@10") for seed in (3, 4))
    whole = compare(ours, theirs, rng(), resamples=1000)
    monkeypatch.setattr("fedrec.recsys.evaluation.significance.MAX_COUNTS", 100)
    assert compare(ours, theirs, rng(), resamples=1000) == whole


@pytest.mark.parametrize("users", [(2, 3), (0, 0)])
def test_rankings_of_other_users_are_refused(users: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="the same users"):
        compare(np.zeros(users[0]), np.zeros(users[1]), rng())


# ---- groups


def test_thirds_by_length() -> None:
    lengths, ranks = np.array([9, 3, 5, 8, 4, 7]), np.array([0, 1, 99, 0, 99, 1])
    short, middle, long = by_length(lengths, ranks)
    assert [(g.name, g.shortest, g.longest, g.users) for g in (short, middle, long)] == [
        ("short", 3, 4, 2),
        ("middle", 5, 7, 2),
        ("long", 8, 9, 2),
    ]
    assert (short.metrics["recall@10"], middle.metrics["recall@10"], long.metrics["recall@10"]) == (1 / 2, 1 / 2, 1)
    assert long.metrics["mrr"] == 1


def test_users_of_one_length_stay_together() -> None:
    """Four users of five have three events: the first two thirds are one group."""
    groups = by_length(np.array([3, 3, 8, 3, 3]), np.zeros(5, dtype=np.int64))
    assert [(g.name, g.shortest, g.longest, g.users) for g in groups] == [("short", 3, 3, 4), ("long", 8, 8, 1)]
    assert by_length(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)) == []
