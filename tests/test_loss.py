"""The losses, as arithmetic."""

from math import exp, log

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedrec.data.randomness import DrawKey
from fedrec.recsys.training.local_training import FitConfig, dropout_mask, have_examples, sample_negatives
from fedrec.recsys.training.loss import client_means, event_means, sampled_softmax
from tests.support.toy_world import shard_of


def test_drawing_every_item_gives_the_full_softmax() -> None:
    scores = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))  # 4 events, 6 items
    targets = torch.tensor([0, 2, 5, 2])
    hits = F.one_hot(targets, 6).bool()
    losses = sampled_softmax(scores[range(4), targets], scores, hits, items=6)
    torch.testing.assert_close(losses, F.cross_entropy(scores, targets, reduction="none"))


def test_each_drawn_item_stands_for_its_share_of_the_catalogue() -> None:
    """101 items, two drawn: each stands for 50."""
    loss = sampled_softmax(torch.tensor([1.0]), torch.tensor([[0.5, -0.5]]), torch.zeros(1, 2, dtype=torch.bool), 101)
    assert float(loss) == pytest.approx(log(exp(1) + 50 * exp(0.5) + 50 * exp(-0.5)) - 1, abs=1e-6)


def test_a_drawn_item_that_is_the_next_one_is_not_held_against_it() -> None:
    """Of two drawn one is the next item itself; the other stands for all 100 others."""
    loss = sampled_softmax(torch.tensor([1.0]), torch.tensor([[0.5, 1.0]]), torch.tensor([[False, True]]), 101)
    assert float(loss) == pytest.approx(log(exp(1) + 100 * exp(0.5)) - 1, abs=1e-6)


def test_a_client_weighs_its_examples_alike_and_padding_not_at_all() -> None:
    losses = torch.tensor([[[9.0, 1.0, 3.0], [9.0, 9.0, 5.0]], [[7.0, 7.0, 7.0], [1.0, 2.0, 6.0]]])  # (2, 2, 3)
    valid = torch.tensor([[[0, 1, 1], [0, 0, 1]], [[0, 0, 0], [1, 1, 1]]]).bool()
    means = client_means(event_means(losses, valid), valid.any(-1))
    assert means.tolist() == [((1 + 3) / 2 + 5) / 2, (1 + 2 + 6) / 3]


def test_a_client_without_events_has_no_loss() -> None:
    nothing = torch.zeros(1, 1, 2, dtype=torch.bool)
    means = event_means(torch.full((1, 1, 2), torch.nan), nothing)
    assert client_means(means, nothing.any(-1)).tolist() == [0.0]


@pytest.mark.parametrize("held_out", [0, 1, 2])
def test_a_client_learns_if_one_event_comes_before_another(held_out: int) -> None:
    histories = [list(range(held_out + events)) for events in range(4)]
    crops = shard_of(histories).training_windows(range(4), 9, 0, 1, held_out)
    assert have_examples(crops).tolist() == [False, False, True, True]
    assert have_examples(crops.pooled).tolist() == [True]


def test_negatives_are_distinct_and_a_clients_own() -> None:
    config, salts = FitConfig(negatives=10), np.array([7, 8, 9], dtype=np.uint64)
    drawn = sample_negatives(config, 50, salts, DrawKey(1, 2))
    assert [len(set(row)) for row in drawn.tolist()] == [10] * 3
    assert len({tuple(row) for row in drawn.tolist()}) == 3
    assert torch.equal(drawn[1:2], sample_negatives(config, 50, salts[1:2], DrawKey(1, 2)))
    for key in (DrawKey(0, 2, 0), DrawKey(1, 3, 0), DrawKey(1, 2, 1)):
        assert not torch.equal(drawn, sample_negatives(config, 50, salts, key))
    assert sample_negatives(config, 10, salts, DrawKey(1, 2)).tolist() == [list(range(10))] * 3


def test_a_client_drops_what_it_drops_in_any_company() -> None:
    cohort = shard_of([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]]).training_windows([0, 1], 4, 0, 1)
    kept = dropout_mask(FitConfig(dropout=0.25), cohort, 100, DrawKey(0, 1))
    assert kept is not None
    assert kept.shape == (2, 1, 3, 100)
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float(kept.mean()) == pytest.approx(1, abs=0.1), "what is left makes up for what is not"
    (_, last), *_ = shard_of([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]]).training_windows([1], 4, 0, 1).blocks(1, 1)
    alone = dropout_mask(FitConfig(dropout=0.25), last, 100, DrawKey(0, 1))
    assert alone is not None
    assert torch.equal(alone[0], kept[1])
    assert dropout_mask(FitConfig(), cohort, 100, DrawKey(0, 1)) is None
