"""Per-client losses; each formula with its paper."""

import math

import torch
from torch import Tensor


def sampled_softmax(following: Tensor, others: Tensor, hits: Tensor, items: int) -> Tensor:
    """Cross-entropy of the next item against all items, estimated from K drawn uniformly without replacement.

    Each drawn item that is not the next one stands for (N - 1) / (number of such) items of the catalogue, so its
    score gets that ratio's logarithm: the correction by the log-probability of being drawn (Bengio and Senécal
    2008, doi:10.1109/TNN.2007.912312; Jean et al. 2015, arXiv:1412.2007). With K = N this *is* the full softmax.

    following: (..., L) the next item's scores; others: (..., L, K); hits: (..., L, K) where the drawn item is the
    next one itself; items: N. Returns (..., L).
    """
    drawn = (~hits).sum(-1, keepdim=True).clamp(min=1)
    corrected = (others + math.log(max(items - 1, 1)) - drawn.log()).masked_fill(hits, -torch.inf)
    everything = torch.cat([following.unsqueeze(-1), corrected], dim=-1)  # (..., L, 1 + K)
    return everything.logsumexp(-1) - following


def event_means(losses: Tensor, valid: Tensor) -> Tensor:
    """Each example's mean over its events: (C, B, L) → (C, B); 0 where it has none."""
    return losses.masked_fill(~valid, 0).sum(-1) / valid.sum(-1).clamp(min=1)


def client_means(losses: Tensor, counted: Tensor) -> Tensor:
    """Each client's mean over its examples that have events: (C, B) → (C,); 0 where it has none.

    Events are averaged first, so that a client with many examples weighs them as a federation weighs its users.
    """
    return losses.sum(-1) / counted.sum(-1).clamp(min=1)
