"""The losses, as arithmetic."""

from math import exp, log

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedrec.data.randomness import DrawKey
from fedrec.recsys.training.local_training import (
    NEGATIVE_GROUPS,
    FitConfig,
    dropout_mask,
    have_examples,
    negative_groups,
    sample_negatives,
)
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


CPU = torch.device("cpu")


def negatives_of(salts: np.ndarray, key: DrawKey, items: int = 50) -> Tensor:
    return sample_negatives(FitConfig(negatives=10), items, salts, key, CPU).per_client()


def test_negatives_are_distinct_and_a_clients_in_any_company() -> None:
    salts = np.random.default_rng(0).integers(2**64, size=40, dtype=np.uint64)
    drawn = negatives_of(salts, DrawKey(1, 2))
    assert [len(set(row)) for row in drawn.tolist()] == [10] * 40
    for few in ([0], [7, 10, 30], [*range(40)][::-1]):
        assert torch.equal(drawn[few], negatives_of(salts[few], DrawKey(1, 2)))
    for key in (DrawKey(0, 2, 0), DrawKey(1, 3, 0), DrawKey(1, 2, 1)):
        assert not torch.equal(drawn, negatives_of(salts, key))
    assert negatives_of(salts[:3], DrawKey(1, 2), items=10).tolist() == [list(range(10))] * 3


def test_clients_of_a_group_share_negatives_in_every_step_of_a_round() -> None:
    salts = np.random.default_rng(0).integers(2**64, size=1000, dtype=np.uint64)
    groups = negative_groups(salts, DrawKey(1, 2))
    sizes = np.bincount(groups, minlength=NEGATIVE_GROUPS)
    assert len(sizes) == NEGATIVE_GROUPS
    assert (abs(sizes - 1000 / NEGATIVE_GROUPS) < 4 * (1000 / NEGATIVE_GROUPS) ** 0.5).all()
    assert not np.array_equal(groups, negative_groups(salts, DrawKey(1, 3)))
    for step in (0, 1):
        drawn = negatives_of(salts, DrawKey(1, 2, step))
        assert len({(group, tuple(row)) for group, row in zip(groups.tolist(), drawn.tolist(), strict=True)}) == 16


@pytest.mark.parametrize("items", [11, 50, 159, 160, 1000])
def test_items_are_dealt_to_the_groups_evenly(items: int) -> None:
    """Each item is in as many samples as any other, give or take one, unless there are too few samples for all."""
    salts = np.random.default_rng(0).integers(2**64, size=1000, dtype=np.uint64)
    _, firsts = np.unique(negative_groups(salts, DrawKey(1, 2)), return_index=True)
    assert len(firsts) == NEGATIVE_GROUPS
    counts = np.bincount(negatives_of(salts[firsts], DrawKey(1, 2), items).flatten().numpy(), minlength=items)
    assert counts.max() - counts.min() <= 1


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
