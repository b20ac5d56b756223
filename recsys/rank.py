"""Full-catalogue ranks of held-out items, and the metrics that ranks give.

Each user has one held-out item, so Recall@k and HR@k are the same number; both names are kept, as papers use both.
NDCG: Järvelin and Kekäläinen 2002, doi:10.1145/582415.582418, with one relevant item.
Why not against sampled negatives: Krichene and Rendle 2020, doi:10.1145/3394486.3403226.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.shard import SAMPLED, Cohort, Shard
from recsys.lora import Adapter
from recsys.model import Model

CUTOFFS = (5, 10, 20)
PROTOCOLS = ("full", "sampled-99")

Scorer = Callable[[Sequence[np.ndarray]], Tensor]
"""Histories of B users → scores (B, N) of every item. Whatever can rank is one."""


def model_scorer(model: Model, adapter: Adapter, vectors: Tensor, block: int = 128) -> Scorer:
    """The trained model as a scorer; `vectors` (N, E) are its item vectors."""

    def score(histories: Sequence[np.ndarray]) -> Tensor:
        return user_vectors(model, adapter, vectors, histories, block) @ vectors.T  # (B, N)

    return score


def user_vectors(
    model: Model, adapter: Adapter, vectors: Tensor, histories: Sequence[np.ndarray], block: int = 128
) -> Tensor:
    """One vector per history: (B, E). A history of no events gets a vector of zeros."""
    found = torch.zeros(len(histories), vectors.shape[1])
    cohort = Cohort.of(histories, np.arange(len(histories)), model.config.history)
    for users, part in cohort.blocks(block):
        items, mask = torch.from_numpy(part.items[:, 0]), torch.from_numpy(part.mask[:, 0])  # (b, L)
        found[users] = model.user_vectors(adapter, vectors[items], mask) * mask[:, -1:]
    return found


@dataclass(frozen=True)
class Ranking:
    """What ranking some users gave: private, since a row is a user's."""

    ranks: np.ndarray  # (U,) items placed before the held-out one
    coverage: float  # share of the catalogue in anyone's top 10


def rank(
    score: Scorer, shard: Shard, users: Sequence[int], split: str, protocol: str = "full", block: int = 256
) -> Ranking:
    """Rank each user's held-out item among all items the user has not seen; ties count against it.

    `sampled-99` ranks it among 99 unseen items drawn for the user instead. It exists to compare with papers.
    """
    ranks: list[np.ndarray] = []
    shown: set[int] = set()
    for part in _parts(users, block):
        histories = [shard.history(user, split) for user in part]
        scores = score(histories)  # (b, N)
        targets = torch.from_numpy(shard.held_out(part, split))
        for row, seen in enumerate(histories):
            scores[row, torch.from_numpy(np.array(seen, dtype=np.int64))] = -torch.inf
        shown.update(top(scores, min(10, scores.shape[1])).flatten().tolist())
        if protocol == "sampled-99":
            scores = _sampled(scores, targets, shard.salts[part])
        own = scores.gather(1, targets.unsqueeze(1))  # (b, 1)
        ranks.append(((scores >= own).sum(1) - 1).numpy())
    items = scores.shape[1] if ranks else 1
    return Ranking(np.concatenate(ranks) if ranks else np.zeros(0, dtype=np.int64), len(shown) / items)


def _parts(users: Sequence[int], block: int) -> Iterator[list[int]]:
    for start in range(0, len(users), block):
        yield [int(user) for user in users[start : start + block]]


def _sampled(scores: Tensor, targets: Tensor, salts: np.ndarray) -> Tensor:
    """Keep the target and 99 unseen others, drawn from the user's own generator; the rest falls out."""
    kept = torch.full_like(scores, -torch.inf)
    for row, (target, salt) in enumerate(zip(targets.tolist(), salts, strict=True)):
        unseen = torch.isfinite(scores[row]).nonzero()[:, 0].numpy()
        others = unseen[unseen != target]
        drawn = np.random.default_rng([SAMPLED, int(salt)]).choice(others, size=min(99, len(others)), replace=False)
        chosen = torch.from_numpy(np.append(drawn, target))
        kept[row, chosen] = scores[row, chosen]
    return kept


def top(scores: Tensor, k: int) -> Tensor:
    """Items by falling score, the lower row first among equals: (B, N) → (B, k)."""
    return scores.sort(dim=-1, descending=True, stable=True).indices[..., :k]


def metric_sums(ranks: np.ndarray, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, float]:
    """Sums over users of each metric, and of 1: what a node may tell, and what adds over nodes."""
    sums = {"users": float(len(ranks)), "mrr": _exact_sum(1 / (ranks + 1))}
    for k in cutoffs:
        hits = ranks < k
        sums[f"recall@{k}"] = sums[f"hr@{k}"] = float(hits.sum())
        sums[f"ndcg@{k}"] = _exact_sum(hits / np.log2(ranks + 2))
    return sums


def _exact_sum(values: np.ndarray) -> float:
    """Rounded to multiples of 2⁻³² first: such a sum is the same however the users are spread over nodes."""
    return float((np.round(values * 2.0**32) / 2.0**32).sum())


def metric_means(sums: dict[str, float]) -> dict[str, float]:
    """Means over users from such sums; `users` stays a count."""
    users = int(sums["users"])
    means = {name: total / max(users, 1) for name, total in sums.items() if name != "users"}
    return {"users": users, **dict(sorted(means.items()))}
