"""The sum of closed forms: z-scores by hand, weights that add up, and parts that are tuned on validation alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedrec.recsys.baselines.fusion import FusionConfig, fuse, sum_scorer, z_scores
from fedrec.recsys.baselines.registry import BASELINES
from fedrec.recsys.baselines.tuning import TrainingData, tune
from fedrec.recsys.model.scoring import Scorer
from tests.support.toy_world import shard_of

PARTS = tuple(BASELINES[name] for name in ("next-item ridge", "EASE with recency", "EASE with text prior"))


def constant(*scores: float) -> Scorer:
    return lambda histories: torch.tensor([scores]).repeat(len(histories), 1)


def world() -> TrainingData:
    """20 users walk up a ladder of 12 items, each from an own step."""
    walks = [[(start + step) % 12 for step in range(8)] for start in range(20)]
    return TrainingData(shard_of(walks), torch.randn(12, 4, generator=torch.Generator().manual_seed(0)))


def test_scores_are_standardised_over_the_items() -> None:
    """(1, 3): a mean of 2 and a deviation of 1. Equal scores say nothing."""
    assert z_scores(torch.tensor([[1.0, 3.0], [5.0, 5.0], [0.0, 0.0]])).tolist() == [[-1, 1], [0, 0], [0, 0]]


def test_the_sum_is_weighted_and_does_not_depend_on_the_units() -> None:
    score = sum_scorer([constant(1.0, 3.0), constant(700.0, -100.0)], [0.75, 0.25])
    assert score([np.array([0])])[0].tolist() == pytest.approx([-0.75 + 0.25, 0.75 - 0.25])


def test_a_part_of_no_weight_is_not_asked() -> None:
    def refuse(histories: Any) -> torch.Tensor:
        raise AssertionError("asked")

    assert sum_scorer([refuse, constant(1.0, 3.0)], [0.0, 1.0])([np.array([0])])[0].tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("config", "weights"),
    [((1.0, 0.3), (1, 0, 0)), ((0.0, 0.25), (0, 0.75, 0.25)), ((0.5, 1.0), (0.5, 0, 0.5))],
)
def test_the_weights_add_up_to_one(config: tuple[float, float], weights: tuple[float, float, float]) -> None:
    assert FusionConfig(*config).weights == pytest.approx(weights)


def test_alone_a_part_ranks_as_its_own_baseline() -> None:
    """With all the weight on one, the order of the items is that of the baseline tuned by itself, for both splits."""
    data = world()
    histories = [data.shard.history(user, "test") for user in range(20)]
    for part, config in zip(PARTS, [FusionConfig(1, 0), FusionConfig(0, 0), FusionConfig(0, 1)], strict=True):
        tuned = tune(part, world())
        fused = fuse(PARTS, data, "test", config)(histories)
        torch.testing.assert_close(fused, z_scores(tuned.score(histories)), atol=1e-5, rtol=0)


def test_the_parts_are_tuned_once_and_fitted_again_for_the_test() -> None:
    fitted: list[str] = []

    def watched(data: TrainingData, split: str, config: Any, observe: Any) -> Scorer:
        fitted.append(split)
        return PARTS[1].fit(data, split, config, observe)

    part = replace(PARTS[1], fit=watched, grid={"ridge": (1.0, 10.0)})
    fused = replace(
        BASELINES["closed forms together"], fit=lambda data, split, config, _: fuse([part] * 3, data, split, config)
    )
    tune(fused, world())
    assert fitted == ["validation"] * 6 + ["test"] * 3
