"""SASRec: a cycle it must learn, no look ahead, and the same seed, the same model."""

from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch

from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.recsys.baselines.sasrec import Epoch, SASRec, SASRecConfig, fit_sasrec, pad_histories, sasrec_scorer
from fedrec.recsys.evaluation.ranking import rank
from tests.support.toy_world import shard_of

ITEMS = 12
TINY = SASRecConfig(width=16, layers=1, heads=2, length=6, dropout=0.0, batch=16, rate=0.01, epochs=30, patience=30)


def cycle() -> Shard:
    """Every user walks 0 → 1 → … → 11 → 0 from a start of their own, for 5 to 11 steps."""
    return shard_of([[(user + step) % ITEMS for step in range(5 + user % 7)] for user in range(60)])


def trained(config: SASRecConfig, seed: int = 0) -> tuple[SASRec, list[Epoch]]:
    epochs: list[Epoch] = []
    model = fit_sasrec(cycle(), ITEMS, config, np.random.default_rng(seed), epochs.append)
    return model, epochs


def untrained(**changes: float) -> SASRec:
    return SASRec(ITEMS, SASRecConfig(width=16, length=6, **changes)).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("candidates", [8192, 6], ids=["full softmax", "sampled"])
def test_it_learns_the_cycle(candidates: int) -> None:
    config = replace(TINY, candidates=candidates)
    model, epochs = trained(config)
    assert rank(sasrec_scorer(model), cycle(), range(60), "test").ranks.tolist() == [0] * 60
    assert epochs[0].loss == pytest.approx(log(ITEMS), rel=0.3)
    assert epochs[-1].loss < epochs[0].loss / 4


def test_what_comes_later_changes_nothing_before() -> None:
    model, items = untrained(), torch.arange(6).unsqueeze(0)
    changed = items.clone()
    changed[0, 3] = 11
    before, after = model(items), model(changed)
    assert torch.equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] != after[:, 3:]).any(-1).all()


def test_only_the_last_events_are_read() -> None:
    score = sasrec_scorer(untrained())
    assert score([np.arange(12)]).tolist() == score([np.arange(6, 12)]).tolist()


def test_histories_start_at_the_left_edge() -> None:
    items, mask = pad_histories([np.array([5, 6]), np.array([7, 8, 9])], torch.device("cpu"))
    assert items.tolist() == [[5, 6, 0], [7, 8, 9]]
    assert mask.tolist() == [[True, True, False], [True, True, True]]


def test_the_same_seed_gives_the_same_model_and_no_other_draw_is_touched() -> None:
    config = replace(TINY, epochs=2, dropout=0.3)
    state = torch.random.get_rng_state()
    first, again, other = trained(config)[0], trained(config)[0], trained(config, seed=1)[0]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.items.weight, again.items.weight)
    assert not torch.equal(first.items.weight, other.items.weight)


def test_it_trains_on_nothing_that_is_held_out() -> None:
    """Other validation and test items, the same weights after an epoch."""
    config = replace(TINY, epochs=1)
    shard = cycle()
    changed = shard.items.copy()
    changed[shard.ends - 1], changed[shard.ends - 2] = 0, 5
    other = Shard(shard.starts, shard.ends, changed, shard.salts)
    weights = [
        fit_sasrec(s, ITEMS, config, np.random.default_rng(0), lambda epoch: None).state_dict() for s in (shard, other)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_it_stops_when_validation_no_longer_improves_and_keeps_the_best_epoch() -> None:
    config = replace(TINY, epochs=100, validate_every=2, patience=3)
    model, epochs = trained(config)
    validated = [epoch for epoch in epochs if epoch.ndcg is not None]
    best = max(validated, key=lambda epoch: epoch.ndcg or 0)
    assert [epoch.epoch for epoch in validated] == list(range(2, len(epochs) + 1, 2))
    assert len(epochs) == best.epoch + 3 * 2 < 100
    assert rank(sasrec_scorer(model), cycle(), range(60), "validation").ranks.max() == 0


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(InputError, match="`heads` = 3 does not divide `width` = 16"):
        untrained(heads=3)
