"""Scores that are divided by a power of an item's popularity: by hand, in the search, and in a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.federation.config import from_flat
from fedrec.recsys.closed_form.config import ClosedFormConfig
from fedrec.recsys.closed_form.packing import unpack
from fedrec.recsys.closed_form.search import Hyperparameters, SearchSpace, Trial
from fedrec.recsys.closed_form.solutions import WEIGHTS
from fedrec.recsys.closed_form.solve import item_popularity
from fedrec.recsys.closed_form.statistics import GRAM
from fedrec.recsys.training.closed_form import ClosedFormMethod
from fedrec.training import train
from tests.support.toy_world import SMALL, shard_of, small_config

IDS: dict[str, Any] = {"method": "closed-form", "features": "ids", "reverse": 0.0, "ridges": "1", "refinements": 0}
HISTORIES = [[0, 1, 2], [0, 3, 0, 1]]
POPULARITY = [1 + 1 / 4 + 1 + 1 / 4 + (1 + 1 / 4) ** 2, 1, 1, 1 + 1 / 4]
"""With a decay of 1/2, item 0 weighs 1 and 1/2 in the contexts of the first history, and 1, 1/2 and 1 + 1/4 in those of
the second; item 3 weighs 1 and 1/2; item 2 is in no context, which counts as 1."""


def method_of(decays: str) -> ClosedFormMethod:
    embeddings = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    return ClosedFormMethod(embeddings, np.arange(4), small_config(**IDS, decays=decays).closed_form, 0, held_out=0)


@pytest.mark.parametrize("decays", ["0.5", "0.5,0.25"])
def test_popularity_is_that_of_the_first_decay(decays: str) -> None:
    sums = method_of(decays).sum_users(shard_of(HISTORIES), np.arange(2)).statistics
    assert item_popularity(unpack(sums)[GRAM], 4).tolist() == POPULARITY


def test_weights_are_divided_by_a_power_of_the_popularity() -> None:
    method = method_of("0.5")
    solver = method.solver(method.sum_users(shard_of(HISTORIES), np.arange(2)).statistics)
    plain, ours = (solver.solve(Hyperparameters(1.0, 1.0, 1.0, discount=power))[WEIGHTS] for power in (0.0, 0.5))
    assert plain.any()
    assert torch.allclose(ours, plain / torch.tensor(POPULARITY).sqrt(), rtol=1e-6)


def test_discounts_are_followed_by_equal_steps() -> None:
    config = ClosedFormConfig(features="ids", ridges=(1,), priors=(0,), discounts=(0, 0.2, 0.4), refinements=3)
    space, trials = SearchSpace.of(config, blended=False), list[Trial]()
    while chosen := space.propose(trials):
        trials.append(Trial(chosen, chosen.discount))
    assert [trial.chosen.discount for trial in trials] == [0.2, 0, 0.4, 0.6, 0.8, 1.0]


def test_a_discount_without_ids_is_refused() -> None:
    with pytest.raises(InputError, match=r"setting discounts: only sums over features = 'ids'.*leave discounts at 0"):
        from_flat({"method": "closed-form", "discounts": "0,0.2"})
    with pytest.raises(InputError, match="setting discounts = '-1'"):
        from_flat(IDS | {"discounts": "-1"})


def test_a_run_serves_the_discount_that_it_chose(toy: Path, tmp_path: Path) -> None:
    """The popular items of the whole catalogue are listed less often the larger the discount is."""
    dataset = Dataset.open(toy)
    listed = []
    for discount in ("0", "1.5"):
        settings: dict[str, Any] = SMALL | IDS | {"discounts": discount}
        run = train(dataset, out=tmp_path / discount, progress=False, **settings)
        assert run.card["sums"]["chosen"]["discount"] == float(discount)
        popularity = np.bincount(dataset.shard.events("train")[1], minlength=len(dataset.catalogue))
        histories = [dataset.shard.history(user, "test") for user in range(len(dataset.shard))]
        listed.append(popularity[run.recommender.scorer()(histories).topk(3).indices.numpy()].mean())
    assert listed[1] < listed[0]
