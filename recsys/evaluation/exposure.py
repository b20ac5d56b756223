"""Counting what users are shown: the items of their lists, by how far each is ahead of the first one after the list."""

from collections.abc import Iterable, Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from fedrec.data.shard import Shard
from fedrec.recsys.evaluation.ranking import MAX_SCORES, MAX_USERS, mask_seen
from fedrec.recsys.exposure_bound import EDGES, LISTED, Exposure
from fedrec.recsys.hardware import parallel_map
from fedrec.recsys.model.scoring import UserScorer


def with_bias(score: UserScorer, bias: Tensor | None) -> UserScorer:
    """Return a scorer that adds biases (N,) to the scores of another."""
    if bias is None:
        return score

    def score_with_bias(users: Iterable[int]) -> Tensor:
        scores = score(users)
        return scores + bias.to(scores)

    return score_with_bias


def count_exposure(
    score: UserScorer, shard: Shard, users: Sequence[int] | np.ndarray, split: str, watched: Tensor
) -> Exposure:
    """Count in whose lists of ten each item is, and the histories and margins of the `watched` rows (K,), -1 in free
    places.

    A list holds no item of the user's history. A user without a history has no list, and counts nowhere.
    """
    known = np.array([user for user in users if len(shard.history(user, split))], dtype=np.int64)
    items = score(np.asarray(users)[:1]).shape[1]
    place_of = torch.full((items + 1,), -1, dtype=torch.int64)  # of each row among the watched; the last is for none
    place_of[watched] = torch.arange(len(watched))
    place_of[-1] = -1

    def count_block(block: np.ndarray) -> Exposure:
        histories = [shard.history(user, split) for user in block]
        best = mask_seen(score(block), histories).cpu().topk(min(LISTED + 1, items))
        values, rows = best.values[:, :LISTED], best.indices[:, :LISTED]
        after = best.values[:, LISTED:].sum(1, keepdim=True) if items > LISTED else -torch.inf
        listed = ~values.isneginf()
        bins = torch.bucketize((values - after)[listed], EDGES).clamp(max=len(EDGES) - 1)
        there = place_of[rows[listed]]
        cells = (there * len(EDGES) + bins)[there >= 0]
        had = place_of[torch.from_numpy(np.concatenate([np.unique(history) for history in histories]))]
        margins = _count(cells, len(watched) * len(EDGES)).view(len(watched), len(EDGES))
        return Exposure(len(block), _count(rows[listed], items), _count(had[had >= 0], len(watched)), margins)

    size = max(1, min(MAX_USERS, MAX_SCORES // items))
    blocks = parallel_map(count_block, (known[start : start + size] for start in range(0, len(known), size)))
    return reduce(add_exposure, blocks, Exposure(0, **Exposure.template(items)))


def add_exposure(one: Exposure, other: Exposure) -> Exposure:
    """Add the counts of two sets of users."""
    return Exposure(one.users + other.users, one.shown + other.shown, one.had + other.had, one.margins + other.margins)


def _count(places: Tensor, size: int) -> Tensor:
    return torch.bincount(places, minlength=size).double()
