"""The baselines by name: each is fitted, tuned on validation alone, and never shown what the test ranks."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.recsys.baselines.registry import BASELINES
from fedrec.recsys.baselines.tuning import (
    Baseline,
    TextConfig,
    TrainingData,
    TuningResult,
    grid_configs,
    tune,
)
from fedrec.recsys.evaluation.ranking import metric_means, metric_sums, rank
from tests.support.toy_world import shard_of

QUICK: dict[str, dict[str, Any]] = {
    "SASRec": {"width": [8], "layers": [1], "length": [6], "epochs": [2], "dropout": [0.0, 0.3]},
    "item-kNN": {"neighbours": [1, 5]},
    "EASE with text prior": {"ridge": [1.0, 10.0], "prior": [1.0, 10.0], "decay": [0.8]},
    "closed forms together": {"next_item": [0.0, 0.4, 1.0]},
}


def world(shard: Shard | None = None, seed: int = 0) -> TrainingData:
    """30 users walk in rings of three items (0 → 1 → 2 → 0, 3 → 4 → 5 → 3, …), five rings; texts say nothing."""
    rings = np.random.default_rng(1).permuted(np.tile(np.arange(5), (30, 1)), axis=1)
    walks = [[3 * ring + step for ring in ring_order[:3] for step in range(3)] for ring_order in rings.tolist()]
    texts = torch.randn(15, 4, generator=torch.Generator().manual_seed(0))
    return TrainingData(shard or shard_of(walks), texts, seed)


def untimed(tuned: TuningResult) -> dict[str, Any]:
    trials = [{**trial, "seconds": None} for trial in tuned.record["trials"]]
    return {**tuned.record, "trials": trials}


def ndcg(tuned: TuningResult, shard: Shard, split: str) -> float:
    return metric_means(metric_sums(rank(tuned.score, shard, range(len(shard)), split).ranks))["ndcg@10"]


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_is_tuned_and_ready_for_the_test(name: str) -> None:
    given, grid = world(), QUICK.get(name, {})
    tuned = tune(BASELINES[name], given, grid)
    assert [trial.settings for trial in tuned.trials] == [
        vars(config) for config in grid_configs(BASELINES[name], grid)
    ]
    best = max(tuned.trials, key=lambda trial: trial.ndcg)
    assert tuned.settings == best.settings
    assert json.loads(json.dumps(tuned.record)) == tuned.record
    assert 0 < ndcg(tuned, given.shard, "test") <= 1


@pytest.mark.parametrize("name", BASELINES)
def test_what_the_test_ranks_decides_nothing(name: str) -> None:
    """With other test items: the same trials, the same choice, and the same scores of the same histories."""
    given, grid = world(), QUICK.get(name, {})
    changed = given.shard.items.copy()
    changed[given.shard.ends - 1] = (changed[given.shard.ends - 1] + 4) % 15
    other = world(Shard(given.shard.starts, given.shard.ends, changed, given.shard.salts))
    first, second = tune(BASELINES[name], given, grid), tune(BASELINES[name], other, grid)
    histories = [given.shard.history(user, "test") for user in range(30)]
    assert untimed(first) == untimed(second)
    assert torch.equal(first.score(histories), second.score(histories))


def knowing(item: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(item), 15).float()


def test_the_choice_is_validations_even_where_the_test_disagrees() -> None:
    """`last` = 1 names everybody's validation item, `last` = 2 everybody's test item: 1 is chosen."""
    shard = shard_of([[user, 5, 14, 13] for user in range(5)])
    oracle = Baseline(
        TextConfig,
        lambda data, split, config, observe: (
            lambda histories: knowing({1: 14, 2: 13}[config.last]).repeat(len(histories), 1)
        ),
        {"last": (2, 1)},
    )
    tuned = tune(oracle, world(shard))
    assert [trial.ndcg for trial in tuned.trials] == [0, 1]
    assert tuned.settings == {"last": 1}
    assert ndcg(tuned, shard, "test") == 0


def test_the_best_is_fitted_again_on_what_the_test_may_read() -> None:
    """Popularity for the test counts the validation items too; SASRec is tested as it was validated."""
    given = world()
    counted = tune(BASELINES["popularity"], given).score([np.array([0])])
    assert counted.sum() == (given.shard.ends - given.shard.starts - 1).sum()
    splits: list[str] = []

    def fit(given: TrainingData, split: str, config: Any, watch: Any) -> Any:
        splits.append(split)
        return BASELINES["random"].fit(given, split, config, watch)

    tune(replace(BASELINES["text neighbours"], fit=fit, grid={"last": (1, 2)}), given)
    tune(replace(BASELINES["text neighbours"], fit=fit, grid={"last": (1, 2)}, refits=False), given)
    assert splits == ["validation", "validation", "test", "validation", "validation"]
    splits.clear()
    tune(replace(BASELINES["text neighbours"], fit=fit, grid={"last": (1, 2)}), given, refit=False)
    assert splits == ["validation", "validation"]


def test_trials_that_differ_in_the_scoring_alone_share_a_fit() -> None:
    given = world()
    fitted: list[int] = []
    for key in (1, 1, 2, 2, 1):
        assert given.keep("squares", key, lambda key=key: fitted.append(key) or key**2) == key**2
    assert given.keep("cubes", 1, lambda: 1) == 1
    assert given.keep("squares", 1, lambda: 0) == 1, "another name replaces nothing"
    assert fitted == [1, 2, 1]


def test_a_grid_given_from_outside_replaces_values_by_name() -> None:
    tried = grid_configs(BASELINES["item-kNN"], {"neighbours": [7]})
    assert [(config.neighbours, config.shrink) for config in tried] == [(7, 0.0), (7, 10.0), (7, 30.0), (7, 100.0)]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"rigde": [1.0]}, "setting 'rigde' is not known; the settings are ridge, decay"),
        ({"ridge": [-1.0]}, "setting ridge = -1.0: input should be greater than 0"),
        ({"ridge": ["much"]}, "setting ridge = 'much': input should be a valid number"),
        ({"ridge": 100.0}, r"setting ridge = 100.0 is no list of values to try; write \[100.0\]"),
        ({"ridge": []}, "no list of values"),
    ],
)
def test_settings_that_do_not_fit_are_refused(grid: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tune(BASELINES["EASE"], world(), grid)


@pytest.mark.parametrize(("name", "figure"), [("item-kNN", 0.0686), ("EASE", 0.0723)])
def test_the_neighbours_on_ml_100k_give_their_known_figures(name: str, figure: float, ml_100k: Path) -> None:
    shard, items = Shard.load(ml_100k), len(Catalogue.load(ml_100k))
    tuned = tune(BASELINES[name], TrainingData(shard, torch.zeros(items, 1)))
    assert ndcg(tuned, shard, "test") == pytest.approx(figure, abs=5e-4)
