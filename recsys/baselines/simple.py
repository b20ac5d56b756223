"""The simplest baselines, each as a scorer: random scores, popularity, text neighbours."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedrec.data.shard import Shard, check_rows
from fedrec.recsys.model.scoring import Scorer


def random_scores(items: int, seed: int) -> Scorer:
    """Return a scorer of uniform random scores, which depend on the history and the seed alone."""

    def score(histories: Sequence[np.ndarray]) -> Tensor:
        samples = [np.random.default_rng([seed, *map(int, history)]).random(items, np.float32) for history in histories]
        return torch.from_numpy(np.stack(samples))

    return score


def popularity(shard: Shard, items: int, split: str) -> Scorer:
    """Return a scorer by the number of events of each item, over all histories that `split` may read."""
    _, events = shard.events(split)
    check_rows(events, items)
    counts = torch.from_numpy(np.bincount(events, minlength=items).astype(np.float32))  # (N,)
    return lambda histories: counts.repeat(len(histories), 1)


def text_neighbours(embeddings: Tensor, last: int = 10) -> Scorer:
    """Return a scorer by the cosine between an item's text and the mean text of the user's `last` events.

    Nothing is trained. An empty history scores zeros.
    """
    unit = F.normalize(embeddings, dim=-1)

    def profile(history: np.ndarray) -> Tensor:  # (E,)
        events = unit[torch.from_numpy(np.array(history[-last:], dtype=np.int64))]
        return events.mean(0) if len(events) else torch.zeros_like(unit[0])

    def score(histories: Sequence[np.ndarray]) -> Tensor:
        return torch.stack([profile(history) for history in histories]) @ unit.T

    return score
