"""Per-client losses; each formula with its paper."""

import math

import torch
from torch import Tensor


def sampled_softmax(following: Tensor, others: Tensor, hits: Tensor, items: int) -> Tensor:
    """Estimate the cross-entropy of the next item against all N items from K items, sampled without replacement.

    Each sampled item that is not the next one represents (N - 1) / (number of such) items of the catalogue, so the
    logarithm of that ratio is added to its score: the correction by the log-probability of being sampled (Bengio and
    Senécal 2008, doi:10.1109/TNN.2007.912312; Jean et al. 2015, arXiv:1412.2007). With K = N it *is* the full softmax.

    following: (..., L) the next item's scores; others: (..., L, K) the sampled items' scores; hits: (..., L, K) True
    if the sampled item is the next one; items: N. Returns (..., L).
    """
    negatives = (~hits).sum(-1, keepdim=True).clamp(min=1)
    corrected = (others + math.log(max(items - 1, 1)) - negatives.log()).masked_fill(hits, -torch.inf)
    everything = torch.cat([following.unsqueeze(-1), corrected], dim=-1)  # (..., L, 1 + K)
    return everything.logsumexp(-1) - following


def event_means(losses: Tensor, valid: Tensor) -> Tensor:
    """Average each example's losses over its events: (C, B, L) → (C, B); 0 if it has none."""
    return losses.masked_fill(~valid, 0).sum(-1) / valid.sum(-1).clamp(min=1)


def client_means(losses: Tensor, counted: Tensor) -> Tensor:
    """Average each client's losses over its examples that have events: (C, B) → (C,); 0 if it has none.

    Events are averaged first, so that a client with many examples (a pooled cohort) weighs them as a federation weighs
    its users.
    """
    return losses.sum(-1) / counted.sum(-1).clamp(min=1)
