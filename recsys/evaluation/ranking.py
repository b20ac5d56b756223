"""Full-catalogue ranks of held-out items, and the metrics that ranks give.

Each user has one held-out item, so Recall@k and HR@k are the same number; both names are kept, as papers use both.
NDCG: Järvelin and Kekäläinen 2002, doi:10.1145/582415.582418, with one relevant item.
Why not against sampled negatives: Krichene and Rendle 2020, doi:10.1145/3394486.3403226.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.data.randomness import Stream, random_stream
from fedrec.data.shard import Cohort, Shard, check_rows
from fedrec.recsys.exact_sum import exact_sum
from fedrec.recsys.hardware import parallel_map
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.two_tower import Model

CUTOFFS = (5, 10, 20)
USERS, SCORES, EVENTS = 256, 2**25, 4096
"""At a time, at most: users ranked, scores held and events read, however many users and items there are."""
PROTOCOLS = ("full", "sampled-99", "cold")

Scorer = Callable[[Sequence[np.ndarray]], Tensor]
"""Histories of B users → scores (B, N) of every item. Whatever can rank is one."""

Read = Callable[[Tensor, Tensor], Tensor]
"""Item vectors of right-aligned histories and a mask of their events → user vectors: (B, L, E), (B, L) → (B, E)."""

UserScorer = Callable[[Iterable[int]], Tensor]
"""B users of a shard → scores (B, N). Where a user has parameters of its own, its history does not tell all."""


def model_scorer(model: Model, adapter: Adapter, vectors: Tensor) -> Scorer:
    """A model in training as a scorer; `vectors` (N, E) are its item vectors."""
    return vector_scorer(partial(model.user_vectors, adapter), model.config.history, vectors)


def vector_scorer(read: Read, length: int, vectors: Tensor) -> Scorer:
    """What reads the last `length` events into a user vector, as a scorer of the items of `vectors` (N, E)."""

    def score(histories: Sequence[np.ndarray]) -> Tensor:
        return user_vectors(read, length, vectors, histories) @ vectors.T  # (B, N)

    return score


def user_vectors(read: Read, length: int, vectors: Tensor, histories: Sequence[np.ndarray]) -> Tensor:
    """One vector per history, of its last `length` events: (B, E). A history of no events gets a vector of zeros."""
    found = torch.zeros(len(histories), vectors.shape[1], device=vectors.device)
    cohort = Cohort.from_histories(histories, np.arange(len(histories)), length).check_rows(len(vectors))
    for users, part in cohort.blocks(EVENTS, len(histories)):
        items, mask = (torch.from_numpy(column[:, 0]).to(vectors.device) for column in (part.items, part.mask))
        found[users] = read(vectors[items], mask) * mask[:, -1:]  # (b, L) → (b, E)
    return found


@dataclass(frozen=True)
class Ranking:
    """What ranking some users gave: private, since a row is a user's."""

    ranks: np.ndarray  # (U,) items placed before the held-out one
    coverage: float  # share of the items that can be ranked in anyone's top 10; not a number where it was not asked for


def rank(
    score: Scorer, shard: Shard, users: Sequence[int], split: str, protocol: str = "full", coverage: bool = False
) -> Ranking:
    """Rank the held-out item of each user who has one among all items the user has not seen; ties count against it.

    Where a published split holds out an item that the user has seen before, it is ranked among the same.
    `sampled-99` ranks it among 99 unseen items drawn for the user instead. It exists to compare with papers.
    """

    def by_history(part: Iterable[int]) -> Tensor:
        return score([shard.history(user, split) for user in part])

    return rank_users(by_history, shard, users, split, protocol, coverage)


