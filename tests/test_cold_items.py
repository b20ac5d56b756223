"""Items that nobody has touched: the closed form over texts knows them by their texts."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fedrec.recsys.closed_form.search import Hyperparameters
from fedrec.recsys.training.closed_form import ClosedFormMethod
from tests.support.toy_world import shard_of, small_config

COLD = np.array([9, 10, 11, 21, 22, 23])
"""Three films about cooking and three about space, in no history."""

WARM = np.setdiff1d(np.arange(24), COLD)


def scores_of_cold_items(embeddings: Tensor, seed: int, **settings: object) -> tuple[Tensor, Tensor]:
    """Score the cold items for 20 cooks and 20 pilots: those of the user's own kind, and the others, (40, 3) each."""
    rng = np.random.default_rng(seed)
    kinds = WARM.reshape(2, 9)
    histories = [rng.permutation(kinds[user % 2]) for user in range(40)]
    config = small_config(method="closed-form", feature_width=256, **settings)
    method = ClosedFormMethod(embeddings, WARM, config.closed_form, seed, held_out=0)
    sums = method.sum_users(shard_of([history.tolist() for history in histories]), np.arange(40))
    solution = method.solver(sums.statistics).solve(Hyperparameters(ridge=10.0, decode=0.1, share=1.0))
    scores = (method.user_vectors(solution)(histories) @ method.candidates.T)[:, torch.from_numpy(COLD)]
    cooks, pilots = scores[::2], scores[1::2]
    own = torch.cat([cooks[:, :3], pilots[:, 3:]])
    return own, torch.cat([cooks[:, 3:], pilots[:, :3]])


def share_in_order(own: Tensor, others: Tensor) -> float:
    """Compute the probability that a cold item of the user's own kind is before one of the other kind."""
    return (own.unsqueeze(2) > others.unsqueeze(1)).double().mean().item()


@pytest.mark.parametrize("seed", range(3))
def test_whoever_cooks_gets_new_cooking_films(embeddings: Tensor, seed: int) -> None:
    assert share_in_order(*scores_of_cold_items(embeddings, seed)) > 0.9


def test_features_that_only_tell_items_apart_say_nothing_of_new_ones(embeddings: Tensor) -> None:
    """The control: with a large bandwidth alone, no text is like another."""
    found = [share_in_order(*scores_of_cold_items(embeddings, seed, feature_bandwidths="4")) for seed in range(3)]
    assert 0.2 < np.mean(found) < 0.8
