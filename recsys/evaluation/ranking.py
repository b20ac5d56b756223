"""Full-catalogue ranks of held-out items, and the metrics that ranks give.

Each user has one held-out item, so Recall@k and HR@k are the same number; both names are kept, as papers use both.
NDCG: Järvelin and Kekäläinen 2002, doi:10.1145/582415.582418, with one relevant item.
Why not against sampled negatives: Krichene and Rendle 2020, doi:10.1145/3394486.3403226.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.data.randomness import Stream, random_stream
from fedrec.data.shard import Shard, check_rows
from fedrec.recsys.exact_sum import exact_sum
from fedrec.recsys.exposure_bound import LISTED
from fedrec.recsys.hardware import parallel_map
from fedrec.recsys.model.scoring import Scorer, UserScorer

CUTOFFS = (5, 10, 20)
MAX_USERS, MAX_SCORES = 256, 2**25
"""Maximum users that are ranked and scores that are held at once, however many users and items there are."""
PROTOCOLS = ("full", "sampled-99", "cold")


@dataclass(frozen=True)
class RankingConfig:
    """Against which items a held-out item is ranked, and whether the coverage is measured."""

    protocol: str = "full"  # full: all unseen items; sampled-99: 99 unseen items sampled for the user
    coverage: bool = False


FULL_RANKING = RankingConfig()


@dataclass(frozen=True)
class Ranking:
    """The ranks of some users' held-out items: private, since each row is a user's."""

    ranks: np.ndarray  # (U,) number of items ranked before the held-out one
    coverage: float  # share of the rankable items that are in any user's top 10; NaN if it was not measured
    listed: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """(N,) number of users in whose top 10 each item is; empty if the coverage was not measured."""


def rank(
    score: Scorer, shard: Shard, users: Sequence[int], split: str, config: RankingConfig = FULL_RANKING
) -> Ranking:
    """Rank the held-out item of each user who has one among all items the user has not seen; ties count against it.

    If a published split holds out an item that the user has seen before, it is ranked among the same items.
    `sampled-99` ranks it among 99 unseen items instead, sampled for the user; it exists to compare with papers.
    """

    def score_users(some: Iterable[int]) -> Tensor:
        return score([shard.history(user, split) for user in some])

    return rank_users(score_users, shard, users, split, config)


def rank_users(
    score: UserScorer, shard: Shard, users: Sequence[int], split: str, config: RankingConfig = FULL_RANKING
) -> Ranking:
    """Rank held-out items as `rank` does, by a scorer of users instead of histories."""
    ranked = shard.ranked(users, split)
    if not len(ranked):
        return Ranking(np.zeros(0, dtype=np.int64), math.nan)
    first = score(ranked[:1])  # (1, N)
    items = first.shape[1]

    def rank_block(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        histories = [shard.history(user, split) for user in block]
        targets = shard.held_out(block, split)
        check_rows(np.concatenate([targets, *histories]), items)  # else a seen item of another row would be hidden
        scores = score(block)  # (b, N)
        places = torch.from_numpy(targets).to(scores.device).unsqueeze(1)  # (b, 1)
        own = scores.gather(1, places)
        scores = mask_seen(scores, histories)
        listed = _top_items(scores) if config.coverage else torch.zeros(0, dtype=torch.long)
        scores.scatter_(1, places, own)  # even if it was seen before
        if config.protocol == "sampled-99":
            scores = _keep_sampled(scores, torch.from_numpy(targets), shard.salts[block])
        return count_ranks(scores, targets), listed.cpu().numpy()

    size = max(1, min(MAX_USERS, MAX_SCORES // items))
    blocks = parallel_map(rank_block, (ranked[start : start + size] for start in range(0, len(ranked), size)))
    ranks, listed = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    if not config.coverage:
        return Ranking(ranks, math.nan)
    counts, rankable = np.bincount(listed, minlength=items), int((~first.isneginf()).sum())
    return Ranking(ranks, int((counts > 0).sum()) / rankable, counts)


def restrict_to(score: Scorer, candidates: np.ndarray) -> Scorer:
    """Return a scorer that ranks some items alone: `candidates` (N,) of bool.

    The protocol `cold` is a full ranking by it, among the cold items.
    """
    others = torch.from_numpy(~candidates)

    def score_candidates(histories: Sequence[np.ndarray]) -> Tensor:
        scores = score(histories)  # (B, N)
        return scores.masked_fill(others.to(scores.device), -torch.inf)

    return score_candidates


def _top_items(scores: Tensor) -> Tensor:
    """Return the items in the top 10 of some users, one list after the other: (b, N) → (n,)."""
    best = scores.topk(min(LISTED, scores.shape[1]))
    return best.indices[~best.values.isneginf()]


def sample_users(shard: Shard, most: int, generator: np.random.Generator) -> list[int]:
    """Sample the users to validate on: all of them, or at most `most`."""
    return generator.permutation(len(shard))[:most].tolist()


def mask_seen(scores: Tensor, histories: Sequence[np.ndarray]) -> Tensor:
    """Set the scores of each user's own items to -∞, in place: (b, N)."""
    lengths = np.fromiter(map(len, histories), dtype=np.int64, count=len(histories))
    places = np.repeat(np.arange(len(histories)) * scores.shape[1], lengths) + np.concatenate(histories)
    scores.view(-1)[torch.from_numpy(places).to(scores.device)] = -torch.inf
    return scores


