"""What the server accepts as an answer: sums that some users can have, and no others."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedrec.federation.messages import Order, Update
from fedrec.federation.validate_update import validate_update
from fedrec.recsys.evaluation.ranking import metric_sums
from tests.support.toy_world import small_config

TEMPLATE = {"a": torch.zeros(2)}
ASKED = Order(3, np.arange(4), clip=0.5)
LEARNED = {"loss": 12.0, "learners": 4.0, "clipped": 1.0, "diverged": 1.0}
RANKS = metric_sums(np.array([0, 3, 12, 500]))


LONG = torch.tensor([0.9, 1.2], dtype=torch.float64)  # of length 1.5: of three users, each clipped to 0.5
NONE = torch.zeros(2, dtype=torch.float64)


def trained(change: Tensor = LONG, **sums: float) -> Update:
    return validate_update(Update(3, 4, {"a": change}, LEARNED | sums), ASKED, TEMPLATE, small_config())


def ranked(**sums: float) -> Update:
    found = RANKS | {name.replace("_", "@"): value for name, value in sums.items()}
    return validate_update(Update(3, 4, {}, found), replace(ASKED, split="test"), {}, small_config())


@pytest.mark.parametrize(
    ("sums", "said"),
    [
        ({"learners": 5.0}, "5 for the metric learners of 4 users"),
        ({"learners": -1.0}, "-1 for the metric learners"),
        ({"learners": 3.5}, "3.5 for the metric learners, which counts users"),
        ({"clipped": 0.5}, "0.5 for the metric clipped, which counts users"),
        ({"clipped": 4.0}, "4 for the metric clipped of 3 users who learned"),
        ({"diverged": 3.0, "clipped": 2.0}, "2 for the metric clipped of 1 users who learned"),
        ({"diverged": 4.0, "clipped": 0.0}, "12 for the metric loss of 0 users who learned"),
        ({"learners": 0.0, "diverged": 0.0, "clipped": 0.0, "loss": 0.0}, "length 1.5 from 0 users who learned"),
        ({"learners": 3.0}, "length 1.5 from 2 users who learned"),
        ({"loss": 1e308}, r"1e\+308 for the metric loss of 3 users who learned, each at most 53.3"),
        ({"loss": 3 * 53.4}, "for the metric loss"),
        ({"loss": float("inf")}, "inf for the metric loss"),
        ({"loss": -1.0}, "-1 for the metric loss"),
    ],
)
def test_sums_that_no_training_has_are_refused(sums: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        trained(LONG, **sums)


def test_sums_that_training_can_have_are_accepted() -> None:
    trained()
    trained(loss=3 * 53.2)
    trained(NONE, loss=0.0, learners=0.0, clipped=0.0, diverged=0.0)
    trained(NONE, loss=0.0, learners=2.0, clipped=0.0, diverged=2.0)


@pytest.mark.parametrize(
    "sums",
    [
        {"users": 0.0},
        {"users": 5.0},
        {"users": 2.0},
        {"users": 3.5},
        {"recall_5": 1.0},
        {"hr_10": 3.0},
        {"recall_10": 1.0, "hr_10": 1.0},
        {"recall_20": 3.5, "hr_20": 3.5},
        {"ndcg_10": 3.0},
        {"ndcg_10": 0.0},
        {"ndcg_20": 4.0},
        {"mrr": 4.0},
        {"mrr": 0.4},
        {"mrr": float("nan")},
    ],
)
def test_metrics_that_no_ranks_have_are_refused(sums: dict[str, float]) -> None:
    ranked()
    with pytest.raises(ValueError, match="a sum of"):
        ranked(**sums)


def test_a_score_of_nobody_is_refused() -> None:
    """Nobody ranked, and all of them best: it would choose the round."""
    nobody = dict.fromkeys(RANKS, 4.0) | {"users": 0.0}
    with pytest.raises(ValueError, match="recall@5 of 0 ranked users"):
        validate_update(Update(3, 4, {}, nobody), replace(ASKED, split="test"), {}, small_config())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 40) | st.integers(0, 2**31), max_size=60), st.integers(0, 3))
def test_every_ranking_is_accepted(ranks: list[int], more: int) -> None:
    """Also if some of those who were asked have no held-out item."""
    asked = len(ranks) + more
    update = Update(3, asked, {}, metric_sums(np.array(ranks, dtype=np.int64)))
    assert validate_update(update, Order(3, np.arange(asked), split="test"), {}, small_config()) is update