def rank_users(
    score: UserScorer, shard: Shard, users: Sequence[int], split: str, protocol: str = "full", coverage: bool = False
) -> Ranking:
    """The same by a scorer that knows the users themselves."""

    def ranked(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        histories = [shard.history(user, split) for user in part]
        targets = shard.held_out(part, split)
        check_rows(np.concatenate([targets, *histories]), first.shape[1])  # another's row would hide somebody's items
        scores = score(part)  # (b, N)
        places = torch.from_numpy(targets).to(scores.device).unsqueeze(1)  # (b, 1)
        own = scores.gather(1, places)
        scores = mask_seen(scores, histories)
        listed = _listed(scores) if coverage else torch.zeros(0, dtype=torch.long)
        scores.scatter_(1, places, own)  # even where it was seen before
        if protocol == "sampled-99":
            scores = _sampled(scores, torch.from_numpy(targets), shard.salts[part])
        return ranks_of(scores, targets), listed.cpu().numpy()

    those = shard.ranked(users)
    if not len(those):
        return Ranking(np.zeros(0, dtype=np.int64), math.nan)
    first = score(those[:1])  # (1, N)
    size = max(1, min(USERS, SCORES // first.shape[1]))
    found = parallel_map(ranked, (those[start : start + size] for start in range(0, len(those), size)))
    ranks, listed = (np.concatenate(part) for part in zip(*found, strict=True))
    return Ranking(ranks, len(np.unique(listed)) / int((~first.isneginf()).sum()) if coverage else math.nan)


def restrict_to(score: Scorer, candidates: np.ndarray) -> Scorer:
    """The same scorer where nothing can be ranked but some items: (N,) of bool.

    The protocol `cold` is a full ranking by it: among the cold items alone.
    """
    others = torch.from_numpy(~candidates)

    def score_candidates(histories: Sequence[np.ndarray]) -> Tensor:
        scores = score(histories)  # (B, N)
        return scores.masked_fill(others.to(scores.device), -torch.inf)

    return score_candidates


def _listed(scores: Tensor) -> Tensor:
    """The items in any top 10 of some users: (b, N) → (n,)."""
    best = scores.topk(min(10, scores.shape[1]))
    return best.indices[~best.values.isneginf()].unique()


def sample_users(shard: Shard, most: int, generator: np.random.Generator) -> list[int]:
    """Users to validate on: all of them, or so many as are worth their time."""
    return generator.permutation(len(shard))[:most].tolist()


def mask_seen(scores: Tensor, histories: Sequence[np.ndarray]) -> Tensor:
    """Each user's own items out of the ranking, in place: (b, N)."""
    lengths = np.fromiter(map(len, histories), dtype=np.int64, count=len(histories))
    places = np.repeat(np.arange(len(histories)) * scores.shape[1], lengths) + np.concatenate(histories)
    scores.view(-1)[torch.from_numpy(places).to(scores.device)] = -torch.inf
    return scores


def ranks_of(scores: Tensor, targets: np.ndarray) -> np.ndarray:
    """How many others score no less than each row's target: (b, N), (b,) → (b,). What is not a number is not less."""
    own = scores.gather(1, torch.from_numpy(targets).to(scores.device).unsqueeze(1))  # (b, 1)
    behind = torch.lt(scores, own, out=torch.empty_like(scores))  # as numbers: they add faster than truth values
    return scores.shape[1] - 1 - behind.sum(1).long().cpu().numpy()


def _sampled(scores: Tensor, targets: Tensor, salts: np.ndarray) -> Tensor:
    """Keep the target and 99 unseen others, drawn from the user's own generator; the rest falls out."""
    kept = torch.full_like(scores, -torch.inf)
    for row, (target, salt) in enumerate(zip(targets.tolist(), salts, strict=True)):
        unseen = torch.isfinite(scores[row]).nonzero()[:, 0].cpu().numpy()
        others = unseen[unseen != target]
        drawn = random_stream(Stream.SAMPLED_RANKING, salt).choice(others, size=min(99, len(others)), replace=False)
        chosen = torch.from_numpy(np.append(drawn, target))
        kept[row, chosen] = scores[row, chosen]
    return kept


def per_user(ranks: np.ndarray, metric: str) -> np.ndarray:
    """Each user's `mrr`, `recall@k`, `hr@k` or `ndcg@k`, for any k: (U,) → (U,). Raises `InputError` for another."""
    name, _, cutoff = metric.partition("@")
    if metric == "mrr":
        return 1 / (ranks + 1)
    if name not in {"recall", "hr", "ndcg"} or not cutoff.isdecimal():
        raise InputError(f"metric {metric!r} is not known; use mrr, recall@k, hr@k or ndcg@k, as ndcg@10")
    hits = ranks < int(cutoff)
    return hits / np.log2(ranks + 2) if name == "ndcg" else hits.astype(np.float64)


def metric_sums(ranks: np.ndarray, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, float]:
    """Sums over users of each metric, and of 1: what a node may tell, and what adds over nodes."""
    names = ["mrr", *(f"{name}@{k}" for k in cutoffs for name in ("recall", "hr", "ndcg"))]
    return {"users": float(len(ranks)), **{name: _total(per_user(ranks, name)) for name in names}}


def _total(values: np.ndarray) -> float:
    return float(exact_sum(torch.from_numpy(values).unsqueeze(1)))


def metric_means(sums: dict[str, float]) -> dict[str, float]:
    """Means over users from such sums; `users` stays a count."""
    users = int(sums["users"])
    means = {name: total / max(users, 1) for name, total in sums.items() if name != "users"}
    return {"users": users, **dict(sorted(means.items()))}