def count_ranks(scores: Tensor, targets: np.ndarray) -> np.ndarray:
    """Count the other items that score no less than each row's target: (b, N), (b,) → (b,). NaN counts as no less."""
    own = scores.gather(1, torch.from_numpy(targets).to(scores.device).unsqueeze(1))  # (b, 1)
    behind = torch.lt(scores, own, out=torch.empty_like(scores))  # as floats, which add up faster than bools
    return scores.shape[1] - 1 - behind.sum(1).long().cpu().numpy()


def _keep_sampled(scores: Tensor, targets: Tensor, salts: np.ndarray) -> Tensor:
    """Keep the scores of the target and of 99 unseen items, sampled with the user's salt; the others are -∞."""
    kept = torch.full_like(scores, -torch.inf)
    for row, (target, salt) in enumerate(zip(targets.tolist(), salts, strict=True)):
        unseen = torch.isfinite(scores[row]).nonzero()[:, 0].cpu().numpy()
        others = unseen[unseen != target]
        sample = random_stream(Stream.SAMPLED_RANKING, salt).choice(others, size=min(99, len(others)), replace=False)
        candidates = torch.from_numpy(np.append(sample, target))
        kept[row, candidates] = scores[row, candidates]
    return kept


def per_user(ranks: np.ndarray, metric: str) -> np.ndarray:
    """Compute each user's `mrr`, `recall@k`, `hr@k` or `ndcg@k`, for any k: (U,) → (U,).

    Raises `InputError` for any other metric.
    """
    name, _, cutoff = metric.partition("@")
    if metric == "mrr":
        return 1 / (ranks + 1)
    if name not in {"recall", "hr", "ndcg"} or not cutoff.isdecimal():
        raise InputError(f"`metric` = {metric!r} is not known; use mrr, recall@k, hr@k or ndcg@k, as ndcg@10")
    hits = ranks < int(cutoff)
    return hits / np.log2(ranks + 2) if name == "ndcg" else hits.astype(np.float64)


def metric_sums(ranks: np.ndarray, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, float]:
    """Sum each metric, and 1, over users: what a node may send, and what adds up over nodes."""
    names = ["mrr", *(f"{name}@{k}" for k in cutoffs for name in ("recall", "hr", "ndcg"))]
    return {"users": float(len(ranks)), **{name: _sum_exactly(per_user(ranks, name)) for name in names}}


def _sum_exactly(values: np.ndarray) -> float:
    """Sum values so that the result does not depend on their order."""
    return float(exact_sum(torch.from_numpy(values).unsqueeze(1)))


def metric_means(sums: dict[str, float]) -> dict[str, float]:
    """Compute the means over users from their sums; `users` stays a count."""
    users = int(sums["users"])
    means = {name: total / max(users, 1) for name, total in sums.items() if name != "users"}
    return {"users": users, **dict(sorted(means.items()))}
